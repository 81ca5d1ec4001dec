"""What a Parquet footer tells of row groups and column chunks (parquet.thrift, FileMetaData), read without trust.

Not by ``pyarrow``'s ``RowGroupMetaData.column``: a broken footer makes it end the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.framing.thrift import BINARY, I32, I64, LIST, STRUCT, binary, field, list_head, number, skip

_ROW_GROUPS, _COLUMN_ORDERS = 4, 7  # of FileMetaData
_COLUMNS, _ROWS = 1, 3  # of RowGroup
_META_DATA = 3  # of ColumnChunk
_PHYSICAL_TYPE, _CODEC, _VALUES, _DECODED_BYTES, _CHUNK_BYTES, _DATA_PAGE, _DICTIONARY = 1, 4, 5, 6, 7, 9, 11
_STATISTICS = 12
_NULLS, _HIGH, _LOW = 3, 5, 6  # of Statistics; 1 and 2 are older bounds, whose order is not told
_TYPE_ORDER = 1  # of ColumnOrder


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column chunk: where it begins in the file, its size there and decoded, and how many values it has.

    ``statistics_at`` is where its statistics stand in the footer, ``dictionary_at`` where its dictionary is said to
    begin in the file; 0 if it has none. ``physical_type`` and ``codec`` are Parquet's numbers.
    """

    at: int
    nbytes: int
    decoded_bytes: int
    values: int
    physical_type: int
    statistics_at: int
    dictionary_at: int
    codec: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group: its place among those of the file, its rows, and its chunks in the order of the schema's leaves."""

    index: int
    rows: int
    chunks: list[Chunk]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the values of a chunk: how many are null, and bounds (not always values themselves) in the plain encoding.
    None for what is not known."""

    nulls: int | None = None
    low: bytes | None = None
    high: bytes | None = None


def row_groups(footer: bytes) -> Iterator[RowGroup]:
    """All row groups, in order. Raises ``IndexError`` and ``ValueError``."""
    at = last = 0
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if (last, kind) != (_ROW_GROUPS, LIST):
            at = skip(footer, at, kind)
            continue
        count, _, at = list_head(footer, at)
        for index in range(count):
            group, at = _row_group(footer, at, index)
            yield group


def ordered_leaves(footer: bytes) -> frozenset[int]:
    """The leaves whose bounds are in the order of their type."""
    at = last = 0
    ordered: set[int] = set()
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if (last, kind) != (_COLUMN_ORDERS, LIST):
            at = skip(footer, at, kind)
            continue
        count, _, at = list_head(footer, at)
        for leaf in range(count):
            if footer[at] and field(footer, at, 0)[0] == _TYPE_ORDER:
                ordered.add(leaf)
            at = skip(footer, at, STRUCT)
    return frozenset(ordered)


def statistics_of(footer: bytes, chunk: Chunk) -> Statistics:
    """The statistics of a chunk, as far as it has some."""
    if not chunk.statistics_at:
        return Statistics()
    at, last = chunk.statistics_at, 0
    nulls: int | None = None
    bounds: dict[int, bytes] = {}
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if (last, kind) == (_NULLS, I64):
            nulls, at = number(footer, at)
        elif last in (_LOW, _HIGH) and kind == BINARY:
            bounds[last], at = binary(footer, at)
        else:
            at = skip(footer, at, kind)
    return Statistics(nulls, bounds.get(_LOW), bounds.get(_HIGH))


def _row_group(footer: bytes, at: int, index: int) -> tuple[RowGroup, int]:
    """The RowGroup at ``at``, and where it ends."""
    chunks: list[Chunk] = []
    is_described = True
    rows = last = 0
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if (last, kind) == (_ROWS, I64):
            rows, at = number(footer, at)
            continue
        if (last, kind) != (_COLUMNS, LIST):
            at = skip(footer, at, kind)
            continue
        count, _, at = list_head(footer, at)
        for _ in range(count):
            numbers, at = _chunk_numbers(footer, at, {})
            offsets = [numbers[key] for key in (_DATA_PAGE, _DICTIONARY) if numbers.get(key)]
            is_described = is_described and bool(offsets) and _CHUNK_BYTES in numbers
            keys = (_DECODED_BYTES, _VALUES, _PHYSICAL_TYPE, _STATISTICS, _DICTIONARY, _CODEC)
            known = (numbers.get(key, 0) for key in keys)
            chunks.append(Chunk(min(offsets, default=0), numbers.get(_CHUNK_BYTES, 0), *known))
    if rows and not is_described:  # without rows there may be no pages
        raise ValueError("a column chunk is not described in the footer")
    return RowGroup(index, rows, chunks), at + 1


def _chunk_numbers(footer: bytes, at: int, numbers: dict[int, int], depth: int = 0) -> tuple[dict[int, int], int]:
    """The numbers in the ColumnMetaData of the ColumnChunk at ``at``, by field, with the place of its statistics; and
    where the chunk ends."""
    last = 0
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if depth == 0 and (last, kind) == (_META_DATA, STRUCT):
            numbers, at = _chunk_numbers(footer, at, numbers, depth=1)
        elif depth == 1 and kind in (I32, I64):
            numbers[last], at = number(footer, at)
        else:
            if depth == 1 and (last, kind) == (_STATISTICS, STRUCT):
                numbers[last] = at
            at = skip(footer, at, kind)
    return numbers, at + 1
