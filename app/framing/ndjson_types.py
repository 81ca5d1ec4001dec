"""The types of NDJSON columns, by some of their lines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from app.framing.bad_rows import PARSER_ERRORS
from app.framing.ndjson_read import read_lines
from app.framing.widening import EXACT_IN_DOUBLE, MIXED, WHOLE, marked, widened

_TOKEN = re.compile(rb'("(?:[^"\\\n]|\\.)*+")([ \t]*+:)?|[\[\]{}\n]')
_DEEPEST = 32
"""How many objects and lists may stand in one another: building the types of a deeper one recurses."""
_MANY_OPENINGS = re.compile(rb"(?>[\[{][^\[{\n]*+){%d}" % (_DEEPEST + 1))
_NESTING = re.compile(rb"[:\[,][ \t]*+[\[{]")
_KEY = re.compile(rb'"((?:[^"\\\n]|\\.)*+)"[ \t]*+:')
_LINE = re.compile(rb"[^\n]*+\n|[^\n]++")
_SMALL_BYTES = 16 * 1024
"""Text that is taken apart into lines where inference fails."""
_MANY_DIGITS = re.compile(rb"[:\[,]\s*-?\d{18,}")
_MANY_FOR_DOUBLE = re.compile(rb"[:\[,]\s*-?\d{16,}")
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


_TEXTS = {pa.string(), *(type_ for _, type_ in _BY_LOOK)}
_CERTAIN = {pa.int64(), pa.float64(), pa.bool_(), *_TEXTS}


def inference_bytes(text: bytes, end: int) -> int:
    """What inference holds beside ``text[:end]``: up to eleven bytes for a value, and there is a comma or a newline
    before most."""
    return end + 11 * (text.count(b",", 0, end) + text.count(b"\n", 0, end))


def distinct_paths(text: bytes) -> int:
    """How many columns of values the lines have, or more; pyarrow takes memory for each in each row."""
    if _NESTING.search(text) is None:
        return len(set(_KEY.findall(text)))
    paths: set[tuple[int, bytes]] = set()
    ids: dict[tuple[int, bytes], int] = {}
    stack: list[int] = []
    here, key = 0, b""
    for match in _TOKEN.finditer(text):
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
            here = ids.setdefault((here, key), len(ids) + 1)
            key = token
        elif token in (b"}", b"]"):
            here = stack.pop() if stack else 0
    return len(paths)


def shallow(text: bytes) -> bytes:
    """``text`` without the lines that are nested too deeply."""
    if _MANY_OPENINGS.search(text) is None:
        return text
    return b"".join(line for line in _LINE.findall(text) if not _is_deep(line))


def _is_deep(line: bytes) -> bool:
    depth = deepest = 0
    for match in _TOKEN.finditer(line):
        depth += (match[0] in (b"{", b"[")) - (match[0] in (b"}", b"]"))
        deepest = max(deepest, depth)
    return deepest > _DEEPEST


def inferred(text: bytes, start: int, end: int, *, exact: bool = False) -> pa.Schema:
    """The schema of the lines in ``text[start:end]``, bad ones left out; what contradicts the first ones is bad.

    ``exact``: with the marks of ``widening``.
    """
    try:
        return _schema_of(memoryview(text)[start:end], exact)
    except PARSER_ERRORS:
        middle = text.find(b"\n", (start + end) // 2, end) + 1
    if end - start > _SMALL_BYTES and start < middle < end:
        return put_together(inferred(text, start, middle, exact=exact), inferred(text, middle, end, exact=exact))
    return _inferred_of_lines(text[start:end].split(b"\n"), exact)


def has_many_digits(text: bytes) -> bool:
    """Whether a number in it may be too large for int64."""
    return _MANY_DIGITS.search(text) is not None


def are_certain(fields: pa.Schema | pa.StructType) -> bool:
    """Whether values that have these types, as the library in C reads them, are found to have no others: but for the look
    of texts."""
    return all(
        are_certain(field.type) if pa.types.is_struct(field.type) else field.type in _CERTAIN for field in fields
    )


def as_texts(schema: pa.Schema) -> tuple[pa.Schema, list[int]]:
    """``schema`` with texts for what was found by its look, and the indices of these."""
    looking = [i for i, field in enumerate(schema) if field.type in _TEXTS and field.type != pa.string()]
    fields = [pa.field(field.name, pa.string()) if i in looking else field for i, field in enumerate(schema)]
    return pa.schema(fields), looking


def evidence(text: bytes) -> pa.Schema:
    """The schema of whole lines, with the marks of ``widening``."""
    return inferred(text, 0, len(text), exact=True)


def put_together(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The schema of two parts of a table. Texts that do not look alike are texts; where the two have nothing else in
    common, as a number and a text, the first part is right."""
    fields = {field.name: field for field in second}
    found: list[pa.Field] = []
    for field in first:
        other = fields.pop(field.name, field).type
        if field.type != other and {field.type, other} <= _TEXTS:
            both: pa.DataType | None = pa.string()
        else:
            both = widened(field.type, other)
        found.append(field if both is None else pa.field(field.name, both))
    return pa.schema([*found, *fields.values()])


def _inferred_of_lines(lines: Sequence[bytes], exact: bool) -> pa.Schema:
    """The schema of lines of which some contradict others. What has the same kinds of values does not, mostly."""
    alike: dict[object, list[bytes]] = {}
    for line in lines:
        with contextlib.suppress(ValueError):
            row = orjson.loads(line)
            if isinstance(row, dict):
                alike.setdefault(_kinds(row), []).append(line)
    found = pa.schema([])
    for group in alike.values():
        found = put_together(found, _inferred_by_halves(group, exact))
    return found


def _kinds(value: object) -> object:
    if isinstance(value, dict):
        return frozenset((key, _kinds(inner)) for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return frozenset(_kinds(inner) for inner in value)
    return float if type(value) is int else type(value)


def _inferred_by_halves(lines: Sequence[bytes], exact: bool) -> pa.Schema:
    try:
        return _schema_of(b"\n".join(lines), exact)
    except PARSER_ERRORS:
        half = len(lines) // 2
        if not half:
            return pa.schema([])
        return put_together(_inferred_by_halves(lines[:half], exact), _inferred_by_halves(lines[half:], exact))


def _schema_of(text: bytes | memoryview, exact: bool) -> pa.Schema:
    """The schema of lines that do not contradict one another. Raises ``PARSER_ERRORS``."""
    batch = read_lines(text, None, unexpected="infer")
    types = {field.name: marked(batch[field.name]) if exact else field.type for field in batch.schema}
    fields = {name: pa.field(name, _timeless(type_)) for name, type_ in types.items()}
    strings = pa.schema([field for field in fields.values() if pa.types.is_string(field.type)])
    if len(strings):
        texts = read_lines(text, strings, unexpected="ignore")
        for name, column in zip(strings.names, texts.columns, strict=True):
            fields[name] = pa.field(name, by_look(column))
    if (_MANY_FOR_DOUBLE if exact else _MANY_DIGITS).search(text):
        for field in [field for field in batch.schema if pa.types.is_floating(field.type)]:
            fields[field.name] = pa.field(field.name, _of_digits(text, field.name, exact))
    return pa.schema(list(fields.values()))


def _of_digits(text: bytes | memoryview, name: str, exact: bool) -> pa.DataType:
    """What keeps the digits of numbers that pyarrow finds to be doubles: whole ones that are too large for int64; and, if
    it is to be ``exact``, such among others with a fraction."""
    for type_ in (WHOLE, MIXED) if exact else (WHOLE,):
        with contextlib.suppress(*PARSER_ERRORS):
            numbers = read_lines(text, pa.schema([pa.field(name, type_)]), unexpected="ignore").column(0)
            if (
                type_ == MIXED
                and not pc.any(pc.greater(pc.abs(numbers), pa.scalar(EXACT_IN_DOUBLE).cast(MIXED))).as_py()
            ):
                continue
            return type_
    return pa.float64()


def _timeless(type_: pa.DataType) -> pa.DataType:
    """``type_`` with texts where inference saw timestamps."""
    if pa.types.is_timestamp(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(field.name, _timeless(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_timeless(type_.value_type))
    return type_


def by_look(texts: pa.Array) -> pa.DataType:
    """The type of texts that all look alike."""
    for look, type_ in _BY_LOOK:
        if pc.all(pc.match_substring_regex(texts, look), min_count=1).as_py():
            return type_
    return pa.string()
