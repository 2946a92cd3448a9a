"""Every file of an experiment, on any filesystem."""
