"""Record batches to CSV text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pa_csv

from app.core.page import Page
from app.framing.json_text import unquoted_text
from app.framing.native import LIBRARY
from app.framing.row_text import Column, Quoting, is_written, row_text


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
        head = self._delimiter.join(map(self._quoted, batch.schema.names)) + "\n" if page.first else ""
        text = self.text(batch, head.encode())
        yield Page(text, len(text), page.rows, page.byte, page.line, page.first, page.rejects)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def text(self, batch: pa.RecordBatch, head: bytes) -> bytes | memoryview:
        """The rows of ``batch``, behind ``head``."""
        if not batch.num_rows:
            return head
        arrays = [_writable(array) for array in batch.columns]
        if LIBRARY is not None and arrays:
            columns = [self._column(array, index) for index, array in enumerate(arrays)]
            if (text := row_text(columns, null=b"", end=b"\n", head=head)) is not None:
                return text
        out = io.BytesIO()
        out.write(head)
        pa_csv.write_csv(pa.RecordBatch.from_arrays(arrays, batch.schema.names), out, self._options)
        return out.getvalue()

    def _column(self, array: pa.Array, index: int) -> Column:
        before = self._delimiter.encode() if index else b""
        if pa.types.is_large_string(array.type):
            array = array.cast(pa.string())
        if pa.types.is_string(array.type):
            return Column(array, before, Quoting.CSV_TEXT)
        return Column(array if is_written(array.type) else array.cast(pa.string()), before, Quoting.PLAIN)

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
