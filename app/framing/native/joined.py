"""Bytes that are joined without the GIL: a page is copied in 0.2 ms, in which others can run."""

from __future__ import annotations

import pyarrow as pa

from app.core.unset import unset_bytes
from app.framing.native import LIBRARY

_LEAST_BYTES = 64 * 1024
"""Below, to give the GIL up and to have it back costs more."""


def joined(first: bytes | bytearray, second: bytes | memoryview) -> bytes:
    """``first`` and ``second``, one behind the other."""
    nbytes = len(first) + len(second)
    if LIBRARY is None or nbytes < _LEAST_BYTES:
        return b"".join((first, second))
    made = unset_bytes(nbytes)
    before, behind = pa.py_buffer(first), pa.py_buffer(second)
    LIBRARY.weir_join(pa.py_buffer(made).address, before.address, len(first), behind.address, len(second))
    return made
