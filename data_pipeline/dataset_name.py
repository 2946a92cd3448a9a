"""What a dataset may be called."""

import re

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""A dataset's name in its folder. The data folder may have others in it, whose names are of this form too."""
