"""CSV text to record batches, whole blocks at a time: by C, what that does not know by pyarrow, and what pyarrow
refuses is taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from app.core.page import Page
from app.framing.bad_rows import PARSER_ERRORS, Fault, Record, misfit, parse_page, short
from app.framing.block_parse import parse_block
from app.framing.csv_table import CsvTable
from app.framing.csv_types import overflows

_BLAMED_COLUMN = re.compile(r"In CSV column #(\d+)")
_BLAMED_ROW = re.compile(r"Row #(\d+)")
_NUMBER = r"[0-9.][0-9.eE+-]*"
_POSSIBLE = (
    # No value outside of these is ever read as the type; most within are. They spare the parser a call for each row.
    (pa.types.is_integer, r"^\s*[+-]?[0-9][0-9a-fA-FxX]*\s*$"),
    (pa.types.is_floating, rf"^\s*[+-]?(?i:nan\(?\w*\)?|inf|infinity|{_NUMBER})\s*$"),
    (pa.types.is_decimal, rf"^\s*[+-]?{_NUMBER}\s*$"),
    (pa.types.is_date, r"^\s*[0-9][0-9-]*\s*$"),
    (pa.types.is_time, r"^\s*[0-9][0-9:.]*\s*$"),
    (pa.types.is_timestamp, r"^\s*[0-9][0-9:.TZ +-]*\s*$"),
    (pa.types.is_boolean, r"^\s*(?i:true|false|0|1)\s*$"),
)


class CsvParse:
    """Blocks of whole records to record batches of the table's schema; a page for a page."""

    name = "csv-parse"
    holds = 0
    # By pages of the flow, which the rows of a block, or of a part of it, keep within: the rows, and pyarrow's copy of the
    # text with four bytes for a field. Bad rows are looked for after that was freed, in small pieces.
    grows = 3.0
    keeps = 1.0
    stateless = True

    def __init__(self, table: CsvTable) -> None:
        self._table = table

    def feed(self, page: Page) -> Iterator[Page]:
        """The rows of ``page``, and rejects for its other records."""
        return parse_block(page, self._table, self._table.index, self._parsed)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _parsed(self, part: Page) -> Page:
        return parse_page(
            part,
            self._table.schema,
            read=partial(self._judge, part.rows),
            index=self._table.index,
            records=self._records,
            blame=self._blame,
            faults=self._faults,
        )

    def _judge(self, lines: int, data: bytes | memoryview, count: int | None) -> pa.RecordBatch | int | None:
        """See ``bad_rows.Read``: pyarrow's verdict, and that nothing changed silently."""
        if self._table.kernel is not None:
            batch = self._table.kernel.read(data, lines)
            if batch is not None and count in (None, batch.num_rows):
                return batch
        if self._table.quoting.has_stray_return(data):
            return None
        try:
            batch = self._table.read(data, self._table.schema)
        except PARSER_ERRORS as error:
            blamed = _BLAMED_ROW.search(str(error))
            return None if blamed is None else max(0, int(blamed[1]) - 1)
        if count not in (None, batch.num_rows) or self._overflows(batch, data):
            return None
        return batch

    def _overflows(self, batch: pa.RecordBatch, data: bytes | memoryview) -> bool:
        """Whether a number became infinite because it is out of range."""
        infinite = {
            field.name: column
            for field, column in zip(batch.schema, batch.columns, strict=True)
            if pa.types.is_floating(field.type) and pc.is_inf(column).true_count
        }
        if not infinite:
            return False
        texts = self._table.read(data, pa.schema([pa.field(name, pa.string()) for name in infinite]))
        return any(overflows(numbers, text) for numbers, text in zip(infinite.values(), texts.columns, strict=True))

    def _records(self, text: bytes) -> list[Record]:
        """The records, of which blank lines are none unless there is one column."""
        blank_too = len(self._table.names) == 1
        return [(i, j) for i, j in self._table.quoting.records(text) if blank_too or text[i:j].strip(b"\r\n")]

    def _faults(self, data: bytes, records: Sequence[Record]) -> dict[int, Fault]:
        """What can be told of many records at once; what is left out is good, or for the parser to judge."""
        faults: dict[int, Fault] = {}
        if self._table.quoting.has_stray_return(data):
            reason = Fault("ragged_row", "a carriage return outside of quotes is not followed by a newline")
            stray = self._table.quoting.has_stray_return
            faults = {index: reason for index, (i, j) in enumerate(records) if stray(data[i:j])}
        rest = [index for index in range(len(records)) if index not in faults]
        # Only UTF-8 may go where a callback is told of rows. It has as many columns as what it replaces.
        texts = [data[i:j].decode(errors="replace") for i, j in map(records.__getitem__, rest)]
        ragged: dict[str, int] = {}

        def note(row: Any) -> str:
            ragged[row.text] = row.actual_columns
            return "skip"

        names = self._table.names
        raw_schema = pa.schema([pa.field(name, pa.binary()) for name in names])
        if not rest:
            return faults
        self._table.read("".join(texts).encode(), raw_schema, on_ragged=note)
        for index, text in zip(rest, texts, strict=True):
            columns = ragged.get(text.removesuffix("\n").removesuffix("\r"))
            if columns is not None:
                detail = f"the row has {columns} columns and the header {len(names)}"
                faults[index] = Fault("ragged_row", detail)
        rest = [index for index in rest if index not in faults]
        if rest:
            raw = self._table.read(b"".join(data[i:j] for i, j in map(records.__getitem__, rest)), raw_schema)
            if raw.num_rows == len(rest):
                self._note_values(raw, rest, faults)
        return faults

    def _note_values(self, raw: pa.RecordBatch, indices: list[int], faults: dict[int, Fault]) -> None:
        for field in self._table.schema:
            column = raw.column(field.name)
            for is_type, possible in _POSSIBLE:
                if is_type(field.type):
                    wrong = pc.invert(pc.match_substring_regex(column, possible))
                    for row in pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist():
                        fault = misfit(field.name, _decoded(column[row].as_py()), field.type)
                        faults.setdefault(indices[row], fault)

    def _blame(self, record: bytes) -> Fault:
        """Why pyarrow refuses ``record``: the first column that it refuses by itself."""
        schema = self._table.schema
        try:
            raw = self._table.read(record, pa.schema([pa.field(name, pa.binary()) for name in self._table.names]))
        except PARSER_ERRORS:
            return Fault("ragged_row", "the row cannot be divided into columns")
        for name in self._suspects(record):
            field = schema.field(name)
            value = raw.column(name)[0].as_py() if raw.num_rows else b""
            try:
                batch = self._table.read(record, pa.schema([field]))
            except PARSER_ERRORS:
                if pa.types.is_string(field.type):
                    return Fault("bad_encoding", f"column {short(name)}: the text is not valid UTF-8", name)
                return misfit(name, _decoded(value), field.type)
            if self._overflows(batch, record):
                return misfit(name, _decoded(value), field.type)
        return Fault("ragged_row", "the row is not read as one row")

    def _suspects(self, record: bytes) -> list[str]:
        """The columns, the one that pyarrow names before the others."""
        names: list[str] = self._table.schema.names
        try:
            self._table.read(record, self._table.schema)
        except PARSER_ERRORS as error:
            blamed = _BLAMED_COLUMN.search(str(error))
            if blamed is not None and (name := self._table.names[int(blamed[1])]) in names:
                return [name, *names]
        return names


def _decoded(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
