"""What a trial's description says, as objects again: without torch, so that a report can read it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_pipeline.skeleton import BUILT_IN, Palm, Skeleton


def described_skeleton(trial: Mapping[str, Any]) -> Skeleton:
    """Returns the skeleton of a trial's poses.

    Args:
        trial: The content of its `trial.json`.

    Raises:
        LookupError: If it does not tell.
        TypeError: If what it tells is no skeleton.
        ValueError: As TypeError.
    """
    arguments = _tuples(trial["description"]["data"]["skeleton"]["args"])
    palm = arguments.pop("palm", None)
    skeleton = Skeleton(**arguments, palm=None if palm is None else Palm(**palm["args"]))
    # A description leaves out the palm of those that are known.
    return next((known for known in BUILT_IN if replace(known, palm=None) == skeleton), skeleton)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
