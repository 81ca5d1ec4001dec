"""The footer of a Parquet file whose columns were encoded one by one (parquet.thrift, Thrift's compact protocol).

Each was a file by itself when Arrow's writer made it. What its footer tells of the one row group in it is taken over, with
its offsets moved to where the bytes stand now.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.framing.thrift import I64, LIST, STRUCT, as_varint, field, list_head, skip, varint

_NUM_ROWS, _ROW_GROUPS = 3, 4  # of FileMetaData
_COLUMNS, _TOTAL_BYTES, _COMPRESSED_BYTES = 1, 2, 6  # of RowGroup

_Rules = dict[int, "_Rules | str"]
_COLUMN_META_DATA: _Rules = dict.fromkeys((9, 10, 11, 14), "shift")
_COLUMN_CHUNK: _Rules = {2: "shift", 3: _COLUMN_META_DATA, 4: "shift", 6: "shift"}
"""By field: offsets in the file, and structs that have some."""


class Footer:
    """Collects row groups into the ``FileMetaData`` of a file without any, which says what all have in common.

    What Arrow's writer has made is trusted.
    """

    def __init__(self, metadata: bytes) -> None:
        at = last = 0
        self._before = self._behind = b""
        while metadata[at]:
            start = at
            last, kind, at = field(metadata, at, last)
            if last == _NUM_ROWS:
                self._before = metadata[:start]
            at = skip(metadata, at, kind)
            if last == _ROW_GROUPS:
                self._behind = metadata[at:]
                break
        self._rows = 0
        self._count = 0
        # One piece of memory: many small ones that stay, between the large ones that go, would leave the heap in pieces.
        self._groups = bytearray()

    def add(self, parts: Sequence[tuple[bytes, int]], rows: int) -> None:
        """A row group of so many ``rows``: its columns in order, as footers of files that have some each, and how many
        bytes these were moved."""
        chunks: list[bytes] = []
        count = total_bytes = compressed_bytes = 0
        for metadata, moved_bytes in parts:
            at = _row_group(metadata)
            last = 0
            while metadata[at]:
                last, kind, at = field(metadata, at, last)
                if last == _COLUMNS:
                    number, _, at = list_head(metadata, at)
                    count += number
                    for _ in range(number):
                        at = _move(metadata, at, _COLUMN_CHUNK, moved_bytes, chunks)
                    continue
                if last in (_TOTAL_BYTES, _COMPRESSED_BYTES):
                    value = varint(metadata, at)[0] >> 1  # zigzag; never negative
                    total_bytes += value if last == _TOTAL_BYTES else 0
                    compressed_bytes += value if last == _COMPRESSED_BYTES else 0
                at = skip(metadata, at, kind)
        self._rows += rows
        columns = bytes([0x10 | LIST]) + _list_of_structs(count)
        # total_byte_size, num_rows; file_offset is left out; total_compressed_size.
        sizes = [(0x10, total_bytes), (0x10, rows), (0x30, compressed_bytes)]
        numbers = b"".join(bytes([delta | I64]) + as_varint(value << 1) for delta, value in sizes)
        self._count += 1
        self._groups += b"".join([columns, *chunks, numbers, b"\0"])

    def joined(self) -> bytes:
        """One struct for all row groups."""
        rows = bytes([0x10 | I64]) + as_varint(self._rows << 1)
        groups = bytes([0x10 | LIST]) + _list_of_structs(self._count)
        return b"".join([self._before, rows, groups, self._groups, self._behind])


def _list_of_structs(count: int) -> bytes:
    return bytes([count << 4 | STRUCT]) if count < 15 else b"\xfc" + as_varint(count)


def _row_group(metadata: bytes) -> int:
    """Where the one row group begins."""
    at = last = 0
    while metadata[at]:
        last, kind, at = field(metadata, at, last)
        if last == _ROW_GROUPS:
            return list_head(metadata, at)[2]
        at = skip(metadata, at, kind)
    raise ValueError("there is no row group")


def _move(data: bytes, at: int, rules: _Rules, by: int, out: list[bytes]) -> int:
    """Copy the struct at ``at`` with its offsets moved ``by`` bytes; gives where it ends."""
    copied, last = at, 0
    while data[at]:
        last, kind, at = field(data, at, last)
        rule = rules.get(last)
        if rule is None:
            at = skip(data, at, kind)
            continue
        out.append(data[copied:at])
        if isinstance(rule, dict):
            at = _move(data, at, rule, by, out)
        else:
            offset, at = varint(data, at)
            out.append(as_varint(offset + (by << 1) if offset else 0))  # zigzag; 0 is no offset
        copied = at
    out.append(data[copied : at + 1])
    return at + 1
