"""Messages of Arrow IPC, read without trusting them: as much as is needed to bound what decoding takes."""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
"""The kinds of messages of a table (``MessageHeader`` in Message.fbs)."""
_V5 = 4


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """What a message (a flatbuffer: Message.fbs) tells about its body.

    ``dictionary``: the id, and whether it is a delta. ``buffers``: offset and length of each, if they are compressed.
    """

    kind: int
    body_bytes: int
    dictionary: tuple[int, bool] | None
    buffers: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, metadata: memoryview) -> MessageHeader:
        """Raises ``struct.error`` for an offset that points outside, and for what only Arrow 0.17 has written."""
        message = _Table(metadata, _at("<I", metadata, 0))
        if message.scalar(0, "<h") < _V5 and message.table(4) is not None:
            raise struct.error  # its custom metadata may say that the body is compressed
        kind, body_bytes = message.scalar(1, "<B"), message.scalar(3, "<q")
        batch, dictionary = message.table(2), None
        if kind == DICTIONARY and batch is not None:
            dictionary = batch.scalar(0, "<q"), bool(batch.scalar(2, "<B"))
            batch = batch.table(1)
        if kind not in (DICTIONARY, BATCH) or batch is None or batch.table(3) is None:
            return cls(kind, body_bytes, dictionary, ())
        numbers = batch.vector_of_pairs(2)
        return cls(kind, body_bytes, dictionary, tuple(zip(numbers[::2], numbers[1::2], strict=True)))

    def decompressed_bytes(self, body: memoryview) -> int:
        """What the buffers say they are when decompressed (-1: it is not compressed). Raises ``struct.error``."""
        lengths = (_at("<q", body, offset) for offset, nbytes in self.buffers if nbytes)
        return sum(max(0, length) for length in lengths)


class WholeMessages:
    """A file, for Arrow, in which only whole messages are."""

    closed = False

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()

    def extend(self, pieces: list[memoryview]) -> None:
        """Put a whole message, in pieces."""
        self._pieces.extend(piece for piece in pieces if len(piece))

    def read(self, nbytes: int) -> memoryview:
        """Without a copy: Arrow asks for one piece after the other, and for all of it."""
        if not self._pieces or not nbytes:
            return memoryview(b"")
        piece = self._pieces.popleft()
        if len(piece) > nbytes:
            self._pieces.appendleft(piece[nbytes:])
        while len(piece) < nbytes and self._pieces:
            piece = memoryview(bytes(piece) + self._pieces.popleft())
        return piece[:nbytes]


@dataclass(frozen=True, slots=True)
class _Table:
    data: memoryview
    byte: int

    def _field(self, index: int) -> int | None:
        vtable = self.byte - _at("<i", self.data, self.byte)
        slot = 4 + 2 * index
        offset = _at("<H", self.data, vtable + slot) if slot < _at("<H", self.data, vtable) else 0
        return self.byte + offset if offset else None

    def scalar(self, index: int, format: str) -> int:
        byte = self._field(index)
        return 0 if byte is None else _at(format, self.data, byte)

    def table(self, index: int) -> _Table | None:
        byte = self._field(index)
        return None if byte is None else _Table(self.data, byte + _at("<I", self.data, byte))

    def vector_of_pairs(self, index: int) -> tuple[int, ...]:
        byte = self._field(index)
        if byte is None:
            return ()
        start = byte + _at("<I", self.data, byte)
        count = 2 * _at("<I", self.data, start)
        if 8 * count > len(self.data):
            raise struct.error
        return struct.unpack_from(f"<{count}q", self.data, start + 4)


def _at(format: str, data: memoryview, byte: int) -> int:
    if byte < 0:  # struct would count from the end
        raise struct.error
    value: int = struct.unpack_from(format, data, byte)[0]
    return value
