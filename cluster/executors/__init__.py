"""Where trials run, and what watches them: this process, or Ray."""
