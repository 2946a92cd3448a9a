"""How the C library allocates the memory of this process."""

import ctypes
from functools import lru_cache

# The names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_LARGEST_KEPT = 32 << 20
"""The largest block that is kept, bytes; glibc accepts no more."""

_KEPT_AT_THE_END = 256 << 20
"""How much free memory is kept at the end of the heap, bytes: more than a training of large batches frees at once."""


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Lets glibc reuse the memory of freed tensors instead of returning it to the system.

    By default, glibc returns blocks of 128 kB or more, and what is free at the end of the heap. Trainings and
    evaluations free and allocate such tensors for each batch, and the system pages the memory in again, which can take
    a third of an evaluation. glibc raises its limits when it frees larger blocks, so the speed depends on what the
    process did before. After this call it keeps blocks of up to 32 MB, and up to 256 MB at the end of the heap.
    Results do not change.

    Other C libraries have other allocators, and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_THE_END)
