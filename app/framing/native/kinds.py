"""The types of values that the library in C reads, by the numbers that values.h gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

_INT64, _FLOAT64, _DATE32, STRING, BOOL, _TIMESTAMP, _DECIMAL, _INT32, STRUCT, FLOAT32 = range(1, 11)
TEXT_SPARE_BYTES = 32
"""Behind texts that are put: one may be written so many bytes at a time (``put_bytes`` of ``values.h``)."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Kind:
    """How values are read: the number of their kind, two numbers that the kind needs, and the bytes of a value."""

    code: int
    first: int = 0
    second: int = 0
    value_bytes: float = 8


_PLAIN: Mapping[pa.DataType, Kind] = {
    pa.int64(): Kind(_INT64),
    pa.int32(): Kind(_INT32, value_bytes=4),
    pa.float64(): Kind(_FLOAT64),
    pa.date32(): Kind(_DATE32, value_bytes=4),
    pa.bool_(): Kind(BOOL, value_bytes=1 / 8),
    pa.string(): Kind(STRING, value_bytes=0),
}


def kind_of(type_: pa.DataType) -> Kind | None:
    """How C reads values of ``type_``; None if it does not."""
    if type_ in _PLAIN:
        return _PLAIN[type_]
    if pt.is_timestamp(type_) and type_.tz in (None, "UTC"):
        return Kind(_TIMESTAMP, _PER_SECOND[type_.unit], int(type_.tz is not None))
    if pt.is_decimal128(type_) and 0 <= type_.scale <= type_.precision:
        return Kind(_DECIMAL, type_.precision, type_.scale, 16)
    return None
