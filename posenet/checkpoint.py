"""Checkpoints as bytes with a checksum, which detects truncation and changes.

A checkpoint is one line, `posetune-checkpoint <SHA-256 of the rest>`, followed by the output of `torch.save`. It loads
with `weights_only=True`, so a file from an untrusted source can do no harm.
"""

import hashlib
import io
from typing import Any

import torch

from data_pipeline.files.tensors import require_uncompressed
from posenet.machine_errors import is_machine_error

_MAGIC = b"posetune-checkpoint "


def pack(state: dict[str, Any]) -> bytes:
    """Returns the bytes of a checkpoint; `state` contains tensors and plain values."""
    content = tensor_bytes(state)
    return _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def unpack(data: bytes) -> dict[str, Any]:
    """Returns the state from the bytes of `pack`, with tensors on the CPU.

    Raises:
        ValueError: If a byte is missing or different, or if it contains more than tensors and plain values.
    """
    header, newline, content = data.partition(b"\n")
    if not header.startswith(_MAGIC) or not newline:
        raise ValueError("it does not begin as a checkpoint does")
    if header.removeprefix(_MAGIC) != hashlib.sha256(content).hexdigest().encode():
        raise ValueError("its content does not match its checksum: it was truncated or changed")
    try:
        require_uncompressed(content)
        state: Any = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:
        if is_machine_error(error):
            raise  # the bytes are not at fault
        # torch.load has no specific error: what it raises depends on what it refuses.
        raise ValueError(f"torch.load(..., weights_only=True) cannot read it: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"it contains a {type(state).__name__} instead of the state of a training")
    return state


def tensor_bytes(value: object) -> bytes:
    """Returns the output of `torch.save`."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
