"""A Parquet file that a query reads by itself, where that is no risk.

To DuckDB a plain file costs a third of its record batches. It is let at one only if it is known beforehand that it reads
what Arrow reads, within the memory there is; everything else, damaged files too, comes batch by batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.errors import Refusal
from app.core.interfaces import OnDisk, RandomAccess
from app.core.page import Page
from app.framing.needs import Needs, PassedOver, folded
from app.framing.parquet_footer import RowGroup
from app.framing.parquet_pages import Selection, batches, check_ends, selected
from app.framing.parquet_plain import Fancy, PlainWalk, is_plain
from app.framing.parquet_room import needed_bytes

_LOOK_S = 0.01
"""So long a thread waits at a time for a query to end: others may want it."""
_HEAP_PER_FOOTER_BYTE = 16
"""What a footer takes in DuckDB, by its size in the file; 14 was measured."""
_ADDED_NAMES = frozenset((b"filename", b"file_row_number", b"file_index", b"rowid"))
"""Columns that every file has in DuckDB."""


@dataclass(slots=True)
class FileScan:
    """A page's payload that stands for ``rows`` rows of a file from ``first_row`` on, to be read by whoever gets it:
    those columns that are in ``schema``, within ``memory_bytes``. ``row_bytes`` is what a row takes decoded.

    The file is there until it is ``over``, which whoever reads it says. It may say ``doubted`` before, if it failed:
    then the file is read once more, as any other is, to see whether it is to blame.
    """

    path: str
    schema: pa.Schema
    first_row: int
    rows: int
    all_rows: int
    row_bytes: float
    memory_bytes: int
    doubted: bool = False
    over: threading.Event = field(default_factory=threading.Event)


def pages(
    input: RandomAccess,
    *,
    page_bytes: int,
    memory_bytes: int,
    needs: Needs,
    passed_over: PassedOver,
    scan_grows: float | None,
) -> Iterator[Page]:
    """A ``FileScan`` as the only page, where the file allows it; otherwise its ``batches``.

    ``scan_grows``: how many times the bytes of rows there are while a query reads them, None for no query. Pages without
    bytes stand between: they give a chance to stop.
    """
    scan = None
    if scan_grows is not None and isinstance(input, OnDisk):
        scan = _scan_of(input.path, needs, memory_bytes, page_bytes, scan_grows)
    if scan is None:
        yield from batches(
            input, page_bytes=page_bytes, memory_bytes=memory_bytes, needs=needs, passed_over=passed_over
        )
        return
    passed_over.rows += scan.all_rows - scan.rows
    passed_over.scanned_bytes += int(scan.rows * scan.row_bytes)
    yield Page(scan, 1, rows=scan.rows, first=True)
    while not scan.over.wait(_LOOK_S):
        yield _NOTHING
    if scan.doubted:
        for _ in batches(input, page_bytes=page_bytes, memory_bytes=memory_bytes, needs=needs):
            yield _NOTHING


def _scan_of(path: str, needs: Needs, memory_bytes: int, page_bytes: int, grows: float) -> FileScan | None:
    """The rows of the file that are needed, if it is plain and there is room for them."""
    try:
        with pa.OSFile(path) as source:
            footer_bytes = check_ends(source, memory_bytes)
            heap_bytes = _HEAP_PER_FOOTER_BYTE * footer_bytes
            if heap_bytes > memory_bytes // 5:
                return None
            file = pq.ParquetFile(source, pre_buffer=False)
            footer = source.read_at(footer_bytes, source.size() - 8 - footer_bytes)
            selection = selected(file.schema_arrow, footer, needs)
            _check_columns(file, selection)
            groups = selection.kept(footer, file.num_row_groups, passed_over := PassedOver())
            del file
            room_bytes = memory_bytes - heap_bytes - 4 * page_bytes
            first_row = rows = 0
            row_bytes = 1.0
            for group in groups:
                if rows and passed_over.rows != first_row:
                    raise Fancy  # row groups are passed over between others
                first_row = passed_over.rows
                rows += group.rows
                row_bytes = max(row_bytes, _walked(group, selection.schema, source.read_at, room_bytes, grows))
    except (pa.ArrowException, OSError, ValueError, IndexError, Refusal, Fancy):
        return None
    if not rows:
        return None
    return FileScan(path, selection.schema, first_row, rows, passed_over.rows + rows, row_bytes, memory_bytes)


def _check_columns(file: pq.ParquetFile, selection: Selection) -> None:
    """Raise ``Fancy`` unless the columns of ``selection`` are plain, and all of the file have names that DuckDB keeps."""
    columns = [file.schema.column(index) for index in range(len(file.schema))]
    names = [folded(column.name) for column in columns]
    if (
        len(set(names)) < len(names)
        or not _ADDED_NAMES.isdisjoint(names)
        or any(b"\0" in (name or b"\0") for name in names)
    ):
        raise Fancy
    if any(column.path != column.name or column.max_repetition_level for column in columns):
        raise Fancy
    needed = columns if selection.leaves is None else [columns[leaf] for leaf in selection.leaves]
    if not all(is_plain(type_, column) for type_, column in zip(selection.schema.types, needed, strict=True)):
        raise Fancy


def _walked(
    group: RowGroup, schema: pa.Schema, read_at: Callable[[int, int], bytes], room_bytes: int, grows: float
) -> float:
    """Go through all page headers of ``group``; gives the bytes of a row, or raises ``Fancy`` if there is no room."""
    chunks = zip(group.chunks, schema.types, strict=True)
    walks = [PlainWalk(chunk, type_, read_at) for chunk, type_ in chunks]
    for walk in walks:
        walk.through(read_at)
        if walk.rows != group.rows:
            raise Fancy
    if needed_bytes(walks) + grows * sum(walk.vector_bytes for walk in walks) > room_bytes:
        raise Fancy
    return sum(
        max(walk.value_bytes, chunk.decoded_bytes / group.rows) for walk, chunk in zip(walks, group.chunks, strict=True)
    )


_NOTHING = Page(b"", 0)
