"""Lines: a byte stream in pages of whole lines. The bytes are never altered, a missing last newline stays missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.core.interfaces import Stage
from app.core.page import Page
from app.framing.blocks import Block, Cutter, TooLong, too_long
from app.framing.ends import line_ends


def reader(*, page_bytes: int, max_line_bytes: int) -> list[Stage]:
    """The stages from byte pages to pages of whole lines, of at most ``page_bytes`` unless a line is longer.

    Raises ``record_too_long`` with line and byte for a line of more than ``max_line_bytes`` without its newline.
    """
    return [LineCut(page_bytes=page_bytes, max_line_bytes=max_line_bytes)]


class LineCut:
    """Cuts pages at line ends. Output pages tell their ``rows`` (lines), their ``byte`` and their ``line``."""

    name = "lines-cut"
    stateless = False
    grows = 1.6  # the join of a page with the line that was started before it, and where its lines end

    def __init__(self, *, page_bytes: int, max_line_bytes: int) -> None:
        # The started line, and what a bytearray takes ahead.
        self.holds = max_line_bytes + max_line_bytes // 8 + 8192
        self._max_line_bytes = max_line_bytes
        self._cutter = Cutter(line_ends, block_bytes=page_bytes, max_line_bytes=max_line_bytes)
        self._first = True

    @property
    def brisk(self) -> bool:
        """C tells where its lines end."""
        return self._cutter.is_quick

    def feed(self, page: Page) -> Iterator[Page]:
        """The lines that ``page`` ends."""
        return self._pages(self._cutter.feed(page.payload))

    def flush(self) -> Iterator[Page]:
        """The last line, if it lacks its newline."""
        return self._pages(self._cutter.rest())

    def _pages(self, blocks: Iterable[Block | TooLong]) -> Iterator[Page]:
        for block in blocks:
            if isinstance(block, TooLong):
                raise too_long(block.line, block.byte, self._max_line_bytes)
            first, self._first = self._first, False
            yield Page(block.data, len(block.data), block.lines, block.byte, block.line, first)
