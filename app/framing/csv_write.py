"""Record batches to CSV text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pa_csv

from app.core.page import Page
from app.framing.json_text import unquoted_text


class CsvWrite:
    """Pages of rows to pages of text; the one that is ``first`` gets the header. ``delimiter`` is one byte."""

    name = "csv-write"
    holds = 0
    grows = 3.5  # the text, at most 1.5 times the page it was cut from, and its growth while it is written
    stateless = True

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter.decode()
        self._needs_quotes = re.compile(rf'^$|^\ufeff|["\r\n{re.escape(self._delimiter)}]')
        self._options = pa_csv.WriteOptions(include_header=False, batch_size=4096, delimiter=self._delimiter)

    def feed(self, page: Page) -> Iterator[Page]:
        """The text of ``page``."""
        batch = page.payload
        out = io.BytesIO()
        if page.first:
            out.write((self._delimiter.join(map(self._quoted, batch.schema.names)) + "\n").encode())
        if batch.num_rows:
            columns = [_writable(column) for column in batch.columns]
            pa_csv.write_csv(pa.RecordBatch.from_arrays(columns, batch.schema.names), out, self._options)
        text = out.getvalue()
        yield Page(text, len(text), page.rows, page.byte, page.line, page.first, page.rejects)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"' if self._needs_quotes.search(name) else name


def _writable(column: pa.Array) -> pa.Array:
    """``column`` as a type that pyarrow writes as it is promised in ``app.framing.csv``."""
    kind, is_ = column.type, pa.types
    if is_.is_dictionary(kind):
        return _writable(column.dictionary_decode())
    if is_.is_fixed_size_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind):
        column = column.cast(pa.binary())
    if is_.is_binary(column.type):
        return column.view(pa.string())  # as the bytes they are; a cast would check that they are UTF-8
    if is_.is_timestamp(kind) and kind.tz:
        return column.cast(pa.timestamp(kind.unit, "UTC"))
    if is_.is_nested(kind) or is_.is_string_view(kind) or is_.is_interval(kind) or is_.is_run_end_encoded(kind):
        return unquoted_text(column)
    return column
