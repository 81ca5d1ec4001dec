"""Rows of columns by their numbers, all columns in one call: each kernel of Arrow gives the GIL up, and waits longer to
have it back than it computes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.framing.native import LIBRARY
from app.framing.native.kinds import TEXT_SPARE_BYTES
from app.framing.native.room import Room

_GATHERED = "qqqqqqqqqqqii"
"""``gathered`` of ``gather.c``."""
_WORDS, _MADE_VALUES, _NULLS, _NBYTES = 13, 5, 9, 10
_TEXTS = -1
_INT32 = ctypes.c_int32


@dataclass(frozen=True, slots=True)
class Taken:
    """``column`` at ``rows``, int32; null where that is negative, which it may be where ``may_miss``."""

    column: pa.Array
    rows: pa.Buffer
    may_miss: bool


def take_rows(wanted: Sequence[Taken], count: int, text_bytes: int) -> list[pa.Array]:
    """Arrays of ``count`` rows each. ``text_bytes`` is the most that all of their texts come to."""
    widths = [None if LIBRARY is None else _width(one.column.type) for one in wanted]
    known = [(one, width) for one, width in zip(wanted, widths, strict=True) if width is not None]
    by_c = iter(_taken_by_c(known, count, text_bytes) if known else ())
    return [
        _taken_by_arrow(one, count) if width is None else next(by_c) for one, width in zip(wanted, widths, strict=True)
    ]


def text_span_bytes(column: pa.Array) -> int:
    """What its texts come to; 0 where it has none of those that stand between offsets of 32 bits."""
    if not _is_text(column.type) or not len(column):
        return 0
    first = column.buffers()[1].address + 4 * column.offset
    return int(_INT32.from_address(first + 4 * len(column)).value - _INT32.from_address(first).value)


def _taken_by_c(wanted: Sequence[tuple[Taken, int]], count: int, text_bytes: int) -> list[pa.Array]:
    """Of columns with the widths of their values."""
    assert LIBRARY is not None
    room, bits, places = Room(), (count + 7) // 8, list[tuple[int, int]]()
    for one, width in wanted:
        validity = room.want(bits)[0] if one.may_miss or one.column.null_count else -1
        places.append((validity, room.want(_first_bytes(width, count))[0]))
    texts, _ = room.want(text_bytes + TEXT_SPARE_BYTES)
    start = room.make()
    words: list[int] = []
    for (one, width), (validity, values) in zip(wanted, places, strict=True):
        words += _described(one, width, start + validity if validity >= 0 else 0, start + values)
    packed = Struct("@" + _GATHERED * len(wanted))
    made = ctypes.create_string_buffer(packed.pack(*words), packed.size)
    LIBRARY.weir_gather(made, len(wanted), count, start + texts)
    answer = packed.unpack(made)
    used: list[list[pa.Buffer | None]] = []
    for at, (_, width), (validity, values) in zip(range(0, len(answer), _WORDS), wanted, places, strict=True):
        first_bytes, nbytes = _first_bytes(width, count), answer[at + _NBYTES]
        buffers = [room.buffer((validity, 0), bits) if answer[at + _NULLS] else None]
        buffers.append(room.buffer((values, 0), first_bytes))
        if width == _TEXTS:
            buffers.append(room.buffer((answer[at + _MADE_VALUES] - start, 0), nbytes))
        used.append(buffers)
    nulls = answer[_NULLS::_WORDS]
    return [
        pa.Array.from_buffers(one.column.type, count, buffers, null_count=missing)
        for (one, _), buffers, missing in zip(wanted, room.kept(used), nulls, strict=True)
    ]


def _described(one: Taken, width: int, validity_at: int, made_at: int) -> tuple[int, ...]:
    column = one.column
    validity, *parts = column.buffers()
    data = parts[-1]
    return (
        *(validity.address if validity is not None and column.null_count else 0, 0 if data is None else data.address),
        *(parts[0].address if width == _TEXTS else 0, one.rows.address, validity_at, 0 if width == _TEXTS else made_at),
        *(made_at if width == _TEXTS else 0, column.offset, 0 if data is None else data.size, 0, 0, width, 0),
    )


def _first_bytes(width: int, count: int) -> int:
    """Of values, or of the offsets of texts."""
    return 4 * (count + 1) if width == _TEXTS else count * width or (count + 7) // 8


def _width(type_: pa.DataType) -> int | None:
    """The bytes of a value, 0 for a bit; None for what C does not know."""
    if _is_text(type_):
        return _TEXTS
    if pt.is_boolean(type_):
        return 0
    is_plain = pt.is_integer(type_) or pt.is_floating(type_) or pt.is_temporal(type_) or pt.is_decimal128(type_)
    return int(type_.bit_width) // 8 if is_plain and type_.bit_width in (8, 16, 32, 64, 128) else None


def _is_text(type_: pa.DataType) -> bool:
    return bool(pt.is_string(type_) or pt.is_binary(type_))


def _taken_by_arrow(one: Taken, count: int) -> pa.Array:
    rows = pa.Array.from_buffers(pa.int32(), count, [None, one.rows])
    return one.column.take(pc.if_else(pc.less(rows, 0), pa.scalar(None, pa.int32()), rows) if one.may_miss else rows)
