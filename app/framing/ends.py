"""Where the records of a buffer end."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from typing import Protocol

import pyarrow as pa

from app.framing.native import LIBRARY
from app.framing.native.scratch import scratch

_SPARE_RECORDS = 1024
_RECORD_BYTES = 8
"""The mean length of a record below which their ends would take more room than they are worth."""


class Ends(Protocol):
    """Where records of a buffer end, which starts with one."""

    def __call__(self, start: int, stop: int) -> int:
        """Where the last whole record of ``buffer[start:stop]`` ends, or ``start`` if none does; a record begins there."""
        ...

    def newlines(self, start: int, stop: int) -> int:
        """How many newlines stand in ``buffer[start:stop]``, where a record begins and one ends."""
        ...


class LineEnds:
    """Of a buffer whose records are lines."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer

    def __call__(self, start: int, stop: int) -> int:
        """See ``Ends``."""
        return max(start, self._buffer.rfind(b"\n", start, stop) + 1)

    def newlines(self, start: int, stop: int) -> int:
        """See ``Ends``."""
        return self._buffer.count(b"\n", start, stop)


class KnownEnds:
    """Of a buffer that was looked at once: ``ends``, in order, as numbers of 32 bits, none within quotes."""

    def __init__(self, ends: memoryview) -> None:
        self._ends = ends

    def __call__(self, start: int, stop: int) -> int:
        """See ``Ends``."""
        index = bisect_right(self._ends, stop)
        return max(start, self._ends[index - 1]) if index else start

    def newlines(self, start: int, stop: int) -> int:
        """See ``Ends``."""
        return bisect_right(self._ends, stop) - bisect_right(self._ends, start)


def line_ends(buffer: bytes) -> Ends:
    """The ends of formats whose records are lines."""
    return known_ends(buffer) or LineEnds(buffer)


def known_ends(buffer: bytes, delimiter: int = 0, quote: int = 0) -> KnownEnds | None:
    """The ends of lines, or with a ``quote`` those of RFC 4180; None where C is not there, or not certain."""
    if LIBRARY is None:
        return None
    most = len(buffer) // _RECORD_BYTES + _SPARE_RECORDS
    room, inner = scratch(4 * (most + 8)), ctypes.c_int64()
    count = LIBRARY.weir_csv_record_ends(
        pa.py_buffer(buffer).address, len(buffer), delimiter, quote, most, room.address, ctypes.addressof(inner)
    )
    if count < 0 or inner.value:
        return None
    return KnownEnds(memoryview(bytes(memoryview(room)[: 4 * count])).cast("I"))
