"""Cuts a stream of bytes into blocks of whole records, whatever pieces it comes in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import Refusal
from app.core.units import as_size
from app.framing.ends import Ends, KnownEnds
from app.framing.native.joined import joined

Index = Callable[[bytes], Ends]
"""Looks at a buffer that starts with a record, and tells where its records end."""

SizeOf = Callable[[int, int], float]
"""What a block of so many bytes, with so many newlines, will occupy once it is parsed."""

_NEWLINE = re.compile(rb"\n")
_SHOWN_BYTES = 4096
"""What is kept of a record that is too long, to show it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records. ``byte`` (from 0) and ``line`` (from 1) tell where ``data`` starts; ``lines`` is how many it has.

    The very last block of a stream is not ``ended`` where no newline outside of quotes came behind it.
    """

    data: bytes | memoryview
    byte: int
    line: int
    lines: int
    ended: bool = True


@dataclass(frozen=True, slots=True)
class TooLong:
    """A record that starts at ``byte`` and ``line`` and is longer than allowed; ``start`` is some of it. It is passed over."""

    start: bytes
    byte: int
    line: int


class RecordEnd(Protocol):
    """Looks for the end of one record, piece by piece."""

    def feed(self, piece: bytes | memoryview) -> int:
        """Where in ``piece`` the record ends, behind its newline; 0 if it does not."""
        ...

    @property
    def may_end(self) -> bool:
        """The record is whole if nothing more comes."""
        ...


class LineEnd:
    """Records are lines."""

    may_end = True

    def feed(self, piece: bytes | memoryview) -> int:
        """See ``RecordEnd``."""
        found = _NEWLINE.search(piece)
        return 0 if found is None else found.end()


def too_long(line: int, byte: int, max_line_bytes: int) -> Refusal:
    """The refusal of a record that starts at ``line`` and ``byte``."""
    return Refusal(
        "record_too_long",
        f"the record that starts in line {line} (byte {byte}) is longer than MAX_LINE ({as_size(max_line_bytes)}):"
        " raise MAX_LINE, or look for a missing line end or a quote that is never closed",
        line=line,
        byte=byte,
    )


class Cutter:
    """Takes pieces of a stream and gives blocks of about ``block_bytes``; more only where one record is longer. Records of
    more than ``max_line_bytes`` without their newline are told and passed over; ``new_end`` finds where they end.

    Blocks are cut smaller where they would occupy more than ``most_bytes`` (twice ``block_bytes``) by ``size_of``. A
    started record is kept back: at most ``max_line_bytes``, its length without the newline, and an eighth that a bytearray
    takes ahead. ``byte`` and ``line`` are where the stream starts.
    """

    def __init__(
        self,
        index: Index,
        *,
        block_bytes: int,
        max_line_bytes: int,
        most_bytes: int | None = None,
        size_of: SizeOf = lambda nbytes, newlines: nbytes,
        new_end: Callable[[], RecordEnd] = LineEnd,
        byte: int = 0,
        line: int = 1,
    ) -> None:
        self._index = index
        self._block_bytes = block_bytes
        self._most_bytes = 2 * block_bytes if most_bytes is None else most_bytes
        self._max_line_bytes = max_line_bytes
        self._shown_bytes = min(_SHOWN_BYTES, max_line_bytes)  # not what happens to be there, which cuts decide
        self._size_of = size_of
        self._byte = byte
        self._line = line
        self._new_end = new_end
        self._passing: tuple[RecordEnd, TooLong] | None = None
        self._tail = bytearray()
        self._scan_at_bytes = 0
        self._window_bytes = block_bytes
        self.is_quick = False
        """The last piece was cut as quickly as is possible, so that the next one probably will be."""

    def feed(self, *pieces: bytes | memoryview) -> Iterator[Block | TooLong]:
        """The blocks that ``pieces`` complete, all together: fewer and larger ones than one after the other."""
        if self._passing is not None:
            pieces = tuple(piece for piece in map(self._behind, pieces) if len(piece))
            if not pieces:
                return
        size = len(self._tail) + sum(map(len, pieces))
        # A started record that spans many pieces is scanned again only once it has doubled: linear, not quadratic.
        wait = size < self._scan_at_bytes or not any(map(_NEWLINE.search, pieces))
        if wait and size <= self._max_line_bytes:
            for piece in pieces:
                self._tail += piece
            return
        buffer = joined(self._tail, *pieces)
        del pieces
        self._tail = bytearray()
        yield from self._cut(buffer)

    def rest(self) -> Iterator[Block | TooLong]:
        """What is left at the end of the stream: whole records, a last one without newline, or an unfinished one.

        Raises ``record_too_long`` for a record that was passed over and never ended.
        """
        if self._passing is not None and not self._passing[0].may_end:
            raise too_long(self._passing[1].line, self._passing[1].byte, self._max_line_bytes)
        buffer = bytes(self._tail)
        self._tail = bytearray()
        yield from self._cut(buffer)
        if self._tail:
            yield Block(bytes(self._tail), self._byte, self._line, self._tail.count(b"\n") + 1, ended=False)

    def _cut(self, buffer: bytes) -> Iterator[Block | TooLong]:
        ends, view, start = self._index(buffer), memoryview(buffer), 0
        self.is_quick = isinstance(ends, KnownEnds)
        window = self._even(len(buffer))
        while start < len(buffer):
            end = self._end(ends, start, window, len(buffer))
            if end == start and len(buffer) - start <= self._max_line_bytes:
                break
            position = self._overlong(ends, start, end)
            if position == start:
                long = TooLong(bytes(view[start : start + self._shown_bytes]), self._byte, self._line)
                yield long
                start = len(buffer) - len(self._pass_over(self._new_end(), long, view[start:]))
                continue
            end = position or end
            newlines = ends.newlines(start, end)
            ratio = self._size_of(end - start, newlines) / self._most_bytes
            if newlines > 1 and ratio > 1:
                wanted = start + (end - start) // math.ceil(ratio)
                length = ends(start, wanted) - start or shorter(ends, start, end)
                if length:
                    window = length
                    continue
            # The next blocks are tried at the size that fits: each try looks at all of its bytes.
            fits = int((end - start) / ratio * 0.97) + 1
            if ratio <= 0.9:
                fits = max(self._window_bytes, min(fits, self._window_bytes * 9 // 8))
            self._window_bytes = min(self._block_bytes, fits)
            whole = start == 0 and end == len(buffer)
            block = Block(buffer if whole else view[start:end], self._byte, self._line, newlines)
            self._byte += end - start
            self._line += newlines
            start = end
            yield block
            window = self._even(len(buffer) - start)
        self._tail += view[start:]
        self._scan_at_bytes = 2 * len(self._tail) if b"\n" in self._tail else 0

    def _behind(self, piece: bytes | memoryview) -> bytes | memoryview:
        """What of ``piece`` is behind the record that is passed over, if one is."""
        return piece if self._passing is None else self._pass_over(*self._passing, memoryview(piece))

    def _pass_over(self, record_end: RecordEnd, long: TooLong, piece: memoryview) -> memoryview:
        """What is behind the record in ``piece``."""
        end = record_end.feed(piece)
        self._passing = None if end else (record_end, long)
        passed = piece[:end] if end else piece
        self._byte += len(passed)
        self._line += bytes(passed).count(b"\n")
        return piece[len(passed) :]

    def _even(self, nbytes: int) -> int:
        """The first of equal parts of a buffer: what is done for each block is not done for a few bytes that are left."""
        most, over = self._window_bytes, 0
        if most == self._block_bytes:  # where records are not known to occupy too much
            over = max(most // 16, (self._most_bytes - most) // 2)
        parts = max(1, math.ceil((nbytes - over) / most))
        return math.ceil(nbytes / parts)

    def _end(self, ends: Ends, start: int, window: int, size: int) -> int:
        """The end of a block at ``start``: of ``window`` bytes, or of more until a record is whole."""
        while True:
            end = ends(start, min(size, start + window))
            if end > start or start + window >= size or window > self._max_line_bytes:
                return end
            window *= 2

    def _overlong(self, ends: Ends, start: int, end: int) -> int | None:
        """Where the first record starts that is longer than allowed, in what ends at ``end`` or, if that is ``start``,
        does not end."""
        if end == start:
            return start
        while end - start > self._max_line_bytes + 1:
            whole = ends(start, start + self._max_line_bytes + 1)
            if whole == start:
                return start
            start = whole
        return None


def shorter(ends: Ends, start: int, end: int) -> int:
    """The length of a block of about half the records, 0 if only the last of them could be parted."""
    for shift in range(1, 8):
        length = ends(start, end - ((end - start) >> shift)) - start
        if 0 < length < end - start:
            return length
    return 0
