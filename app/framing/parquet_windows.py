"""A random-access input as a file for Arrow, of which only large ranges are asked.

A read of a far object costs about as much time as three megabytes of it; Arrow reads pages and headers of some
kilobytes. So what it will read is told beforehand, and fetched in ranges that bridge small gaps.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from app.core.errors import Refusal
from app.core.interfaces import RandomAccess, ReadsSeveral
from app.framing.parquet_footer import Chunk
from app.framing.parquet_room import PageWalk, Room

TAIL_BYTES = 512 * 1024
"""What is read of the end at first: more, and a small footer costs time; less, and a large one costs a second read."""
GAP_BYTES = 256 * 1024
"""Gaps up to this size are read and thrown away."""
_LEAST_STEP_BYTES = 64 * 1024


class Windows:
    """A file for Arrow. It holds the tail of ``input``, and the chunks that are read next or windows that move over them.

    ``held_bytes`` bounds what is held beside the tail; while a range comes in, half as much may be there once more. One
    thread at a time. Reads of what was not told are served too, each by a call of its own.
    """

    closed = False

    def __init__(self, input: RandomAccess, *, held_bytes: int) -> None:
        self._input = input
        self._held_bytes = held_bytes
        self._at = 0
        self._windows: list[_Window] = []
        self._begins: list[int] = []
        self._tail = _Window((input.nbytes, input.nbytes), b"")
        self.hold_end(TAIL_BYTES)

    def hold_end(self, nbytes: int) -> int:
        """Read the tail anew, if it does not have ``nbytes`` (or all there are); gives what it has."""
        place = max(0, self._input.nbytes - nbytes), self._input.nbytes
        if place[0] < self._tail.begin:
            (data,) = _read_all(self._input, [place])
            self._tail = _Window(place, data)
        return self._tail.end - self._tail.begin

    def hold(self, groups: Sequence[tuple[Sequence[Chunk], Room]]) -> None:
        """Let go of what was held, and be ready for these chunks of row groups, whose page headers are checked.

        If all of it fits it is fetched now, and checked. Otherwise each chunk is read through a window, and checked
        before a window's bytes are given away.
        """
        self._show([])
        chunks = [chunk for chunks, _ in groups for chunk in chunks]
        if any(chunk.at < 0 or chunk.nbytes < 0 or chunk.at + chunk.nbytes > self._input.nbytes for chunk in chunks):
            raise ValueError("a column chunk lies outside of the file")
        nbytes = span_bytes(chunks)
        if nbytes > self._held_bytes:
            places = sorted((chunk.at, chunk.at + chunk.nbytes) for chunk in chunks)
            if any(before[1] > behind[0] for before, behind in pairwise(places)):
                raise ValueError(
                    "column chunks overlap"
                )  # so each byte is checked as one of the chunk that it is read for
            step_bytes = max(_LEAST_STEP_BYTES, self._held_bytes // len(chunks))
            windows = []
            for some, room in groups:
                room.held_bytes = (len(some) + 1) * step_bytes
                moving = zip(some, room.walks, strict=True)
                windows += [_Moving(self._input, chunk, step_bytes, walk, room) for chunk, walk in moving]
            self._show(windows)
            return
        together = isinstance(self._input, ReadsSeveral)
        places = ranges(chunks, most_bytes=max(1, self._held_bytes // (4 if together else 2)))
        places = [(begin, end) for begin, end in places if begin < self._tail.begin]
        self._show(map(_Window, places, _read_all(self._input, places)))
        for _, room in groups:
            room.held_bytes = nbytes
            room.check_through(self._read_at)

    def read(self, nbytes: int = -1) -> bytes | memoryview:
        """Up to ``nbytes`` from where it was sought; fewer at the end only."""
        left = max(0, self._input.nbytes - self._at)
        data = self._read_at(left if nbytes < 0 else min(nbytes, left), self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte of the input."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._input.nbytes}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Let go of everything."""
        self.closed = True
        self._show([])

    def _show(self, windows: Iterable[_Window]) -> None:
        self._windows = sorted(windows, key=lambda window: window.begin)
        self._begins = [window.begin for window in self._windows]

    def _read_at(self, nbytes: int, offset: int) -> bytes | memoryview:
        pieces: list[bytes | memoryview] = []
        end = min(offset + nbytes, self._input.nbytes)
        while offset < end:
            pieces.append(self._piece(offset, end))
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, offset: int, end: int) -> bytes | memoryview:
        """Some bytes, at least one, of those from ``offset`` to ``end``."""
        index = bisect_right(self._begins, offset) - 1
        # Windows before the tail: no byte that decides how much is decoded may get past their checks.
        if index >= 0 and offset < self._windows[index].end:
            return self._windows[index].between(offset, min(end, self._windows[index].end))
        if offset >= self._tail.begin:
            return self._tail.between(offset, end)
        return _read_all(self._input, [(offset, end)])[0]


class _Window:
    """The bytes of a place: from where to where."""

    def __init__(self, place: tuple[int, int], data: bytes) -> None:
        self.begin, self.end = place
        self._data = memoryview(data)

    def between(self, begin: int, end: int) -> memoryview:
        return self._data[begin - self.begin : end - self.begin]


class _Moving(_Window):
    """Shows some of a chunk, and moves on where it is read."""

    def __init__(self, input: RandomAccess, chunk: Chunk, step_bytes: int, walk: PageWalk, room: Room) -> None:
        super().__init__((chunk.at, chunk.at + chunk.nbytes), b"")
        self._input = input
        self._step_bytes = step_bytes
        self._walk, self._room = walk, room
        self._shown_at = chunk.at

    def between(self, begin: int, end: int) -> memoryview:
        if begin < self._shown_at or end > self._shown_at + len(self._data):
            self._move(begin, end)
        return self._data[begin - self._shown_at : end - self._shown_at]

    def _move(self, begin: int, end: int) -> None:
        # A header that is not whole yet stays, though Arrow has taken its first bytes.
        start = begin if self._walk.done else min(begin, self._walk.at)
        kept = self._data[start - self._shown_at :] if start >= self._shown_at else memoryview(b"")
        more_at = start + len(kept)
        (more,) = _read_all(self._input, [(more_at, max(end, min(self.end, more_at + self._step_bytes)))])
        self._shown_at, self._data = start, memoryview(more if not kept else bytes(kept) + more)
        del kept
        self._walk.over(self._data, start)
        if more_at + len(more) >= self.end:
            self._walk.check_done()
        self._room.check()


def ranges(chunks: Iterable[Chunk], *, most_bytes: int | None = None) -> list[tuple[int, int]]:
    """What to read for ``chunks``: from where to where, in order, with small gaps bridged, none more than ``most_bytes``."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted((chunk.at, chunk.at + chunk.nbytes) for chunk in chunks):
        if joined and begin - joined[-1][1] <= GAP_BYTES:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    if most_bytes is None:
        return joined
    return [(at, min(at + most_bytes, end)) for begin, end in joined for at in range(begin, end, most_bytes)]


def span_bytes(chunks: Iterable[Chunk]) -> int:
    """The bytes of all ranges that are read for ``chunks``."""
    return sum(end - begin for begin, end in ranges(chunks))


def _read_all(input: RandomAccess, places: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes of each place, from where to where, of which none is missing."""
    sizes = [(begin, end - begin) for begin, end in places if begin < end]
    if isinstance(input, ReadsSeveral) and len(sizes) > 1:
        found = input.read_several(sizes)
    else:
        found = [input.read_at(begin, nbytes) for begin, nbytes in sizes]
    for (begin, nbytes), data in zip(sizes, found, strict=True):
        if len(data) != nbytes:
            raise Refusal("source_failed", f"the input gives {len(data)} of {nbytes} bytes at byte {begin}", byte=begin)
    return found or [b""] * len(places)
