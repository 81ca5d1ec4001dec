"""JSON, written only: one array of objects, a line for each row."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.interfaces import Stage
from app.core.page import Page
from app.framing.ndjson import writer as write_ndjson


def writer(*, page_bytes: int) -> list[Stage]:
    """The stages from record batches to the bytes of one array. An empty table is ``[]``."""
    return [*write_ndjson(page_bytes=page_bytes), JsonArray()]


class JsonArray:
    """Pages of lines to pages of one array. The bracket that closes it comes only if the flow ended well."""

    name = "json-array"
    stateless = False
    holds = 0
    grows = 2.5  # a line of two bytes becomes one of three, beside the line that loses its end

    def __init__(self) -> None:
        self._before = b""
        self._first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The lines of ``page``, with what belongs before them."""
        if page.nbytes:
            text = b"".join((self._before or b"[\n", bytes(page.payload[:-1]).replace(b"\n", b",\n")))
            self._before = b",\n"
            yield self._page(text, page.rows)

    def flush(self) -> Iterator[Page]:
        """The end of the array."""
        yield self._page(b"\n]\n" if self._before else b"[]\n", 0)

    def _page(self, text: bytes, rows: int) -> Page:
        first, self._first = self._first, False
        return Page(text, len(text), rows, first=first)
