"""Which types go into DuckDB unaltered, and how what it gives back becomes plain Arrow that every writer knows.

What comes back is not always the type that went in: dictionaries, views and large offsets become plain values, a time zone
becomes UTC (the instant stays), date64 and time32 become date32 and time64, a fixed-size binary becomes a binary, a UUID
its text. The values are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from app.core.errors import Refusal
from app.framing.needs import folded

KEY = "\ue002key"
"""A column for a while, bytes by which rows are sorted, or told apart: private characters, as no column has them in its
name."""
_NAMELESS = "\ue000"
"""Stands for a column without a name, which DuckDB would call v0: a private character, as no name has it."""

_PLAIN_NAMES = {
    "hugeint": "DECIMAL(38,0)",
    "uhugeint": "DECIMAL(38,0)",
    # Without a plain Arrow type, or with one that Parquet does not know: as text.
    **dict.fromkeys(("bignum", "bit", "enum", "geometry", "interval", "time with time zone"), "VARCHAR"),
    **dict.fromkeys(("tuple", "type", "union", "variant"), "VARCHAR"),
}


def fed_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in which rows of ``schema`` go into DuckDB. Raises ``bad_sql`` where a value would not survive it."""
    seen: dict[bytes, str] = {}
    fields: list[pa.Field] = []
    for field in schema:
        twin = seen.setdefault(folded(field.name), field.name)
        if len(seen) <= len(fields):
            raise Refusal(
                "bad_sql",
                f"the columns {twin!r} and {field.name!r} are one name in SQL, which ignores case: rename one of them",
            )
        type_ = pa.float32() if pa.types.is_float16(field.type) else field.type
        for part in _each(type_):
            if part in (pa.float16(), pa.duration("ns"), pa.month_day_nano_interval()) or pa.types.is_decimal256(part):
                detail = f"column {field.name!r} has the type {field.type}, which SQL steps cannot keep exactly"
                raise Refusal("bad_sql", detail, column=field.name)
        fields.append(pa.field(field.name or _NAMELESS, type_))
    return pa.schema(fields)


def given_names(names: list[str]) -> list[str]:
    """The names of columns as they went in."""
    return ["" if name == _NAMELESS else name for name in names]


def plain_type(type_: Any) -> str | None:
    """The SQL type that a value of DuckDB's ``type_`` is to be cast to; None if it is plain already."""
    kind = type_.id
    if kind in _PLAIN_NAMES:
        return _PLAIN_NAMES[kind]
    if kind not in ("list", "array", "struct", "map"):
        return None
    children = type_.children
    plain = [None if name == "size" and kind == "array" else plain_type(child) for name, child in children]
    if not any(plain):
        return None
    texts = [text or str(child) for text, (_, child) in zip(plain, children, strict=True)]
    if kind == "list":
        return f"{texts[0]}[]"
    if kind == "array":
        return f"{texts[0]}[{texts[1]}]"
    if kind == "map":
        return f"MAP({texts[0]}, {texts[1]})"
    return (
        "STRUCT(" + ", ".join(f"{quoted(name)} {text}" for (name, _), text in zip(children, texts, strict=True)) + ")"
    )


def quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _each(type_: pa.DataType) -> Iterator[pa.DataType]:
    yield type_
    for index in range(type_.num_fields):
        yield from _each(type_.field(index).type)
