"""What the commands of `report.py` print."""
