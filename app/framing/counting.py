"""How often a byte stands in a buffer."""

from __future__ import annotations

import pyarrow as pa

from app.framing.native import LIBRARY

_LEAST_BYTES = 1024
"""Below that a call of C is not worth it."""


def count(buffer: bytes, byte: int, start: int, stop: int) -> int:
    """How often ``byte`` stands in ``buffer[start:stop]``, where both lie within it."""
    if LIBRARY is None or stop - start < _LEAST_BYTES:
        return buffer.count(byte, start, stop)
    return int(LIBRARY.weir_count(pa.py_buffer(buffer).address + start, stop - start, byte))
