"""Preparing datasets for training: the implementation of `tune_runs/prepare_data.py`."""
