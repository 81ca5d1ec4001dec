"""An NDJSON table as text: the types of its columns, and pyarrow's reader with the options that are ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from app.core.errors import Refusal
from app.core.page import Reject
from app.framing.bad_rows import PARSER_ERRORS, REJECT_BYTES
from app.framing.blocks import Block, Opening, shorter, too_long
from app.framing.ends import Ends, line_ends
from app.framing.schema import check_width, leaves, row_bytes, settle, text_growth

_TOKEN = re.compile(rb'("(?:[^"\\\n]|\\.)*+")([ \t]*+:)?|[\[\]{}\n]')
_DEEPEST = 32
"""How many objects and lists may stand in one another: building the types of a deeper one recurses."""
_SMALL_BYTES = 16 * 1024
"""Text that is taken apart into lines where inference fails."""
_MANY_DIGITS = re.compile(rb"[:\[,]\s*-?\d{18,}")
_WHOLE_TYPE = pa.decimal128(38, 0)
_DATE = r"^\d{4}-\d\d-\d\d$"
_SECONDS = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?$"
_FRACTION = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{1,6}$"
_BY_LOOK = (
    (_DATE, pa.date32()),
    (_SECONDS, pa.timestamp("s")),
    (_SECONDS.replace("$", "Z$"), pa.timestamp("s", "UTC")),
    (_FRACTION, pa.timestamp("us")),
    (_FRACTION.replace("$", "Z$"), pa.timestamp("us", "UTC")),
)
"""Texts whose type is told by their look. All values must look the same, so that writing them changes none."""


class NdjsonTable:
    """What both stages of a reader know of their table; it has its ``schema`` once ``open`` gave an ``Opening``."""

    def __init__(self, *, page_bytes: int, max_line_bytes: int, types: Mapping[str, pa.DataType]) -> None:
        self.schema = pa.schema([])
        self._page_bytes = page_bytes
        self._max_line_bytes = max_line_bytes
        self._types = types
        self._text_schema = self.schema

    def index(self, buffer: bytes) -> Ends:
        """Records are lines."""
        return line_ends(buffer)

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Settle the schema by the first records. See ``TextFormat``."""
        ends = line_ends(prefix)
        end = len(prefix) if final else ends(0, len(prefix))
        if not end:
            if len(prefix) > self._max_line_bytes:
                raise too_long(line, byte, self._max_line_bytes)
            return None
        while _inference_bytes(prefix, end) > 2 * self._page_bytes and (length := shorter(ends, 0, end)):
            end = length
        check_width(_distinct_paths(prefix, end), self._page_bytes)
        inferred = _inferred(prefix, 0, end)
        added = [pa.field(name, type_) for name, type_ in self._types.items() if name not in inferred.names]
        self.schema = settle(pa.schema([*inferred, *added]), self._types)
        check_width(leaves(self.schema), self._page_bytes)
        # pyarrow reads these from numbers alone.
        self._text_schema = pa.schema(
            [pa.field(f.name, pa.string()) if _is_text_in_json(f.type) else f for f in self.schema]
        )
        growth, bytes_per_row = text_growth(self.schema), max(REJECT_BYTES, row_bytes(self.schema))
        return Opening(0, 0, lambda nbytes, newlines: growth * nbytes + newlines * bytes_per_row)

    def unfinished(self, block: Block) -> Reject | None:
        """A last line without a newline is a record like any other."""
        return None

    def read(self, data: bytes | memoryview, schema: pa.Schema | None = None) -> pa.RecordBatch:
        """Lines as pyarrow reads them, by ``schema``, the table's if it is None. Raises ``PARSER_ERRORS``.

        It may find more or fewer rows than there are lines.
        """
        wanted = self.schema if schema is None else schema
        text_schema = self._text_schema if schema is None else schema
        batch = _read(data, text_schema, unexpected="error")
        if text_schema is wanted or text_schema.equals(wanted):
            return batch
        columns = [_cast(column, field.type) for column, field in zip(batch.columns, wanted, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=wanted)

    def read_value(self, name: str, value: object) -> pa.RecordBatch:
        """A row of one column, as ``read`` would have it in the whole row."""
        text = orjson.dumps({name: value}) + b"\n"
        column = _read(text, pa.schema([self._text_schema.field(name)]), unexpected="error").column(0)
        return pa.RecordBatch.from_arrays([_cast(column, self.schema.field(name).type)], [name])


def _read(data: bytes | memoryview, schema: pa.Schema | None, *, unexpected: str) -> pa.RecordBatch:
    table = pa_json.read_json(
        pa.py_buffer(data),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pa_json.ParseOptions(
            explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior=unexpected
        ),
    ).combine_chunks()
    if schema is not None and not table.num_rows:
        return pa.RecordBatch.from_pylist([], schema=schema)
    columns = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _inference_bytes(text: bytes, end: int) -> int:
    """What inference holds beside ``text[:end]``: up to eleven bytes for a value, and there is a comma or a newline
    before most."""
    return end + 11 * (text.count(b",", 0, end) + text.count(b"\n", 0, end))


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


def _distinct_paths(text: bytes, end: int) -> int:
    """How many columns of values the lines before ``end`` have, or more; pyarrow takes memory for each in each row.

    Raises ``bad_json`` for a line that is too deep.
    """
    paths: set[tuple[int, bytes]] = set()
    ids: dict[tuple[int, bytes], int] = {}
    stack: list[int] = []
    here, key = 0, b""
    for match in _TOKEN.finditer(text, 0, end):
        if match[2]:
            key = match[1]
            paths.add((here, key))
            continue
        token = match[0]
        if token == b"\n":
            stack.clear()
            here, key = 0, b""
        elif token in (b"{", b"["):
            stack.append(here)
            if len(stack) > _DEEPEST:
                raise Refusal("bad_json", f"objects and lists stand in one another more than {_DEEPEST} deep")
            here = ids.setdefault((here, key), len(ids) + 1)
            key = token
        elif token in (b"}", b"]"):
            here = stack.pop() if stack else 0
    return len(paths)


def _inferred(text: bytes, start: int, end: int) -> pa.Schema:
    """The schema of the lines in ``text[start:end]``, bad ones left out; what contradicts the first ones is bad."""
    try:
        return _schema_of(memoryview(text)[start:end])
    except PARSER_ERRORS:
        middle = text.find(b"\n", (start + end) // 2, end) + 1
    if end - start > _SMALL_BYTES and start < middle < end:
        return _merged(_inferred(text, start, middle), _inferred(text, middle, end))
    return _inferred_of_lines([line for line in text[start:end].split(b"\n") if _is_object(line)])


def _inferred_of_lines(lines: Sequence[bytes]) -> pa.Schema:
    if not lines:
        return pa.schema([])
    try:
        return _schema_of(b"\n".join(lines))
    except PARSER_ERRORS:
        half = len(lines) // 2
        return _merged(_inferred_of_lines(lines[:half]), _inferred_of_lines(lines[half:])) if half else pa.schema([])


def _schema_of(text: bytes | memoryview) -> pa.Schema:
    """The schema of lines that do not contradict one another. Raises ``PARSER_ERRORS``."""
    schema = _read(text, None, unexpected="infer").schema
    fields = {field.name: pa.field(field.name, _timeless(field.type)) for field in schema}
    strings = pa.schema([field for field in fields.values() if pa.types.is_string(field.type)])
    if len(strings):
        texts = _read(text, strings, unexpected="ignore")
        for name, column in zip(strings.names, texts.columns, strict=True):
            fields[name] = pa.field(name, _by_look(column))
    if _MANY_DIGITS.search(text):
        for field in [field for field in schema if pa.types.is_floating(field.type)]:
            # Whole numbers that are too large for int64 keep their digits.
            with contextlib.suppress(*PARSER_ERRORS):
                _read(text, pa.schema([pa.field(field.name, _WHOLE_TYPE)]), unexpected="ignore")
                fields[field.name] = pa.field(field.name, _WHOLE_TYPE)
    return pa.schema(list(fields.values()))


def _merged(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    fields = {field.name: field for field in second}
    merged: list[pa.Field] = []
    for field in first:
        types = {field.type, fields.pop(field.name, field).type}
        if len(types) > 1 and types <= {pa.string(), *(type_ for _, type_ in _BY_LOOK)}:
            field = pa.field(field.name, pa.string())
        elif len(types) > 1:
            other = next(iter(types - {field.type}))
            with contextlib.suppress(pa.ArrowException):
                both = [pa.schema([field]), pa.schema([pa.field(field.name, other)])]
                field = pa.unify_schemas(both, promote_options="permissive").field(0)
        merged.append(field)
    return pa.schema([*merged, *fields.values()])


def _timeless(type_: pa.DataType) -> pa.DataType:
    """``type_`` with texts where inference saw timestamps."""
    if pa.types.is_timestamp(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(field.name, _timeless(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_timeless(type_.value_type))
    return type_


def _by_look(texts: pa.Array) -> pa.DataType:
    for look, type_ in _BY_LOOK:
        if pc.all(pc.match_substring_regex(texts, look), min_count=1).as_py():
            return type_
    return pa.string()


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_time(type_) and pa.types.is_string(column.type):
        moments = pc.binary_join_element_wise("1970-01-01T", column, "").cast(pa.timestamp("us"))
        return moments.cast(type_)
    return column.cast(type_)


def _is_text_in_json(type_: pa.DataType) -> bool:
    return bool(pa.types.is_date(type_) or pa.types.is_time(type_))
