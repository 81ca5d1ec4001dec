"""A random-access input as a file for Arrow, of which only large ranges are asked.

A read of a far object costs about as much time as three megabytes of it; Arrow reads pages and headers of some
kilobytes. So what it will read is told beforehand, and fetched in ranges that bridge small gaps.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from app.core.errors import Refusal
from app.core.interfaces import RandomAccess
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
        self._tail = _Window(input, max(0, input.nbytes - TAIL_BYTES), input.nbytes)
        self._windows: list[_Window] = []
        self._begins: list[int] = []

    def hold_end(self, nbytes: int) -> int:
        """See to it that the tail has ``nbytes``, in one read more if need be; what it takes."""
        begin = self._input.nbytes - nbytes
        if begin < self._tail.begin:
            self._tail = _Window(self._input, begin, self._input.nbytes)
        return self._input.nbytes - self._tail.begin

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
            step_bytes = max(_LEAST_STEP_BYTES, self._held_bytes // len(chunks))
            windows = []
            for some, room in groups:
                room.held_bytes = (len(some) + 1) * step_bytes
                moving = zip(some, room.walks, strict=True)
                windows += [_Moving(self._input, chunk, step_bytes, walk, room) for chunk, walk in moving]
            self._show(windows)
            return
        for begin, end in ranges(chunks, most_bytes=max(1, self._held_bytes // 2)):
            if not self._tail.begin <= begin:
                self._show([*self._windows, _Window(self._input, begin, end)])
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
        if offset >= self._tail.begin:
            return self._tail.between(offset, end)
        index = bisect_right(self._begins, offset) - 1
        if index >= 0 and offset < self._windows[index].end:
            return self._windows[index].between(offset, min(end, self._windows[index].end))
        return read_whole(self._input, offset, end)


class _Window:
    """The bytes from ``begin`` to ``end``."""

    def __init__(self, input: RandomAccess, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self._data = memoryview(read_whole(input, begin, end))

    def between(self, begin: int, end: int) -> memoryview:
        return self._data[begin - self.begin : end - self.begin]


class _Moving(_Window):
    """Shows some of a chunk, and moves on where it is read."""

    def __init__(self, input: RandomAccess, chunk: Chunk, step_bytes: int, walk: PageWalk, room: Room) -> None:
        self.begin, self.end = chunk.at, chunk.at + chunk.nbytes
        self._input = input
        self._step_bytes = step_bytes
        self._walk, self._room = walk, room
        self._shown_at = chunk.at
        self._data = memoryview(b"")

    def between(self, begin: int, end: int) -> memoryview:
        if begin < self._shown_at or end > self._shown_at + len(self._data):
            self._move(begin, end)
        return self._data[begin - self._shown_at : end - self._shown_at]

    def _move(self, begin: int, end: int) -> None:
        # A header that is not whole yet stays, though Arrow has taken its first bytes.
        start = begin if self._walk.done else min(begin, self._walk.at)
        kept = self._data[start - self._shown_at :] if start >= self._shown_at else memoryview(b"")
        more_at = start + len(kept)
        more = read_whole(self._input, more_at, max(end, min(self.end, more_at + self._step_bytes)))
        self._shown_at, self._data = start, memoryview(more if not kept else bytes(kept) + more)
        del kept
        self._walk.over(self._data, start)
        if more_at + len(more) >= self.end:
            self._walk.check_done()
        self._room.check()


def read_whole(input: RandomAccess, begin: int, end: int) -> bytes:
    """The bytes from ``begin`` to ``end``, none of which is missing."""
    data = input.read_at(begin, end - begin) if begin < end else b""
    if len(data) != end - begin:
        raise Refusal(
            "source_failed", f"the input gives {len(data)} of {end - begin} bytes at byte {begin}", byte=begin
        )
    return data


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
