"""What a dataset may be called."""

import re

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""A dataset's name in its folder. The data folder may have others in it, whose names are of this form too."""

NAME_RULE = "a name has letters, digits, '.', '_', '+', '-', and begins with a letter or digit; folders end in '/'"
"""What a name below the data folder is, for an error."""


def is_dataset_name(name: str) -> bool:
    """Tells whether a dataset or table may be called so below the data folder: nothing leads out of it."""
    return all(DATASET_NAME.fullmatch(part) for part in name.split("/"))
