"""The start of a table, and then its blocks of whole records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.framing.bad_rows import text_of
from app.framing.blocks import Block, Cutter, RecordEnd, SizeOf, TooLong, too_long
from app.framing.ends import Ends

_BLANK = re.compile(rb"[\r\n]*")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Opening:
    """How a table begins: its first ``nbytes`` bytes, with ``newlines``, are no records."""

    nbytes: int
    newlines: int
    size_of: SizeOf


class TextFormat(Protocol):
    """What ``TableCut`` needs to know of a format."""

    page_bytes: int
    """Of the start of a stream, by which the schema is known, and half of what the rows of a block may occupy."""
    max_line_bytes: int

    def index(self, buffer: bytes) -> Ends:
        """The ``Index`` of its records."""
        ...

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Settle the schema by the start of a stream; None if a longer one is needed, never if it is ``final``."""
        ...

    def record_end(self) -> RecordEnd:
        """Looks for the end of a record that is too long to be kept."""
        ...

    def unfinished(self, block: Block) -> Reject | None:
        """What is wrong with the stream's last record, which is not ended, if that alone makes it a bad one."""
        ...


class TableCut:
    """Byte pages to pages of whole records, once the schema is known by the first ``page_bytes`` of the stream. They have
    about ``block_bytes``, and fewer where their rows would occupy more than twice the format's ``page_bytes``.

    A byte order mark and blank lines at the very start are left out. ``empty_input`` if there is nothing else.
    Records that are too long become rejects; ``record_too_long`` if there is no other to know the schema by.
    """

    stateless = False
    # At the start: the piece that is opened, and what inference makes of it, at most two pages and as much for its
    # work, beside a copy as clean UTF-8, and where records end. Later the join of a page with the record before it.
    grows = 5.6

    def __init__(self, name: str, format: TextFormat, *, block_bytes: int) -> None:
        self.name = name
        self.holds = 2 * format.max_line_bytes + format.page_bytes
        self._format = format
        self._block_bytes = block_bytes
        self._cutter: Cutter | None = None
        self._start = bytearray()
        self._wanted_bytes = format.page_bytes
        self._byte = 0
        self._line = 1
        self._first = True

    @property
    def brisk(self) -> bool:
        """The table is open, and C tells where its records end."""
        return self._cutter is not None and self._cutter.is_quick

    def feed(self, page: Page) -> Iterator[Page]:
        """The blocks that ``page`` completes. Raises what opening the format raises."""
        return self.feed_several([page])

    def feed_several(self, pages: Sequence[Page]) -> Iterator[Page]:
        """See ``TakesSeveral``: the blocks that they complete."""
        pieces = [page.payload for page in pages]
        while pieces and self._cutter is None:
            self._start += pieces.pop(0)
            yield from self._try_open(final=False)
        if pieces and self._cutter is not None:
            yield from map(self._page_of, self._cutter.feed(*pieces))

    def flush(self) -> Iterator[Page]:
        """The last record, if it lacks its newline; an empty page if there was a header and no record."""
        if self._cutter is None:
            yield from self._try_open(final=True)
        assert self._cutter is not None
        for block in self._cutter.rest():
            unfinished = isinstance(block, Block) and not block.ended
            reject = self._format.unfinished(block) if unfinished else None  # type: ignore[arg-type]
            if reject is None:
                yield self._page_of(block)
            else:
                yield self._page(Block(b"", block.byte, block.line, 0), (reject,))
        if self._first:
            yield self._page(Block(b"", self._byte, self._line, 0))

    def _page_of(self, block: Block | TooLong) -> Page:
        if isinstance(block, Block):
            return self._page(block)
        detail = too_long(block.line, block.byte, self._format.max_line_bytes).detail
        reject = Reject(block.line, block.byte, "record_too_long", detail, text_of(block.start))
        return self._page(Block(b"", block.byte, block.line, 0), (reject,))

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
                    block_bytes=self._block_bytes,
                    most_bytes=2 * self._format.page_bytes,
                    max_line_bytes=self._format.max_line_bytes,
                    size_of=opening.size_of,
                    new_end=self._format.record_end,
                    byte=self._byte + opening.nbytes,
                    line=self._line + opening.newlines,
                )
                yield from map(self._page_of, self._cutter.feed(body))
                return
            self._wanted_bytes = min(2 * self._wanted_bytes, 2 * self._format.max_line_bytes + self._format.page_bytes)

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
