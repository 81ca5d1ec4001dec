"""Room for many buffers in one allocation: each that is made by itself gives the GIL up, and waits to have it back."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import pyarrow as pa

from app.core.unset import unset_bytes

_ALIGNED_BYTES = 16
"""What a decimal of 128 bits needs; the 64 that Arrow recommends would be much for batches of one row."""

_LEAST_USED = 7 / 8
"""Of a room: what holds on to more is larger than it says."""


class Room:
    """Asked for buffers first, and then made, once."""

    def __init__(self) -> None:
        self._nbytes = 0
        self._buffer: pa.Buffer | None = None

    def want(self, nbytes: int) -> tuple[int, int]:
        """The place of a buffer of ``nbytes``, for ``buffer`` and ``address``."""
        start = self._nbytes
        self._nbytes += -(-nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        return start, nbytes

    @property
    def nbytes(self) -> int:
        """What was asked for, in all."""
        return self._nbytes

    def make(self) -> int:
        """Allocate it. Gives the address of the first buffer; a place is so many bytes behind it."""
        self._buffer = pa.py_buffer(unset_bytes(self._nbytes))
        return int(self._buffer.address)

    def buffer(self, place: tuple[int, int], nbytes: int) -> pa.Buffer:
        """The first ``nbytes`` of what was asked for at ``place``: what is behind them is anybody's. It keeps the whole room
        alive."""
        assert self._buffer is not None
        return self._buffer.slice(place[0], nbytes)

    def buffers(self, places: Sequence[tuple[int, int]], rows: int, value_bytes: float) -> list[pa.Buffer]:
        """Of one column of ``rows``: its values; or its offsets, and the texts up to the last of these."""
        if len(places) == 1:
            return [self.buffer(places[0], math.ceil(rows * value_bytes))]
        assert self._buffer is not None
        end = ctypes.c_int32.from_address(self._buffer.address + places[0][0] + 4 * rows)
        return [self.buffer(places[0], 4 * (rows + 1)), self.buffer(places[1], end.value)]

    def kept(self, columns: list[list[pa.Buffer | None]]) -> list[list[pa.Buffer | None]]:
        """``columns`` of buffers of it; copies, where they use so little of it that it should not stay for them."""
        used_bytes = sum(buffer.size for buffers in columns for buffer in buffers if buffer is not None)
        if used_bytes >= _LEAST_USED * self._nbytes:
            return columns
        return [[buffer and pa.py_buffer(buffer.to_pybytes()) for buffer in buffers] for buffers in columns]
