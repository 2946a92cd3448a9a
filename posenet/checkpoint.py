"""Checkpoints as bytes that notice when they were cut or changed.

A checkpoint is one line, `posetune-checkpoint <SHA-256 of the rest>`, and then what `torch.save` writes. It loads
with `weights_only=True`, so that a file from somewhere else can do no harm.
"""

import hashlib
import io
from typing import Any

import torch

from posenet.machine_errors import is_machine_error

_MAGIC = b"posetune-checkpoint "


class CheckpointError(Exception):
    """The bytes are not a whole, unchanged checkpoint."""


def pack(state: dict[str, Any]) -> bytes:
    """Returns the bytes of a checkpoint; `state` holds tensors and plain values."""
    content = tensor_bytes(state)
    return _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def unpack(data: bytes) -> dict[str, Any]:
    """Returns the state that `pack` was given, its tensors on the CPU.

    Raises:
        CheckpointError: If one byte is missing or different, or if it holds more than tensors and plain values.
    """
    header, newline, content = data.partition(b"\n")
    if not header.startswith(_MAGIC) or not newline:
        raise CheckpointError("it does not begin as a checkpoint does")
    if header.removeprefix(_MAGIC) != hashlib.sha256(content).hexdigest().encode():
        raise CheckpointError("its content is not what was written: it was cut or changed")
    try:
        state: Any = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:
        if is_machine_error(error):
            raise  # nothing is wrong with the bytes
        # torch.load has no error of its own: what it raises depends on what it refuses.
        raise CheckpointError(f"torch.load(..., weights_only=True) does not read it: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"it holds a {type(state).__name__} in place of a training's state")
    return state


def tensor_bytes(value: object) -> bytes:
    """Returns what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
