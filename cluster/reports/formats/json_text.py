"""Results as JSON that every reader accepts."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(content: Any) -> str:
    """Returns content as JSON, with null for NaN and infinities, which JSON does not have."""
    return json.dumps(_in_json(content), indent=1, ensure_ascii=False, allow_nan=False)


def _in_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _in_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
