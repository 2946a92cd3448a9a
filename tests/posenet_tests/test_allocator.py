"""Tests of the memory that this process keeps."""

import ctypes
import subprocess
import sys

import pytest

# `arena` and `hblkhd` of mallinfo2: the bytes of the heap, and those of blocks outside it.
RETURNED_BYTES = """
import ctypes, sys
from posenet.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c hblkhd d e f g h".split()]
libc.mallinfo2.restype = Info
def from_system():
    info = libc.mallinfo2()
    return info.arena + info.hblkhd
block = libc.malloc(31 << 20)
before = from_system()
libc.free(block)
print(before - from_system())
"""


def returned_mb(mode: str) -> float:
    """Returns how much of a freed block of 31 MB the system gets back."""
    done = subprocess.run([sys.executable, "-c", RETURNED_BYTES, mode], check=True, capture_output=True, text=True)
    return int(done.stdout) / 2**20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this C library is not glibc 2.33 or newer")
def test_freed_memory_is_kept_instead_of_returned_to_the_system() -> None:
    assert returned_mb("default") >= 31
    assert returned_mb("keep") == 0
