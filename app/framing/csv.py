"""CSV (RFC 4180) to pages of rows and back, for any delimiter of one byte.

Read: the first record is the header; duplicate names get ``_1``, ``_2``, and empty ones become ``column0``, ...
An empty field is null and ``""`` is an empty text. Blank lines are ignored, except in a table of one column, where each
is a null: there it is the only way to write one. Types are set by the first page. Whole numbers of 19 digits and more
become decimals instead of losing digits, and numbers with leading zeros stay text.

Written: texts in quotation marks, numbers, dates and the like without; null is empty; timestamps as
``2020-01-31 10:00:00``, those with a time zone in UTC with a Z; structs, lists and maps as JSON. It is read back
as it was.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page, Reject
from app.framing.bad_rows import PARSER_ERRORS, misfit, salvage, table_page, text_of
from app.framing.blocks import Block, Find, Opening, TableCut, shorter, too_long
from app.framing.json_text import unquoted_text
from app.framing.quotes import Quoting
from app.framing.schema import check_width, row_bytes, settle
from app.framing.slices import Slices

_GROUP_COLUMNS = 256
"""Columns that are converted in one pass over a block: pyarrow takes 10 KiB for each while it does."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLAMED_COLUMN = re.compile(r"In CSV column #(\d+)")
_INFINITE = r"^\s*[+-]?(?i:inf|infinity)\s*$"
_LEADING_ZERO = r"^\s*[+-]?0[0-9xX]"
_WHOLE = r"^\s*[+-]?[0-9]+\s*$"
_BEYOND_INT64 = 2.0**63


def reader(*, delimiter: bytes, page_bytes: int, max_line_bytes: int, types: Mapping[str, pa.DataType]) -> list[Stage]:
    """The stages from byte pages to record batches: one that cuts, cheaply, and one that parses, on any thread.

    Bad rows become rejects: ``ragged_row``, ``bad_value``, ``bad_encoding``. Raises ``empty_input``,
    ``record_too_long``, ``page_too_large`` (too many columns), ``bad_argument`` (``types`` of a column that is not
    there), and for the header ``bad_encoding`` and ``corrupt_input``.
    """
    table = CsvTable(delimiter, page_bytes=page_bytes, max_line_bytes=max_line_bytes, types=types)
    return [TableCut("csv-cut", table, page_bytes=page_bytes, max_line_bytes=max_line_bytes), CsvParse(table)]


def writer(*, delimiter: bytes) -> list[Stage]:
    """The stages from record batches to bytes: the header first, then a line per row, each ended by a newline."""
    return [Slices("csv-slice", control_factor=2, column_bytes=lambda name: 3), CsvWrite(delimiter)]


class CsvTable:
    """One table as text: its quoting, and its schema once the stream was opened. Both stages of a reader share it."""

    def __init__(
        self, delimiter: bytes, *, page_bytes: int, max_line_bytes: int, types: Mapping[str, pa.DataType]
    ) -> None:
        self.quoting = Quoting(delimiter)
        self.index = self.quoting.index
        self.schema = pa.schema([])
        self._delimiter = delimiter.decode()
        self._page_bytes = page_bytes
        self._max_line_bytes = max_line_bytes
        self._types = types

    @property
    def one_column(self) -> bool:
        """A blank line is a record then."""
        return len(self.schema.names) == 1

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Take the header from ``prefix`` and settle the schema by the records behind it. See ``TextFormat``."""
        header_bytes = self.quoting.first_end(prefix)
        if header_bytes == 0 and final:
            if self.quoting.unclosed(prefix) is not None:
                raise Refusal("corrupt_input", "a quote in the header is never closed", line=line, byte=byte)
            header_bytes = len(prefix)
        if (header_bytes or len(prefix)) > self._max_line_bytes + 1:
            raise too_long(line, byte, self._max_line_bytes)
        if header_bytes == 0:
            return None
        find = self.index(prefix)
        end = find(header_bytes, len(prefix))
        newlines = prefix.count(b"\n", 0, header_bytes)
        if final and self.quoting.unclosed(prefix[end:]) is None:
            end = len(prefix)
        if end == header_bytes and not final:
            if len(prefix) - header_bytes > self._max_line_bytes:
                raise too_long(line + newlines, byte + header_bytes, self._max_line_bytes)
            return None
        names = self._names(prefix[:header_bytes], line, byte)
        sample = self._sample(prefix, find, header_bytes, end, len(names))
        self.schema = settle(self._infer(sample, names), self._types)
        bytes_per_row = row_bytes(self.schema)
        return Opening(header_bytes, newlines, lambda nbytes, newlines: nbytes + newlines * bytes_per_row)

    def unfinished(self, block: Block) -> Reject | None:
        """The reject of a last record in which a quote is never closed."""
        quote = self.quoting.unclosed(block.data)
        if quote is None:
            return None
        line = block.line + bytes(block.data[:quote]).count(b"\n")
        detail = f"the quote that opens in line {line} (byte {block.byte + quote}) is not closed before the input ends"
        return Reject(block.line, block.byte, "ragged_row", detail, text_of(block.data))

    def read(
        self,
        data: bytes | memoryview,
        names: Sequence[str],
        types: Mapping[str, pa.DataType] | None = None,
        *,
        only: Sequence[str] | None = None,
        on_ragged: Callable[[Any], str] | None = None,
    ) -> pa.Table:
        """Whole records as pyarrow reads them. ``only`` some columns; ``types`` of them, inferred without."""
        skip = 0
        if bytes(data[:3]) == _BYTE_ORDER_MARK:
            # Inside a stream it is text. At the start of a block pyarrow would drop it.
            data, skip = b"\n" + bytes(data), 1
        wanted = names if only is None else only
        groups = [wanted[start : start + _GROUP_COLUMNS] for start in range(0, len(wanted), _GROUP_COLUMNS)]
        tables = [
            pa_csv.read_csv(
                pa.py_buffer(data),
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=names, skip_rows=skip
                ),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self._delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=len(names) > 1,
                    invalid_row_handler=on_ragged,
                ),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=None if only is None and len(groups) == 1 else group,
                    column_types=None if types is None else {name: types[name] for name in group},
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            for group in groups
        ]
        columns = [column for table in tables for column in table.columns]
        return pa.Table.from_arrays(columns, names=list(wanted))

    def _names(self, header: bytes, line: int, byte: int) -> list[str]:
        if self.quoting.has_stray_return(header):
            raise Refusal(
                "corrupt_input",
                f"line {line}, the header, has a carriage return that is not followed by a newline: lines must end"
                " in a newline, or in both",
                line=line,
                byte=byte,
            )
        text = header if header.endswith(b"\n") else header + b"\n"
        try:
            names = pa_csv.read_csv(
                pa.py_buffer(text),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1),
                parse_options=pa_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            ).column_names
        except UnicodeDecodeError:
            raise Refusal(
                "bad_encoding", f"line {line}, the header, is not valid UTF-8", line=line, byte=byte
            ) from None
        return _unique(names)

    def _sample(self, prefix: bytes, find: Find, start: int, end: int, columns: int) -> bytes:
        """The first records: as many as will take no more than two pages when their types are still to be found."""
        check_width(columns, self._page_bytes)
        while (end - start) + 9 * columns * prefix.count(b"\n", start, end) > 2 * self._page_bytes:
            length = shorter(find, start, end)
            if not length:
                break
            end = start + length
        # Bad text must not hide the types of the good one, nor end in a callback that cannot tell it.
        return prefix[start:end].decode(errors="replace").encode()

    def _infer(self, sample: bytes, names: Sequence[str]) -> pa.Schema:
        def skip(row: Any) -> str:
            return "skip"

        if not sample:
            return pa.schema([pa.field(name, pa.string()) for name in names])
        schema = self.read(sample, names, on_ragged=skip).schema
        numbers = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
        texts = self.read(sample, names, dict.fromkeys(numbers, pa.string()), only=numbers, on_ragged=skip)
        for name, column in zip(numbers, texts.columns, strict=True):
            index = schema.get_field_index(name)
            if _any(pc.match_substring_regex(column, _LEADING_ZERO)) and pa.types.is_integer(schema.field(name).type):
                schema = schema.set(index, pa.field(name, pa.string()))
            elif pa.types.is_floating(schema.field(name).type) and _all(pc.match_substring_regex(column, _WHOLE)):
                schema = schema.set(index, pa.field(name, _of_whole_numbers(column)))
        return schema


class CsvParse:
    """Blocks of whole records to record batches of the table's schema; a page for a page."""

    name = "csv-parse"
    holds = 0
    # By pages of the flow, which the cut keeps the rows of a block within: the rows, and pyarrow's copy of the text
    # with four bytes for a field. The rare ways (bad rows, ranges of numbers) come after that was freed.
    grows = 3.0
    stateless = True

    def __init__(self, table: CsvTable) -> None:
        self._table = table

    def feed(self, page: Page) -> Iterator[Page]:
        """The rows of ``page``, and rejects for its other records."""
        schema = self._table.schema
        if not page.nbytes:
            yield table_page(page, schema, [], [])
            return
        batch = self._judge(page.payload)
        if batch is not None:
            yield table_page(page, schema, [batch], [])
        else:
            yield table_page(page, schema, *self._salvage(page))

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _judge(self, data: bytes | memoryview, rows: int | None = None) -> pa.RecordBatch | None:
        """The rows of ``data``, or None if any record is bad: pyarrow's verdict, and that nothing changed silently."""
        schema = self._table.schema
        if self._table.quoting.has_stray_return(data):
            return None
        try:
            table = self._table.read(data, schema.names, dict(zip(schema.names, schema.types, strict=True)))
        except PARSER_ERRORS:
            return None
        batches = table.combine_chunks().to_batches()
        batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)
        if rows not in (None, batch.num_rows) or self._overflows(batch, data):
            return None
        return batch

    def _overflows(self, batch: pa.RecordBatch, data: bytes | memoryview) -> list[str]:
        """Columns where a number became infinite because it is out of range."""
        infinite = [
            field.name
            for field, column in zip(batch.schema, batch.columns, strict=True)
            if pa.types.is_floating(field.type) and _any(pc.is_inf(column))
        ]
        if not infinite:
            return []
        texts = self._table.read(data, batch.schema.names, dict.fromkeys(infinite, pa.string()), only=infinite)
        return [
            name
            for name, column in zip(infinite, texts.columns, strict=True)
            if _any(
                pc.and_not(pc.is_inf(batch.column(name)), pc.match_substring_regex(column.combine_chunks(), _INFINITE))
            )
        ]

    def _salvage(self, page: Page) -> tuple[list[pa.RecordBatch], list[Reject]]:
        data = bytes(page.payload)
        records = self._table.quoting.records(data)
        blank = [not self._table.one_column and not data[start:end].strip(b"\r\n") for start, end in records]
        rows_before = [0, *accumulate(not is_blank for is_blank in blank)]
        line, at = page.line, 0

        def read(i: int, j: int) -> pa.RecordBatch | None:
            if rows_before[j] == rows_before[i]:
                return pa.RecordBatch.from_pylist([], schema=self._table.schema)
            return self._judge(data[records[i][0] : records[j - 1][1]], rows_before[j] - rows_before[i])

        def blame(i: int) -> Reject | None:
            nonlocal line, at
            start, end = records[i]
            line, at = line + data.count(b"\n", at, start), start
            if blank[i] or read(i, i + 1) is not None:
                return None
            code, detail, column = self._fault(data[start:end])
            return Reject(line, page.byte + start, code, detail, text_of(data[start:end]), column)

        return salvage(len(records), read, blame)

    def _fault(self, record: bytes) -> tuple[str, str, str | None]:
        """Code, detail and column for a record that was refused."""
        schema = self._table.schema
        if self._table.quoting.has_stray_return(record):
            return "ragged_row", "a carriage return outside of quotes is not followed by a newline", None
        ragged: list[Any] = []

        def note(row: Any) -> str:
            ragged.append(row)
            return "skip"

        raw = dict.fromkeys(schema.names, pa.binary())
        table = self._table.read(record.decode(errors="replace").encode(), schema.names, raw, on_ragged=note)
        if ragged or table.num_rows != 1:
            found = ragged[0].actual_columns if ragged else table.num_rows
            return "ragged_row", f"the row has {found} columns and the header {len(schema.names)}", None
        table = self._table.read(record, schema.names, raw)
        for name in self._suspects(record):
            type_ = schema.field(name).type
            value = table.column(name)[0].as_py()
            try:
                batch = self._table.read(record, schema.names, {name: type_}, only=[name]).combine_chunks()
            except PARSER_ERRORS:
                try:
                    return "bad_value", misfit(name, value.decode(), type_), name
                except UnicodeDecodeError:
                    return "bad_encoding", f"column {name[:100]!r}: the text is not valid UTF-8", name
            if pa.types.is_floating(type_) and _any(pc.is_inf(batch.column(0))):
                return "bad_value", misfit(name, value.decode(errors="replace"), type_) + ": out of range", name
        return "bad_value", "the row cannot be read", None

    def _suspects(self, record: bytes) -> list[str]:
        """The columns, with the one that pyarrow blames before the others."""
        names: list[str] = self._table.schema.names
        try:
            self._table.read(record, names, dict(zip(names, self._table.schema.types, strict=True)))
        except PARSER_ERRORS as error:
            blamed = _BLAMED_COLUMN.search(str(error))
            if blamed is not None:
                return [names[int(blamed[1])], *names]
        return names


class CsvWrite:
    """Record batches to CSV text; the page that is ``first`` gets the header."""

    name = "csv-write"
    holds = 0
    grows = 3.0  # the text, at most 1.5 times the page it was cut from, and its growth while it is written
    stateless = True

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter.decode()
        self._quoted = re.compile(rf'^$|^\ufeff|["\r\n{re.escape(self._delimiter)}]')
        self._options = pa_csv.WriteOptions(include_header=False, batch_size=4096, delimiter=self._delimiter)

    def feed(self, page: Page) -> Iterator[Page]:
        """The text of ``page``."""
        batch = page.payload
        out = io.BytesIO()
        if page.first:
            out.write((self._delimiter.join(map(self._name, batch.schema.names)) + "\n").encode())
        if batch.num_rows:
            columns = [_writable(column) for column in batch.columns]
            pa_csv.write_csv(pa.RecordBatch.from_arrays(columns, batch.schema.names), out, self._options)
        text = out.getvalue()
        yield Page(text, len(text), page.rows, page.byte, page.line, page.first, page.rejects)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _name(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"' if self._quoted.search(name) else name


def _writable(column: pa.Array) -> pa.Array:
    """``column`` as a type that pyarrow writes to CSV the way it is promised above."""
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


def _unique(names: Sequence[str]) -> list[str]:
    named = [name or f"column{index}" for index, name in enumerate(names)]
    taken, unique = set(named), list[str]()
    for name in named:
        free = name
        if name in unique:
            free = next(other for number in count(1) if (other := f"{name}_{number}") not in taken)
            taken.add(free)
        unique.append(free)
    return unique


def _of_whole_numbers(texts: pa.ChunkedArray) -> pa.DataType:
    """A type that keeps every digit of numbers of which some are beyond int64."""
    digits = pc.max(pc.utf8_length(pc.utf8_trim(texts, " \t+-"))).as_py()
    return pa.decimal128(38, 0) if digits is not None and digits <= 38 else pa.string()


def _any(mask: Any) -> bool:
    return bool(pc.any(mask).as_py())


def _all(mask: Any) -> bool:
    return bool(pc.all(mask).as_py())
