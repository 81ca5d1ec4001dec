"""The footer of a Parquet file, joined from those of its stretches (parquet.thrift, Thrift's compact protocol).

Arrow's writer keeps 0.9 KB of heap for each column of each row group until it writes the footer, where it is 0.1 KB. So
a long file is written as several files on end, and a last footer speaks for all of them. The footers in between are
dead bytes: readers go where the last one points.
"""

from __future__ import annotations

_I32, _I64, _BINARY, _LIST, _SET, _MAP, _STRUCT = 5, 6, 8, 9, 10, 11, 12
_NUM_ROWS, _ROW_GROUPS = 3, 4  # of FileMetaData

_Rules = dict[int, "_Rules | str"]
_COLUMN_META_DATA: _Rules = dict.fromkeys((9, 10, 11, 14), "shift")
_COLUMN_CHUNK: _Rules = {2: "shift", 3: _COLUMN_META_DATA, 4: "shift", 6: "shift"}
_ROW_GROUP: _Rules = {1: _COLUMN_CHUNK, 5: "shift", 7: "drop"}
"""By field: offsets in the file, structs and lists of structs that have some, and the ordinal (7), which counts within
one stretch, is optional, and is its struct's last."""


class Footer:
    """Collects ``FileMetaData`` structs of one schema."""

    def __init__(self) -> None:
        self._before = b""
        self._behind = b""
        self._rows = 0
        self._groups: list[bytes] = []
        self._count = 0

    def add(self, metadata: bytes, *, begins_at: int) -> None:
        """Take the row groups of the stretch that begins at this byte of the file.

        ``metadata`` is trusted: Arrow's writer has just made it.
        """
        at = last = 0
        while metadata[at]:
            start = at
            field, kind, at = _field(metadata, at, last)
            if field == _NUM_ROWS:
                self._before = metadata[:start]
                number, at = _varint(metadata, at)
                self._rows += number >> 1  # zigzag; never negative
            elif field == _ROW_GROUPS:
                at = self._add_groups(metadata, at, begins_at)
                self._behind = metadata[at:]
                return
            else:
                at = _skip(metadata, at, kind)
            last = field

    def joined(self) -> bytes:
        """One struct for all row groups."""
        size = bytes([self._count << 4 | _STRUCT]) if self._count < 15 else b"\xfc" + _as_varint(self._count)
        rows, groups = bytes([0x10 | _I64]) + _as_varint(self._rows << 1), bytes([0x10 | _LIST]) + size
        return b"".join([self._before, rows, groups, *self._groups, self._behind])

    def _add_groups(self, data: bytes, at: int, begins_at: int) -> int:
        count, _, at = _list(data, at)
        self._count += count
        out: list[bytes] = []
        for _ in range(count):
            at = _move(data, at, _ROW_GROUP, begins_at, out)
        self._groups.append(b"".join(out))
        return at


def _move(data: bytes, at: int, rules: _Rules, by: int, out: list[bytes]) -> int:
    """Copy the struct at ``at`` with its offsets moved ``by`` bytes; gives where it ends."""
    copied, last = at, 0
    while data[at]:
        begin = at
        last, kind, at = _field(data, at, last)
        rule = rules.get(last)
        if rule is None:
            at = _skip(data, at, kind)
            continue
        count = 1
        if kind == _LIST:
            count, _, at = _list(data, at)
        out.append(data[copied : begin if rule == "drop" else at])
        if isinstance(rule, dict):
            for _ in range(count):
                at = _move(data, at, rule, by, out)
        elif rule == "drop":
            at = _skip(data, at, kind)
        else:
            offset, at = _varint(data, at)
            out.append(_as_varint(offset + (by << 1) if offset else 0))  # zigzag; 0 is no offset
        copied = at
    out.append(data[copied : at + 1])
    return at + 1


def _field(data: bytes, at: int, last: int) -> tuple[int, int, int]:
    """A field's id, its type, and where its value begins."""
    delta, kind = data[at] >> 4, data[at] & 15
    if delta:
        return last + delta, kind, at + 1
    number, at = _varint(data, at + 1)
    return number >> 1, kind, at


def _skip(data: bytes, at: int, kind: int) -> int:
    """Where the value that begins at ``at`` ends."""
    if kind <= 2:  # a boolean is in its field's type
        return at
    if kind == 3:
        return at + 1
    if kind <= _I64:
        return _varint(data, at)[1]
    if kind == 7:
        return at + 8
    if kind == _BINARY:
        size, at = _varint(data, at)
        return at + size
    if kind in (_LIST, _SET):
        count, kind, at = _list(data, at)
        for _ in range(count):
            at = at + 1 if kind <= 2 else _skip(data, at, kind)
        return at
    if kind != _STRUCT:
        raise ValueError(f"the type {kind} is not in a Parquet footer")
    last = 0
    while data[at]:
        last, kind, at = _field(data, at, last)
        at = _skip(data, at, kind)
    return at + 1


def _list(data: bytes, at: int) -> tuple[int, int, int]:
    """A list's length, the type of its items, and where they begin."""
    count, kind = data[at] >> 4, data[at] & 15
    if count < 15:
        return count, kind, at + 1
    count, at = _varint(data, at + 1)
    return count, kind, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
