"""The footer of a Parquet file, joined from those of its stretches (parquet.thrift, Thrift's compact protocol).

Arrow's writer keeps 0.9 KB of heap for each column of each row group until it writes the footer, where it is 0.1 KB. So
a long file is written as several files on end, and a last footer speaks for all of them. The footers in between are
dead bytes: readers go where the last one points.
"""

from __future__ import annotations

from app.framing.thrift import I64, LIST, STRUCT, as_varint, field, list_head, skip, varint

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
            number, kind, at = field(metadata, at, last)
            if number == _NUM_ROWS:
                self._before = metadata[:start]
                rows, at = varint(metadata, at)
                self._rows += rows >> 1  # zigzag; never negative
            elif number == _ROW_GROUPS:
                at = self._add_groups(metadata, at, begins_at)
                self._behind = metadata[at:]
                return
            else:
                at = skip(metadata, at, kind)
            last = number

    def joined(self) -> bytes:
        """One struct for all row groups."""
        size = bytes([self._count << 4 | STRUCT]) if self._count < 15 else b"\xfc" + as_varint(self._count)
        rows, groups = bytes([0x10 | I64]) + as_varint(self._rows << 1), bytes([0x10 | LIST]) + size
        return b"".join([self._before, rows, groups, *self._groups, self._behind])

    def _add_groups(self, data: bytes, at: int, begins_at: int) -> int:
        count, _, at = list_head(data, at)
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
        last, kind, at = field(data, at, last)
        rule = rules.get(last)
        if rule is None:
            at = skip(data, at, kind)
            continue
        count = 1
        if kind == LIST:
            count, _, at = list_head(data, at)
        out.append(data[copied : begin if rule == "drop" else at])
        if isinstance(rule, dict):
            for _ in range(count):
                at = _move(data, at, rule, by, out)
        elif rule == "drop":
            at = skip(data, at, kind)
        else:
            offset, at = varint(data, at)
            out.append(as_varint(offset + (by << 1) if offset else 0))  # zigzag; 0 is no offset
        copied = at
    out.append(data[copied : at + 1])
    return at + 1
