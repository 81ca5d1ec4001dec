"""Cuts a stream of bytes into blocks of whole records, whatever pieces it comes in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.core.units import as_size
from app.framing.ends import Ends

Index = Callable[[bytes], Ends]
"""Looks at a buffer that starts with a record, and tells where its records end."""

SizeOf = Callable[[int, int], float]
"""What a block of so many bytes, with so many newlines, will occupy once it is parsed."""

_NEWLINE = re.compile(rb"\n")
_BLANK = re.compile(rb"[\r\n]*")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
    """Takes pieces of a stream and gives blocks of about ``page_bytes``; more only where one record is longer.

    Blocks are cut smaller where they would occupy more than twice ``page_bytes`` by ``size_of``. A started record is
    kept back: at most ``max_line_bytes``, its length without the newline, and an eighth that a bytearray takes ahead.
    ``byte`` and ``line`` are where the stream starts.
    """

    def __init__(
        self,
        index: Index,
        *,
        page_bytes: int,
        max_line_bytes: int,
        size_of: SizeOf = lambda nbytes, newlines: nbytes,
        byte: int = 0,
        line: int = 1,
    ) -> None:
        self._index = index
        self._page_bytes = page_bytes
        self._max_line_bytes = max_line_bytes
        self._size_of = size_of
        self._byte = byte
        self._line = line
        self._tail = bytearray()
        self._scan_at_bytes = 0
        self._window_bytes = page_bytes

    def feed(self, piece: bytes | memoryview) -> Iterator[Block]:
        """The blocks that ``piece`` completes. Raises ``record_too_long``."""
        size = len(self._tail) + len(piece)
        # A started record that spans many pieces is scanned again only once it has doubled: linear, not quadratic.
        wait = size < self._scan_at_bytes or _NEWLINE.search(piece) is None
        if wait and size <= self._max_line_bytes:
            self._tail += piece
            return
        buffer = b"".join((self._tail, piece)) if self._tail else bytes(piece)
        self._tail = bytearray()
        yield from self._cut(buffer)

    def rest(self) -> Iterator[Block]:
        """What is left at the end of the stream: whole records, a last one without newline, or an unfinished one."""
        buffer = bytes(self._tail)
        self._tail = bytearray()
        yield from self._cut(buffer)
        if self._tail:
            yield Block(bytes(self._tail), self._byte, self._line, self._tail.count(b"\n") + 1, ended=False)

    def _cut(self, buffer: bytes) -> Iterator[Block]:
        ends, view, start = self._index(buffer), memoryview(buffer), 0
        # Not a full page and then a few bytes, when a page and a started record come together and both fit.
        roomy = self._window_bytes == self._page_bytes and 2 * len(buffer) <= 3 * self._page_bytes
        window = len(buffer) if roomy else self._window_bytes
        while start < len(buffer):
            end = self._end(ends, start, window, len(buffer))
            if end == start:
                break
            newlines = ends.newlines(start, end)
            ratio = self._size_of(end - start, newlines) / (2 * self._page_bytes)
            if newlines > 1 and ratio > 1:
                wanted = start + int((end - start) / ratio)
                length = ends(start, wanted) - start or shorter(ends, start, end)
                if length:
                    window = length
                    continue
            # The next blocks are tried at the size that fits: each try looks at all of its bytes.
            if ratio > 0.9:
                self._window_bytes = min(self._page_bytes, int((end - start) / ratio * 0.97) + 1)
            else:
                self._window_bytes = min(self._page_bytes, max(self._window_bytes, (end - start) * 9 // 8))
            self._check_lengths(buffer, ends, start, end)
            whole = start == 0 and end == len(buffer)
            block = Block(buffer if whole else view[start:end], self._byte, self._line, newlines)
            self._byte += end - start
            self._line += newlines
            start = end
            yield block
        self._tail += view[start:]
        self._scan_at_bytes = 2 * len(self._tail) if b"\n" in self._tail else 0
        if len(self._tail) > self._max_line_bytes:
            raise too_long(self._line, self._byte, self._max_line_bytes)

    def _end(self, ends: Ends, start: int, window: int, size: int) -> int:
        """The end of a block at ``start``: of ``window`` bytes, or of more until a record is whole."""
        while True:
            end = ends(start, min(size, start + window))
            if end > start or start + window >= size or window > self._max_line_bytes:
                return end
            window *= 2

    def _check_lengths(self, buffer: bytes, ends: Ends, start: int, end: int) -> None:
        """Refuse a record that is longer than allowed within a block that is longer than that."""
        position = start
        while end - position > self._max_line_bytes + 1:
            whole = ends(position, position + self._max_line_bytes + 1)
            if whole == position:
                line = self._line + buffer.count(b"\n", start, position)
                raise too_long(line, self._byte + position - start, self._max_line_bytes)
            position = whole


def shorter(ends: Ends, start: int, end: int) -> int:
    """The length of a block of about half the records, 0 if only the last of them could be parted."""
    for shift in range(1, 8):
        length = ends(start, end - ((end - start) >> shift)) - start
        if length:
            return length
    return 0


@dataclass(frozen=True, slots=True)
class Opening:
    """How a table begins: its first ``nbytes`` bytes, with ``newlines``, are no records."""

    nbytes: int
    newlines: int
    size_of: SizeOf


class TextFormat(Protocol):
    """What ``TableCut`` needs to know of a format."""

    def index(self, buffer: bytes) -> Ends:
        """The ``Index`` of its records."""
        ...

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Settle the schema by the start of a stream; None if a longer one is needed, never if it is ``final``."""
        ...

    def unfinished(self, block: Block) -> Reject | None:
        """What is wrong with the stream's last record, which is not ended, if that alone makes it a bad one."""
        ...


class TableCut:
    """Byte pages to pages of whole records, once the schema is known by the first ``page_bytes`` of the stream.

    A byte order mark and blank lines at the very start are left out. ``empty_input`` if there is nothing else.
    """

    stateless = False
    # At the start: the piece that is opened, and what inference makes of it, at most two pages and as much for its
    # work, beside a copy as clean UTF-8, and where records end. Later the join of a page with the record before it.
    grows = 5.6

    def __init__(self, name: str, format: TextFormat, *, page_bytes: int, max_line_bytes: int) -> None:
        self.name = name
        self.holds = 2 * max_line_bytes + page_bytes
        self._format = format
        self._page_bytes = page_bytes
        self._max_line_bytes = max_line_bytes
        self._cutter: Cutter | None = None
        self._start = bytearray()
        self._wanted_bytes = page_bytes
        self._byte = 0
        self._line = 1
        self._first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The blocks that ``page`` completes. Raises ``record_too_long``, and what opening the format raises."""
        if self._cutter is None:
            self._start += page.payload
            yield from self._try_open(final=False)
        else:
            yield from map(self._page, self._cutter.feed(page.payload))

    def flush(self) -> Iterator[Page]:
        """The last record, if it lacks its newline; an empty page if there was a header and no record."""
        if self._cutter is None:
            yield from self._try_open(final=True)
        assert self._cutter is not None
        for block in self._cutter.rest():
            reject = None if block.ended else self._format.unfinished(block)
            if reject is None:
                yield self._page(block)
            else:
                yield self._page(Block(b"", block.byte, block.line, 0), (reject,))
        if self._first:
            yield self._page(Block(b"", self._byte, self._line, 0))

    def _page(self, block: Block, rejects: tuple[Reject, ...] = ()) -> Page:
        first, self._first = self._first, False
        return Page(block.data, len(block.data), block.lines, block.byte, block.line, first, rejects)

    def _try_open(self, *, final: bool) -> Iterator[Page]:
        self._skip_blank(final)
        # The schema depends on a part of the stream that its own bytes set, not the pages that they come in.
        while len(self._start) >= self._wanted_bytes or final:
            prefix = bytes(self._start[: self._wanted_bytes])
            if not prefix:
                raise Refusal("empty_input", "the input is empty, or blank: a table has at least a header or a record")
            opening = self._format.open(prefix, self._line, self._byte, final=final)
            if opening is not None:
                body = bytes(self._start[opening.nbytes :])
                self._start = bytearray()
                self._cutter = Cutter(
                    self._format.index,
                    page_bytes=self._page_bytes,
                    max_line_bytes=self._max_line_bytes,
                    size_of=opening.size_of,
                    byte=self._byte + opening.nbytes,
                    line=self._line + opening.newlines,
                )
                yield from map(self._page, self._cutter.feed(body))
                return
            self._wanted_bytes = min(2 * self._wanted_bytes, 2 * self._max_line_bytes + self._page_bytes)

    def _skip_blank(self, final: bool) -> None:
        if self._byte == 0 and self._start:
            if _BYTE_ORDER_MARK.startswith(self._start) and len(self._start) < 3 and not final:
                return
            if self._start.startswith(_BYTE_ORDER_MARK):
                self._drop(3)
        blank = _BLANK.match(self._start)
        assert blank is not None
        self._drop(blank.end())

    def _drop(self, nbytes: int) -> None:
        self._byte += nbytes
        self._line += self._start.count(b"\n", 0, nbytes)
        del self._start[:nbytes]
