"""Valid names of datasets."""

import re

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""The name of a dataset in its folder, and of each subfolder of the data folder."""

NAME_RULE = "a name has letters, digits, '.', '_', '+', '-', and begins with a letter or digit; folders end in '/'"
"""The rule for names in the data folder, for error messages."""


def fold_name(name: str, number: int) -> str:
    """Returns the name of a fold of a split dataset, `NAME_fold1`; its sets are `NAME_fold1_train` and so on."""
    return f"{name}_fold{number}"


def is_dataset_name(name: str) -> bool:
    """Returns whether `name` is valid for a dataset or table; a valid name cannot leave the data folder."""
    return all(DATASET_NAME.fullmatch(part) for part in name.split("/"))
