"""Columns to rows of text by C (``native/rows.c``): at memory speed, for the types that most tables are made of."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import pyarrow as pa

from app.framing.native import LIBRARY, Written
from app.framing.native.kinds import FLOAT32, kind_of
from app.framing.native.scratch import SCRATCH_BYTES, scratch

_READ = (pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.date32())
_CODES = {type_: kind.code for type_ in _READ if (kind := kind_of(type_))} | {pa.float32(): FLOAT32}
_PADDING = bytes(16)
"""C reads what is short 16 bytes at a time."""


class Quoting(IntEnum):
    """What stands around a value, and what is written for the bytes in it that cannot stand for themselves."""

    PLAIN = 0
    QUOTED = 1
    CSV_TEXT = 2
    JSON_TEXT = 3


@dataclass(frozen=True, slots=True)
class Column:
    """``array``, of a type that ``is_written`` tells of; ``before`` stands before each value, null or not."""

    array: pa.Array
    before: bytes
    quoting: Quoting


def is_written(type_: pa.DataType) -> bool:
    """C writes values of ``type_``; what others become has to be text already."""
    return type_ in _CODES


def row_text(columns: Sequence[Column], *, null: bytes, end: bytes, head: bytes = b"") -> memoryview | None:
    """The rows behind ``head``, each with ``end`` behind it. None for a day whose year has not four digits. Only where
    there is a ``LIBRARY``."""
    assert LIBRARY is not None
    rows = len(columns[0].array)
    written = (Written * len(columns))()
    before = [column.before + _PADDING for column in columns]
    for place, column, text in zip(written, columns, before, strict=True):
        validity, *parts = column.array.buffers()
        place.before = ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value
        place.before_bytes = len(column.before)
        place.validity = validity.address if validity is not None and column.array.null_count else None
        place.values = parts[-1].address if parts[-1] is not None else None
        place.offsets = parts[0].address if len(parts) > 1 else None
        place.offset, place.kind, place.quoting = column.array.offset, _CODES[column.array.type], column.quoting
    most_bytes = LIBRARY.weir_rows_bytes(written, len(columns), rows, len(null), len(end))
    if most_bytes < 0:
        return None
    is_small = len(head) + most_bytes <= SCRATCH_BYTES  # then it is copied sooner than an allocation is cut down
    room = scratch(SCRATCH_BYTES) if is_small else pa.allocate_buffer(len(head) + most_bytes, resizable=True)
    ctypes.memmove(room.address, head, len(head))
    nbytes = LIBRARY.weir_rows_write(
        *(written, len(columns), rows, null + _PADDING, len(null), end + _PADDING, len(end), room.address + len(head))
    )
    if is_small:
        return memoryview(bytes(memoryview(room)[: len(head) + nbytes]))
    room.resize(len(head) + nbytes, shrink_to_fit=True)
    return memoryview(room).toreadonly()[: len(head) + nbytes]  # its length is still that of before
