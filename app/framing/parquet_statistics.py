"""Which row groups no row can come from, by the statistics of their columns.

A row group is ruled out only where that is certain. So bounds count only for types whose order is the same in Parquet,
in DuckDB and here, and a constant only where it reaches DuckDB's comparison without being rounded.
"""

from __future__ import annotations

import math
import re
import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from app.framing.needs import Comparison, Condition, Constant
from app.framing.parquet_footer import Statistics

_INT32, _INT64, _FLOAT, _DOUBLE, _BYTE_ARRAY, _FIXED_BYTES = 1, 2, 4, 5, 6, 7  # physical types
_TEXTS = (pa.string(), pa.large_string(), pa.string_view())
_EXACT = 2**53
"""Integers below it are exact in a double."""
_LONGEST_NUMBER = 18
"""Characters of a constant. Longer ones may become doubles, or have no common type with a decimal."""
_MOST_DIGITS = 38
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_UNIT_US = {"s": Fraction(1_000_000), "ms": Fraction(1000), "us": Fraction(1), "ns": Fraction(1, 1000)}


def ruled_out(
    condition: Condition, type_: pa.DataType, physical_type: int, statistics: Statistics, values: int, *, ordered: bool
) -> bool:
    """No row of a row group fulfils ``condition``: its column has ``values`` values of a flat ``type_``, and these
    ``statistics``, whose bounds are ``ordered`` as the type is."""
    nulls, asked = statistics.nulls, condition.comparison
    if asked == "is null":
        return nulls == 0
    if nulls == values:
        return True
    low, high = statistics.low, statistics.high
    if asked == "is not null" or low is None or high is None or not ordered:
        return False
    if pt.is_dictionary(type_):
        type_ = type_.value_type
    bounds = _bounds(type_, physical_type, low, high)
    constants = [_constant(type_, value) for value in condition.values]
    if bounds is None or None in constants:
        return False
    # DuckDB takes NaN for the largest number, and no bound tells whether there is one.
    return _outside(asked, *bounds, constants, open_above=pt.is_floating(type_))


def _outside(asked: Comparison, low: Any, high: Any, constants: list[Any], *, open_above: bool) -> bool:
    """No value from ``low`` to ``high`` (or to no end, where a comparison is not bounded above) compares so."""
    first, last = constants[0], constants[-1]
    if asked in ("=", "in"):
        return all(constant < low or constant > high for constant in constants)
    if asked == "between":
        return bool(high < first or low > last)
    if asked in (">", ">="):
        return not open_above and bool(high < first or (high == first and asked == ">"))
    return bool(low > first or (low == first and asked == "<"))


def _bounds(type_: pa.DataType, physical_type: int, low: bytes, high: bytes) -> tuple[Any, Any] | None:
    """What the bounds are, comparable with each other and with what ``_constant`` makes for the type."""
    first, last = (_value(type_, physical_type, data) for data in (low, high))
    if first is None or last is None or first > last:
        return None
    # Perhaps DuckDB compares whole microseconds: bounds are widened to them.
    return (math.floor(first), math.ceil(last)) if pt.is_timestamp(type_) else (first, last)


def _value(type_: pa.DataType, physical_type: int, data: bytes) -> Any:
    if any(type_ == text for text in _TEXTS):
        return data if physical_type == _BYTE_ARRAY else None
    if pt.is_float32(type_) or pt.is_float64(type_):
        return _real(physical_type, data)
    if pt.is_decimal128(type_) and physical_type == _FIXED_BYTES:
        return int.from_bytes(data, "big", signed=True) / Fraction(10) ** type_.scale
    integer = _integer(physical_type, data)
    if integer is None:
        return None
    if pt.is_decimal128(type_):
        return integer / Fraction(10) ** type_.scale
    if pt.is_timestamp(type_):
        return integer * _UNIT_US[type_.unit]
    if pt.is_date32(type_):
        return integer * _DAY_US
    if pt.is_unsigned_integer(type_):
        return integer % (1 << 8 * len(data))
    return integer if pt.is_signed_integer(type_) else None


def _integer(physical_type: int, data: bytes) -> int | None:
    whole = len(data) == {_INT32: 4, _INT64: 8}.get(physical_type)
    return int.from_bytes(data, "little", signed=True) if whole else None


def _real(physical_type: int, data: bytes) -> float | None:
    format_ = {(_FLOAT, 4): "<f", (_DOUBLE, 8): "<d"}.get((physical_type, len(data)))
    value: float = math.nan if format_ is None else struct.unpack(format_, data)[0]
    return None if math.isnan(value) else value


def _constant(type_: pa.DataType, constant: Constant) -> Any:
    """What the constant is to a column of ``type_``; None where that is not certain."""
    kind, text = constant.kind, constant.text
    if any(type_ == text_type for text_type in _TEXTS):
        return text.encode() if kind == "string" else None
    if pt.is_date32(type_) or pt.is_timestamp(type_):
        return _microseconds(kind, text, whole_days=pt.is_date32(type_))
    if kind not in ("integer", "decimal", "double") or len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    if pt.is_floating(type_):
        return _for_real(type_, kind, text)
    if kind == "double":
        return None
    exact = Fraction(Decimal(text))
    if pt.is_decimal128(type_):
        return exact if _fits(type_, Decimal(text)) else None
    if kind == "integer":
        return exact if exact >= 0 or not pt.is_unsigned_integer(type_) else None
    return None


def _fits(type_: pa.DataType, value: Decimal) -> bool:
    """There is a decimal type for the values of ``type_`` and for this one."""
    parts = value.as_tuple()
    scale = max(0, -int(parts.exponent))
    digits: int = max(type_.precision - type_.scale, len(parts.digits) - scale) + max(type_.scale, scale)
    return digits <= _MOST_DIGITS


def _for_real(type_: pa.DataType, kind: str, text: str) -> float | None:
    value = float(text)
    if kind == "integer":
        return value if abs(int(text)) <= (2**24 if pt.is_float32(type_) else _EXACT) else None
    if kind == "decimal":  # a float would round it once more
        short = sum(letter.isdigit() for letter in text) <= 15
        return value if short and pt.is_float64(type_) else None
    return value if math.isfinite(value) else None


def _microseconds(kind: str, text: str, *, whole_days: bool) -> int | None:
    """Microseconds since 1970. A text becomes what the column is, so to one of dates it must be a date."""
    is_date, is_timestamp = bool(_DATE.fullmatch(text)), bool(_TIMESTAMP.fullmatch(text))
    if kind not in ("date", "timestamp", "string") or not (is_date or is_timestamp):
        return None
    if is_timestamp and (kind == "date" or (kind == "string" and whole_days)):
        return None
    try:
        if is_date:
            return (date.fromisoformat(text) - _EPOCH.date()).days * _DAY_US
        whole, _, fraction = text.partition(".")
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    except ValueError:
        return None
    since = moment - _EPOCH
    return since.days * _DAY_US + since.seconds * 1_000_000 + int(fraction.ljust(6, "0") or 0)
