"""Bytes that come in parts of any size, joined and cut to pages."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.page import Page


class Parts:
    """Gives pages of at most ``page_bytes``; ``byte`` counts from the first part on, and the first page is ``first``.

    It holds the parts of one page, and while it joins them the page.
    """

    def __init__(self, page_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.total_bytes = 0
        self._given_bytes = 0
        self._parts: list[bytes] = []
        self._held_bytes = 0

    def add(self, part: bytes) -> Iterator[Page]:
        """Take ``part``; first give what is held, if both are more than a page."""
        self.total_bytes += len(part)
        if self._held_bytes + len(part) > self.page_bytes:
            yield from self.drain()
        if part:
            self._parts.append(part)
            self._held_bytes += len(part)

    def drain(self) -> Iterator[Page]:
        """Give all that is held."""
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._held_bytes = [], 0
        for start in range(0, len(whole), self.page_bytes):
            payload = whole[start : start + self.page_bytes]
            page = Page(payload, len(payload), byte=self._given_bytes, first=self._given_bytes == 0)
            self._given_bytes += len(payload)
            yield page
