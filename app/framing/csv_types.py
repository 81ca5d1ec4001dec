"""The types of CSV columns, by some of their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.framing.widening import EXACT_IN_DOUBLE, WHOLE, marked, widened

_NOT_AS_WRITTEN = r"^\s*(?:[+-]?0[0-9xX]|\+[0-9]+\s*$)"
"""Numbers that mean more than their value: zip codes, telephone numbers."""
_WHOLE = r"^\s*[+-]?[0-9]+\s*$"
_MANY_DIGITS = r"^\s*[+-]?[0-9]{16,}\s*$"
_INFINITE = r"^\s*[+-]?(?i:inf|infinity)\s*$"
_DIGIT = r"^\s*[01]\s*$"
_MOST_DIGITS = 38


Read = Callable[..., pa.RecordBatch]
"""See ``CsvTable.read``."""


def inferred(read: Read, text: bytes, names: Sequence[str]) -> pa.Schema:
    """The schema of the records in ``text``: as pyarrow infers it, but that numbers keep their digits. What has another
    number of columns is left out. Raises ``PARSER_ERRORS``."""
    batch, texts = _read_twice(read, text, names, lambda type_: pt.is_integer(type_) or pt.is_floating(type_))
    fields = {field.name: field for field in batch.schema}
    for name, column in texts.items():
        fields[name] = pa.field(name, _number(batch.schema.field(name).type, column))
    return pa.schema(list(fields.values()))


def evidence(read: Read, text: bytes, names: Sequence[str]) -> pa.Schema:
    """As ``inferred``, with the marks of ``widening``, and so that it is the same as that of the parts of ``text`` put
    together by ``put_together``."""
    batch, texts = _read_twice(
        read, text, names, lambda type_: pt.is_integer(type_) or pt.is_floating(type_) or pt.is_boolean(type_)
    )
    fields = {field.name: pa.field(field.name, marked(batch[field.name])) for field in batch.schema}
    for name, column in texts.items():
        found = batch.schema.field(name).type
        if pt.is_boolean(found):
            exact = pa.string() if is_any(pc.match_substring_regex(column, _DIGIT)) else found
        else:
            exact = _number(found, column)
            if pt.is_integer(exact):
                exact = fields[name].type
            elif pt.is_floating(exact) and (_loses_digits(column) or overflows(batch[name], column)):
                exact = pa.string()
        fields[name] = pa.field(name, exact)
    return pa.schema(list(fields.values()))


def put_together(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The evidence of two parts of a table; what has no type in common is text."""
    return pa.schema(
        [pa.field(one.name, _column(one.type, other.type)) for one, other in zip(first, second, strict=True)]
    )


def overflows(numbers: pa.Array, texts: pa.Array) -> bool:
    """Whether one of ``numbers`` is infinite, and its text does not say so."""
    infinite = pc.is_inf(numbers)
    return bool(infinite.true_count) and is_any(pc.and_not(infinite, pc.match_substring_regex(texts, _INFINITE)))


def is_any(mask: pa.Array) -> bool:
    """Whether one is true."""
    return bool(pc.any(mask).as_py())


def skip_ragged(_: Any) -> str:
    """What pyarrow asks about rows of another number of columns."""
    return "skip"


def _column(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    found = widened(first, second)
    # A decimal is written otherwise than it was read where only some have a fraction.
    return pa.string() if found is None or (pt.is_decimal(found) and found != WHOLE) else found


def _read_twice(
    read: Read, text: bytes, names: Sequence[str], wanted: Any
) -> tuple[pa.RecordBatch, dict[str, pa.Array]]:
    """The rows as pyarrow infers them, and as texts those columns whose type is ``wanted``."""
    batch = read(text, None, names=names, on_ragged=skip_ragged)
    schema = pa.schema([pa.field(field.name, pa.string()) for field in batch.schema if wanted(field.type)])
    texts = read(text, schema, names=names, on_ragged=skip_ragged)
    return batch, dict(zip(schema.names, texts.columns, strict=True))


def _number(found: pa.DataType, texts: pa.Array) -> pa.DataType:
    """What keeps the digits of ``texts``, which pyarrow found to be whole numbers of 64 bits, or doubles."""
    if is_any(pc.match_substring_regex(texts, _NOT_AS_WRITTEN)):
        return pa.string()
    if pt.is_floating(found) and pc.all(pc.match_substring_regex(texts, _WHOLE)).as_py():
        return _of_digits(texts)
    return found


def _of_digits(texts: pa.Array) -> pa.DataType:
    """A type that keeps every digit of whole numbers that are too large for int64."""
    digits = _digits(texts)
    return WHOLE if digits is not None and digits <= _MOST_DIGITS else pa.string()


def _digits(texts: pa.Array) -> int | None:
    most: int | None = pc.max(pc.utf8_length(pc.utf8_trim(texts, " \t+-"))).as_py()
    return most


def _loses_digits(texts: pa.Array) -> bool:
    """Whether a whole number among ``texts`` is not exact as a double."""
    long = texts.filter(pc.match_substring_regex(texts, _MANY_DIGITS))
    if not len(long):
        return False
    if (_digits(long) or 0) > _MOST_DIGITS:
        return True
    return is_any(pc.greater(pc.abs(pc.utf8_trim(long, " \t+").cast(WHOLE)), pa.scalar(EXACT_IN_DOUBLE).cast(WHOLE)))
