"""What the columns of a table are: the user's words for types, the room they take, and what inference leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from app.core.errors import Refusal, known

_NAMES: dict[str, pa.DataType] = {
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    # All three are read as binary64: a narrower one would round what the text says.
    "double": pa.float64(),
    "float": pa.float64(),
    "real": pa.float64(),
    "decimal": pa.decimal128(18, 3),
    "numeric": pa.decimal128(18, 3),
    "boolean": pa.bool_(),
    "bool": pa.bool_(),
    "varchar": pa.string(),
    "string": pa.string(),
    "text": pa.string(),
    "blob": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
_COLUMN = re.compile(
    r"""\s* (?: "(?P<quoted>(?:[^"]|"")+)" | (?P<bare>[^,:"]*[^,:"\s]) ) \s* : \s*
    (?P<type>\w+) \s* (?: \( \s* (?P<precision>\d{1,9}) \s* (?: , \s* (?P<scale>\d{1,9}) \s* )? \) )? \s* (?:,|$)""",
    re.VERBOSE,
)
_MIN_WIDEST = 256


def parse_types(text: str) -> dict[str, pa.DataType]:
    """Arrow types from ``col:type,col2:decimal(12,2)``; a column's name may be in double quotes.

    Raises ``bad_argument`` with the position, and the known types where the type is the fault.
    """
    types: dict[str, pa.DataType] = {}
    position = 0
    while position < len(text):
        match = _COLUMN.match(text, position)
        if match is None:
            raise Refusal(
                "bad_argument",
                f"types: {text[position : position + 80]!r} is not column:type; an example is l_tax:decimal(12,2)",
                position=position,
            )
        column = match["bare"] if match["quoted"] is None else match["quoted"].replace('""', '"')
        if column in types:
            raise Refusal("bad_argument", f"types: the column {column!r} stands there twice", position=position)
        types[column] = _type(match)
        position = match.end()
    if not types:
        raise Refusal("bad_argument", "types: no column is named; an example is types=l_tax:decimal(12,2)", position=0)
    return types


def row_bytes(schema: pa.Schema | pa.StructType) -> float:
    """The bytes that one row occupies in Arrow whatever its text: fixed-size values, offsets and validity bits."""
    return sum(_fixed_bytes(field.type) for field in schema)


def text_growth(schema: pa.Schema) -> float:
    """The most bytes in Arrow per byte of JSON text, beside ``row_bytes``: more than 1 where elements of lists are
    larger than the two bytes that the shortest of them takes in the text."""
    return max((_growth(field.type) for field in schema), default=1.0)


def leaves(schema: pa.Schema | pa.StructType) -> int:
    """How many columns of values there are, those within structs and lists included."""
    return sum(_leaves(field.type) for field in schema)


def check_width(columns: int, page_bytes: int) -> None:
    """Refuse a table that is so wide that what parsers and writers keep per column would outgrow a page.

    They take 1 to 3 KiB for each, beside its values (measured).
    """
    widest = max(_MIN_WIDEST, page_bytes // 512)
    if columns > widest:
        raise Refusal(
            "page_too_large",
            f"the table has {columns} columns, and PAGE_BYTES allows for {widest}: raise it,"
            f" to {columns * 512} bytes or more",
        )


def settle(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """``schema`` as it is inferred, made whole: ``types`` override, and what had no value to go by becomes text.

    So does binary, which is what inference makes of text that is not UTF-8. Raises ``bad_argument`` for a type of a
    column that is not there.
    """
    missing = [column for column in types if column not in schema.names]
    if missing:
        raise Refusal(
            "bad_argument",
            f"types: there is no column {missing[0][:80]!r}; the columns are {known(schema.names)[:800]}",
            column=missing[0],
        )
    return pa.schema([pa.field(field.name, types.get(field.name, _settled(field.type))) for field in schema])


def _type(match: re.Match[str]) -> pa.DataType:
    name, precision, scale = match["type"].lower(), match["precision"], match["scale"]
    if name not in _NAMES:
        raise Refusal(
            "bad_argument",
            f"types: {match['type'][:80]!r} is not a type; known are {known(_NAMES)}",
            position=match.start("type"),
        )
    if precision is None:
        return _NAMES[name]
    if name not in ("decimal", "numeric"):
        raise Refusal("bad_argument", f"types: {name} takes no precision", position=match.start("precision"))
    if not 1 <= int(precision) <= 38 or int(scale or 0) > int(precision):
        raise Refusal(
            "bad_argument",
            "types: a decimal has 1 to 38 digits, and no more of them than that behind the point",
            position=match.start("precision"),
        )
    return pa.decimal128(int(precision), int(scale or 0))


def _settled(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_null(type_) or pa.types.is_binary(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(field.name, _settled(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_settled(type_.value_type))
    return type_


def _fixed_bytes(type_: pa.DataType) -> float:
    if pa.types.is_struct(type_):
        return 0.125 + row_bytes(type_)
    if pa.types.is_null(type_):
        return 0.0
    try:
        return 0.125 + float(type_.bit_width) / 8
    except ValueError:
        return 4.125  # an offset: strings, lists


def _growth(type_: pa.DataType) -> float:
    if pa.types.is_struct(type_):
        return max((_growth(field.type) for field in type_), default=1.0)
    if pa.types.is_list(type_):
        return 1.0 + max(_fixed_bytes(type_.value_type) / 2, _growth(type_.value_type))
    return 1.0


def _leaves(type_: pa.DataType) -> int:
    if pa.types.is_struct(type_):
        return 1 + leaves(type_)
    if pa.types.is_list(type_):
        return 1 + _leaves(type_.value_type)
    return 1
