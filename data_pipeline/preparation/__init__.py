"""What is done to datasets before anything is trained on them: the work behind `tune_runs/prepare_data.py`."""
