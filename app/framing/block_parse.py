"""A block of records to pages of rows: by C all at once where that fits, and otherwise in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import pyarrow as pa

from app.core.page import Page
from app.framing.bad_rows import table_page
from app.framing.blocks import SizeOf, shorter
from app.framing.ends import Ends
from app.framing.weight import Weight


class Kernel(Protocol):
    """Reads what is written plainly."""

    def read(self, data: bytes | memoryview, lines: int) -> pa.RecordBatch | None:
        """The rows of whole records, in which no more than ``lines`` newlines stand; None where pyarrow has to look."""
        ...


class ParsedTable(Protocol):
    """What is known of a table once it is open."""

    @property
    def schema(self) -> pa.Schema:
        """Of its rows."""
        ...

    @property
    def kernel(self) -> Kernel | None:
        """Reads them, perhaps."""
        ...

    @property
    def weight(self) -> Weight:
        """What they occupy."""
        ...

    @property
    def page_bytes(self) -> int:
        """Half of what a page of rows may occupy."""
        ...


def parse_block(
    page: Page, table: ParsedTable, index: Callable[[bytes], Ends], parse_part: Callable[[Page], Page]
) -> Iterator[Page]:
    """The rows of ``page``, which is a block of whole records, as pages: one at least. ``parse_part`` makes one of a part
    that is certain to fit, by the kernel or otherwise; ``index`` tells where records end."""
    most_bytes = 2 * table.page_bytes
    fits = table.weight.most(page.nbytes, page.rows) <= most_bytes
    batch = None if fits or table.kernel is None else table.kernel.read(page.payload, page.rows)
    if batch is not None:
        table.weight.note(page.nbytes, batch)
        yield table_page(page, table.schema, [batch], [])
        return
    for part in [page] if fits else _parts(page, index, table.weight.most, most_bytes):
        rows = parse_part(part)
        if part.nbytes:
            table.weight.note(part.nbytes, rows.payload)
        yield rows
        del rows  # that it is gone when the next ones are made


def _parts(page: Page, index: Callable[[bytes], Ends], size_of: SizeOf, most_bytes: int) -> list[Page]:
    """``page`` in parts of whole records that occupy no more than ``most_bytes`` by ``size_of``, unless one is a record that
    does; the first part is as ``first`` as it, and its rejects are the last one's."""
    ends, text, found = index(bytes(page.payload)), memoryview(page.payload), list[Page]()
    start, line = 0, page.line
    while start < page.nbytes:
        end, newlines = page.nbytes, page.rows - sum(part.rows for part in found)
        while size_of(end - start, newlines) > most_bytes and (length := shorter(ends, start, end)):
            end, newlines = start + length, ends.newlines(start, start + length)
        rejects = page.rejects if end == page.nbytes else ()
        first = page.first and not found
        found.append(Page(text[start:end], end - start, newlines, page.byte + start, line, first, rejects))
        start, line = end, line + newlines
    return found
