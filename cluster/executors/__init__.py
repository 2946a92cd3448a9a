"""Where trials run, and what monitors them: this process, or Ray."""
