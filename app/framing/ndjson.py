"""Newline-delimited JSON to pages of rows and back: one object per line, as ``jq -c`` and most logs have it.

Read: the columns and their types are those of the first page, in order of appearance; a key that is missing is null,
and blank lines are ignored. Whole numbers that are too large for 64 bits become decimals rather than lose digits. Texts
become dates or timestamps where all of them look alike and like one. A column that the first page does not have can be
declared by ``types``.

Written: see ``app.framing.json_text``.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

import orjson
import pyarrow as pa

from app.core.interfaces import Stage
from app.core.page import Page
from app.framing.bad_rows import PARSER_ERRORS, Fault, Record, misfit, parse_page, short
from app.framing.block_parse import parse_block
from app.framing.ends import line_ends
from app.framing.json_text import rows_text
from app.framing.ndjson_table import TOO_DEEP, NdjsonTable
from app.framing.needs import ALL, Needs
from app.framing.slices import Slices
from app.framing.survey import Survey
from app.framing.table_cut import TableCut

_ARRAY_HINT = "; cut a JSON array into its elements, one a line"
_BLAMED_ROW = re.compile(r"in row (\d+)")
_OBJECT_LINE = re.compile(rb"^[ \t]*\{.*\}[ \t\r]*$", re.MULTILINE)
_FULL_LINE = re.compile(rb"^[ \t\r]*[^ \t\r\n].*$", re.MULTILINE)


def reader(
    *,
    page_bytes: int,
    max_line_bytes: int,
    types: Mapping[str, pa.DataType],
    survey: Survey | None = None,
    needs: Needs = ALL,
) -> list[Stage]:
    """The stages from byte pages to record batches: one that cuts, cheaply, and one that parses, on any thread.

    Bad lines become rejects: ``bad_json``, ``bad_value``, ``unexpected_field``, ``bad_encoding``, ``record_too_long``.
    Raises ``empty_input``, ``record_too_long`` (the first line), ``page_too_large`` (too many columns). With a
    ``survey``, which has ended before the first page comes, columns and types are those that it found. Lines are judged by
    all columns, and have those that ``needs`` asks for.
    """
    table = NdjsonTable(page_bytes=page_bytes, max_line_bytes=max_line_bytes, types=types, survey=survey, needs=needs)
    return [TableCut("ndjson-cut", table, block_bytes=2 * page_bytes), NdjsonParse(table)]


def surveyor(*, page_bytes: int, max_line_bytes: int) -> tuple[Stage, Survey]:
    """The stages of a first pass over byte pages: one that cuts, and one that looks at the types."""
    table = NdjsonTable(page_bytes=page_bytes, max_line_bytes=max_line_bytes, types={})
    return TableCut("ndjson-cut", table, block_bytes=page_bytes), Survey(table)


def writer(*, page_bytes: int) -> list[Stage]:
    """The stages from record batches to bytes: an object per row, each ended by a newline."""
    slices = Slices("ndjson-slice", page_bytes=page_bytes, control_factor=6, column_bytes=_name_bytes)
    return [slices, NdjsonWrite()]


class NdjsonParse:
    """Blocks of whole lines to record batches of the table's schema; a page for a page."""

    name = "ndjson-parse"
    holds = 0
    # By pages of the flow, which the rows of a block, or of a part of it, keep within: the rows; pyarrow's copy of all
    # values as text with an index for each, of a part that is half as large again; the rows once more where dates are
    # made of texts. Bad lines are looked for after that was freed; at their worst a reject for each.
    grows = 3.6
    keeps = 1.0
    stateless = True

    def __init__(self, table: NdjsonTable) -> None:
        self._table = table

    def feed(self, page: Page) -> Iterator[Page]:
        """The rows of ``page``, and rejects for its other lines."""
        return parse_block(page, self._table, line_ends, self._parsed)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _parsed(self, part: Page) -> Page:
        return parse_page(
            part,
            self._table.schema,
            read=partial(self._judge, part),
            index=line_ends,
            records=lambda text: list(_lines(text)),
            blame=self._blame,
        )

    def _judge(self, page: Page, data: bytes | memoryview, count: int | None = None) -> pa.RecordBatch | int | None:
        """See ``bad_rows.Read``: pyarrow's verdict on some of ``page``, and that each line is one row."""
        if self._table.kernel is not None:
            # There will be room for so many rows; that of a piece may be kept for long.
            lines = page.rows if len(data) == page.nbytes else bytes(data).count(b"\n")
            batch = self._table.kernel.read(data, lines)
            if batch is not None and count in (None, batch.num_rows):
                return batch
        if not _is_utf8(data):
            return None
        try:
            batch = self._table.read(data)
        except PARSER_ERRORS as error:
            blamed = _BLAMED_ROW.search(str(error))
            return None if blamed is None else int(blamed[1])
        # Where every line starts with a brace and ends with one, no object spans two: between } and { in it there is
        # a comma or a quote, and in a text a newline is escaped. So one row for a line means one line for a row.
        rows = batch.num_rows
        if count not in (None, rows) or rows != _object_lines(bytes(data)):
            return None
        return batch

    def _blame(self, record: bytes) -> Fault:
        """Why ``record`` is not read."""
        if not _is_utf8(record):
            return Fault("bad_encoding", "the line is not valid UTF-8")
        try:
            row = orjson.loads(record)
        except ValueError as error:
            if (found := _out_of_range(record)) is not None:
                return misfit(*found, pa.float64())
            hint = _ARRAY_HINT if record.lstrip().startswith(b"[") else ""
            return Fault("bad_json", f"the line is not one JSON object: {error}{hint}")
        if not isinstance(row, dict):
            hint = _ARRAY_HINT if isinstance(row, list) else ""
            return Fault("bad_json", f"the line is JSON, but not an object{hint}")
        names = self._table.every.names
        if not names and not row:
            return Fault("bad_value", "the table has no column: no line of the first page has a field")
        if (twice := _key_twice(record)) is not None:
            return Fault("bad_json", f"the line has the key {short(twice)} twice")
        for name, value in row.items():
            if name not in names and (why := self._table.untyped(name, value)) is not None:
                return Fault("bad_value", f"column {short(name)}: {why}", name)
        for name in row:
            if name not in names:
                detail = f"the field {short(name)} was not in the first page; declare it with types={name}:TYPE"
                return Fault("unexpected_field", detail, name)
        for name, value in row.items():
            try:
                self._table.read_value(name, value)
            except orjson.JSONEncodeError:
                return Fault("bad_value", f"column {short(name)}: {TOO_DEEP}", name)
            except PARSER_ERRORS as error:
                if "unexpected field" in str(error):
                    detail = f"column {short(name)}: an object has a field that was not there in the first page"
                    return Fault("unexpected_field", detail, name)
                return misfit(name, value, self._table.every.field(name).type)
        return Fault("bad_json", "the line has something that is no plain JSON")


class NdjsonWrite:
    """Pages of rows to pages of lines."""

    name = "ndjson-write"
    holds = 0
    # The text, at most 1.5 times the page it was cut from, as the texts of the columns and as they are joined.
    grows = 6.0
    stateless = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The text of ``page``."""
        text = rows_text(page.payload)
        yield Page(text, len(text), page.rows, page.byte, page.line, page.first, page.rejects)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())


def _name_bytes(name: str) -> int:
    return 6 * len(name.encode()) + 4


def _key_twice(record: bytes) -> str | None:
    """A key that one of the objects of ``record``, which is JSON, has more than once."""
    found: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    with contextlib.suppress(RecursionError):
        json.loads(record, object_pairs_hook=note)
    return found[0] if found else None


class _OutOfRange(str):
    """A number that no double holds, as it is written."""

    __slots__ = ()


def _out_of_range(record: bytes) -> tuple[str, str] | None:
    """The first field of an object in which there is a number that no double holds, and that number."""

    def number(text: str) -> float | _OutOfRange:
        return _OutOfRange(text) if math.isinf(value := float(text)) else value

    try:
        row = json.loads(record, parse_float=number)
    except (ValueError, RecursionError):
        return None
    fields = row.items() if isinstance(row, dict) else ()
    return next(((name, found) for name, value in fields for found in _numbers_out_of_range(value)), None)


def _numbers_out_of_range(value: object) -> Iterator[str]:
    if isinstance(value, _OutOfRange):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers_out_of_range(inner)


def _is_utf8(data: bytes | memoryview) -> bool:
    if not len(data):
        return True
    ends = pa.py_buffer(b"\0\0\0\0" + len(data).to_bytes(4, "little"))
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _object_lines(data: bytes) -> int:
    """How many lines there are, blank ones left out; -1 if one of them is not in braces."""
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    starts = data.count(b"\n{") + data.startswith(b"{")
    ends = data.count(b"}\n") + data.endswith(b"}")
    if lines == starts == ends:
        return lines
    lines = sum(1 for _ in _FULL_LINE.finditer(data))
    return lines if lines == sum(1 for _ in _OBJECT_LINE.finditer(data)) else -1


def _lines(text: bytes) -> Iterator[Record]:
    start = 0
    while start < len(text):
        end = text.find(b"\n", start) + 1 or len(text)
        if text[start:end].strip(b" \t\r\n"):
            yield start, end
        start = end
