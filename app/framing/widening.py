"""Which type holds the values of two: exactly, whatever order the values come in.

Types that were found in a part of a table carry marks, so that what another part adds can be judged by the types alone:
``int32`` are whole numbers that a double holds exactly, ``uint64`` any of 64 bits with a sign; ``date64`` and
``timestamp[ms]`` days and seconds outside of what 64 bits of nanoseconds reach. ``unmarked`` takes the marks off.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

WHOLE = pa.decimal128(38, 0)
"""Whole numbers that are too large for 64 bits."""
MIXED = pa.decimal128(38, 18)
"""Numbers of which some have a fraction, and some are whole and not exact as a double."""

EXACT_IN_DOUBLE = 2**53
_SMALL, _LARGE = pa.int32(), pa.uint64()
_LADDER = (_SMALL, pa.int64(), _LARGE, WHOLE, MIXED)
"""Numbers, each held by the next. Of ``int64``, without a mark, nothing is known but that."""
_NANOSECONDS_REACH_DAYS = 106_751
_NANOSECONDS_REACH_S = 9_223_372_036


def marked(array: pa.Array) -> pa.DataType:
    """The type of ``array`` with the marks that its values call for. Binary, which is text with a fault, counts as text."""
    type_ = array.type
    if type_ == pa.int64():
        return _SMALL if _within(array, EXACT_IN_DOUBLE) else _LARGE
    if type_ == pa.date32():
        return type_ if _within(array.cast(pa.int32()), _NANOSECONDS_REACH_DAYS) else pa.date64()
    if pt.is_timestamp(type_) and type_.unit == "s":
        return type_ if _within(array.cast(pa.int64()), _NANOSECONDS_REACH_S) else pa.timestamp("ms", type_.tz)
    if pt.is_struct(type_):
        pairs = zip(type_, array.flatten(), strict=True)
        return pa.struct([pa.field(field.name, marked(values)) for field, values in pairs])
    if pt.is_list(type_):
        return pa.list_(marked(array.flatten()))
    return pa.string() if pt.is_binary(type_) else type_


def unmarked(type_: pa.DataType) -> pa.DataType:
    """The type that ``type_`` stands for."""
    if type_ in (_SMALL, _LARGE):
        return pa.int64()
    if type_ == pa.date64():
        return pa.date32()
    if pt.is_timestamp(type_) and type_.unit == "ms":
        return pa.timestamp("s", type_.tz)
    if pt.is_struct(type_):
        return pa.struct([pa.field(field.name, unmarked(field.type)) for field in type_])
    if pt.is_list(type_):
        return pa.list_(unmarked(type_.value_type))
    return type_


def widened(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The narrowest type that holds all values of both; None if there is none but text.

    Which of the two comes first makes no difference, but to the order of a struct's fields.
    """
    if first == second or pt.is_null(second):
        return first
    if pt.is_null(first):
        return second
    if first in _LADDER and second in _LADDER:
        return max(first, second, key=_LADDER.index)
    if pa.float64() in (first, second):
        other = second if first == pa.float64() else first
        if other in _LADDER:
            return pa.float64() if other in (_SMALL, pa.int64()) else MIXED
        return None
    if _is_moment(first) and _is_moment(second):
        return _moment(first, second)
    if pt.is_list(first) and pt.is_list(second):
        inner = widened(first.value_type, second.value_type)
        return None if inner is None else pa.list_(inner)
    if pt.is_struct(first) and pt.is_struct(second):
        return _struct(first, second)
    return None


def _struct(first: pa.StructType, second: pa.StructType) -> pa.StructType | None:
    types = {field.name: field.type for field in first}
    for field in second:
        inner = widened(types.get(field.name, pa.null()), field.type)
        if inner is None:
            return None
        types[field.name] = inner
    return pa.struct([pa.field(name, type_) for name, type_ in types.items()])


def _moment(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    zones = {type_.tz for type_ in (first, second) if pt.is_timestamp(type_)}
    if len(zones) > 1 or (zones != {None} and not (pt.is_timestamp(first) and pt.is_timestamp(second))):
        return pa.date64() if not zones else None  # two kinds of days; or a time zone that not all have
    (zone,) = zones
    far = any(type_ == pa.date64() or (pt.is_timestamp(type_) and type_.unit == "ms") for type_ in (first, second))
    if any(pt.is_timestamp(type_) and type_.unit == "ns" for type_ in (first, second)):
        return None if far else pa.timestamp("ns", zone)
    return pa.timestamp("ms" if far else "s", zone)


def _is_moment(type_: pa.DataType) -> bool:
    return bool(pt.is_date(type_) or pt.is_timestamp(type_))


def _within(array: pa.Array, most: int) -> bool:
    ends = pc.min_max(array).as_py()
    return ends["min"] is None or (ends["min"] >= -most and ends["max"] <= most)
