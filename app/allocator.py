"""What the process asks of the C allocator, so that memory that a run gave back is used by the next one."""

from __future__ import annotations

import ctypes

import pyarrow as pa

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # malloc.h


def tune_allocator() -> bool:
    """Set glibc's malloc up for pages of about 1 MiB that come and go on several threads; False where it is not glibc.

    Arrow takes from it too. With its own pool, mimalloc, what one thread gave back is not what another one takes: the
    peak of a run drifts up with its length, by 30 MiB over 10 GiB of CSV to Parquet, which takes as long either way.

    Two arenas: each further one keeps its own freed memory. A fixed threshold for mapped blocks, above the size of
    pages, so that a page is carved from memory that was touched before: a fresh page fault costs more than copying
    what it holds. A pad at the top, so that the heap does not shrink and grow with every page.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = {
        _M_ARENA_MAX: 2,
        _M_MMAP_THRESHOLD: 8 << 20,
        _M_TRIM_THRESHOLD: 16 << 20,
        _M_TOP_PAD: 4 << 20,
    }
    accepted = [mallopt(option, value) for option, value in options.items()]
    return all(accepted)
