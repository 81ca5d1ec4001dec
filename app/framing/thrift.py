"""Thrift's compact protocol, as much of it as Parquet's footers and page headers need.

Positions are indices into the data; a struct that is cut off raises ``IndexError``, one that is none ``ValueError``.
"""

from __future__ import annotations

Data = bytes | memoryview

I32, I64, BINARY, LIST, SET, STRUCT = 5, 6, 8, 9, 10, 12
_MOST_NESTED = 32


def field(data: Data, at: int, last: int) -> tuple[int, int, int]:
    """A field's id, its type, and where its value begins; ``last`` is the id of the field before, or 0."""
    delta, kind = data[at] >> 4, data[at] & 15
    if delta:
        return last + delta, kind, at + 1
    id_, at = varint(data, at + 1)
    return id_ >> 1, kind, at


def skip(data: Data, at: int, kind: int, depth: int = 0) -> int:
    """Where the value of type ``kind`` that begins at ``at`` ends."""
    if depth > _MOST_NESTED:
        raise ValueError("structs are nested too deep")
    if kind <= 2:  # a boolean is in its field's type
        return at
    if kind == 3:
        return at + 1
    if kind <= I64:
        return varint(data, at)[1]
    if kind == 7:
        return at + 8
    if kind == BINARY:
        size, at = varint(data, at)
        return at + size
    if kind in (LIST, SET):
        count, kind, at = list_head(data, at)
        if kind <= 3:
            return at + count
        for _ in range(count):
            at = skip(data, at, kind, depth + 1)
        return at
    if kind != STRUCT:
        raise ValueError(f"there is no type {kind} in Parquet")
    last = 0
    while data[at]:
        last, kind, at = field(data, at, last)
        at = skip(data, at, kind, depth + 1)
    return at + 1


def list_head(data: Data, at: int) -> tuple[int, int, int]:
    """A list's length, the type of its items, and where they begin."""
    count, kind = data[at] >> 4, data[at] & 15
    if count < 15:
        return count, kind, at + 1
    count, at = varint(data, at + 1)
    return count, kind, at


def varint(data: Data, at: int) -> tuple[int, int]:
    """An unsigned number (zigzag, where the type is signed), and where it ends."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1


def number(data: Data, at: int) -> tuple[int, int]:
    """A signed number, and where it ends."""
    value, at = varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def binary(data: Data, at: int) -> tuple[bytes, int]:
    """A string of bytes, and where it ends."""
    size, at = varint(data, at)
    if at + size > len(data):
        raise IndexError("a string is longer than what it stands in")
    return bytes(data[at : at + size]), at + size


def as_varint(value: int) -> bytes:
    """The bytes of an unsigned number."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
