"""A Parquet file as pages: batch by batch, of what is needed of it, with a look ahead at what that takes to decode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.interfaces import OnDisk, RandomAccess
from app.core.page import Page
from app.core.units import as_size
from app.framing.batches import Cutter, empty_batch, table_page
from app.framing.needs import ALL, Condition, Needs, PassedOver, field_called, leaf_counts, needed_fields
from app.framing.parquet_footer import RowGroup, ordered_leaves, row_groups, statistics_of
from app.framing.parquet_room import BUFFER_BYTES, Room
from app.framing.parquet_statistics import ruled_out
from app.framing.parquet_windows import GAP_BYTES, Windows, span_bytes

_MAGIC, _ENCRYPTED_MAGIC = b"PAR1", b"PARE"
_BATCH_ROWS = 64 * 1024
_PROBE_ROWS = 256
_HEAP_PER_FOOTER_BYTE = 10
"""What a footer takes in memory, by its size in the file; 9 was measured."""
_HELD_SHARE = 4
"""Up to this share of the memory, a quarter, bytes of a far input are held. Less, and there are more requests; more, and
there is less room to decode a row group in."""


def batches(
    input: RandomAccess,
    *,
    page_bytes: int,
    memory_bytes: int,
    needs: Needs = ALL,
    passed_over: PassedOver | None = None,
) -> Iterator[Page]:
    """The rows of a Parquet file in order, in pages of about ``page_bytes`` (see ``Cutter``); at least one page.

    Columns that ``needs`` does not name are left out (but for one, if it names none), and so are row groups in which no
    row fulfils its conditions; ``passed_over`` counts their rows.

    It reads when it is iterated, on one thread. Of each column of a row group there are in memory a dictionary, a page
    and its compressed form: ``page_too_large`` if the page headers of a row group sum up to more than ``memory_bytes``,
    by how much. An input that is not ``OnDisk`` is read in large ranges, which are held within the same memory.
    ``truncated_input`` for a file without its end, ``corrupt_input`` for what is no Parquet file or cannot be decoded,
    ``unsupported_type`` for a column (see ``Cutter``).
    """
    held_bytes = memory_bytes // _HELD_SHARE
    windows = None if isinstance(input, OnDisk) else Windows(input, held_bytes=held_bytes)
    with pa.OSFile(input.path) if isinstance(input, OnDisk) else pa.PythonFile(windows, "r") as source:
        footer_bytes = check_ends(source, memory_bytes)
        room_bytes = memory_bytes - _HEAP_PER_FOOTER_BYTE * footer_bytes - 4 * page_bytes
        if windows is not None:
            room_bytes -= windows.hold_end(footer_bytes + 8)
        try:
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER_BYTES)
            footer = source.read_at(footer_bytes, source.size() - 8 - footer_bytes)
            selection = selected(file.schema_arrow, footer, needs)
            rows = _Rows(file, selection, page_bytes, memory_bytes)
            kept = selection.kept(footer, file.num_row_groups, passed_over or PassedOver())
            for lot in _lots(kept, held_bytes) if windows is not None else ([group] for group in kept):
                rooms = [Room(group.index, group.chunks, room_bytes) for group in lot]
                if windows is not None:
                    windows.hold([(group.chunks, room) for group, room in zip(lot, rooms, strict=True)])
                for group, room in zip(lot, rooms, strict=True):
                    if windows is None:
                        room.check_through(source.read_at)
                    yield from rows.of(group)
            if not rows.given:
                yield table_page(empty_batch(rows.cutter.schema), first=True)
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise Refusal("corrupt_input", f"the Parquet file cannot be decoded: {error}") from None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is read: the fields of ``schema``, their leaves, and what rules row groups out: a condition, its column's
    leaf and type, and whether the leaf's bounds are in order."""

    schema: pa.Schema
    leaves: list[int] | None
    conditions: list[tuple[Condition, int, pa.DataType, bool]]

    def kept(self, footer: bytes, count: int, passed_over: PassedOver) -> Iterator[RowGroup]:
        """The row groups that are read, with those of their chunks that are."""
        groups = row_groups(footer)
        for _, group in zip(range(count), groups, strict=True):
            if any(self._rules_out(footer, group, *condition) for condition in self.conditions):
                passed_over.rows += group.rows
            elif group.rows > 0:
                chunks = group.chunks if self.leaves is None else [group.chunks[leaf] for leaf in self.leaves]
                yield RowGroup(group.index, group.rows, chunks)

    def _rules_out(
        self, footer: bytes, group: RowGroup, condition: Condition, leaf: int, type_: pa.DataType, ordered: bool
    ) -> bool:
        chunk = group.chunks[leaf]
        if chunk.values != group.rows:
            return False
        statistics = statistics_of(footer, chunk)
        return ruled_out(condition, type_, chunk.physical_type, statistics, chunk.values, ordered=ordered)


def selected(schema: pa.Schema, footer: bytes, needs: Needs) -> Selection:
    """What ``needs`` asks of a file with this ``schema`` and ``footer``."""
    counts = list(leaf_counts(schema))
    starts = [0, *accumulate(counts)]
    first = next(row_groups(footer), None)
    if first is None or len(first.chunks) != starts[-1]:
        return Selection(schema, None, [])
    fields = needed_fields(needs, schema)
    if not fields and counts:
        # Rows are counted by some column: the smallest.
        sizes = [sum(chunk.nbytes for chunk in first.chunks[a:b]) for a, b in pairwise(starts)]
        fields = [sizes.index(min(sizes))]
    conditions = []
    ordered = ordered_leaves(footer) if needs.conditions else frozenset()
    for condition in needs.conditions:
        index = field_called(condition.column, schema)
        if index is not None and not pt.is_nested(schema.field(index).type):
            leaf = starts[index]
            conditions.append((condition, leaf, schema.field(index).type, leaf in ordered))
    if len(fields) == len(schema):
        return Selection(schema, None, conditions)
    leaves = [leaf for index in fields for leaf in range(starts[index], starts[index + 1])]
    return Selection(pa.schema([schema.field(index) for index in fields], schema.metadata), leaves, conditions)


class _Rows:
    """The rows of one row group after the other. ``given`` counts them."""

    def __init__(self, file: pq.ParquetFile, selection: Selection, page_bytes: int, memory_bytes: int) -> None:
        self.cutter = Cutter(selection.schema, page_bytes=page_bytes)
        self.given = 0
        self._given_bytes = 0
        self._file = file
        self._leaves = selection.leaves
        self._page_bytes = page_bytes
        self._memory_bytes = memory_bytes

    def of(self, group: RowGroup) -> Iterator[Page]:
        """All rows of ``group``."""
        if not self.given:
            probe = next(self._batches(group, _PROBE_ROWS), None)
            if probe is None:
                raise ValueError("a row group has fewer rows than its footer says")
            row_bytes = probe.nbytes / max(1, probe.num_rows)
        else:
            row_bytes = self._given_bytes / self.given
        # Encoded, rows are smaller than in Arrow or as large; but those to come may be longer than those seen.
        encoded_bytes = sum(chunk.decoded_bytes for chunk in group.chunks)
        row_bytes = max(1.0, row_bytes, encoded_bytes / group.rows)
        rows = max(1, min(_BATCH_ROWS, int(self._page_bytes / row_bytes)))
        for batch in self._batches(group, rows):
            for piece in self.cutter.cut(batch, room_bytes=self._memory_bytes):
                page = table_page(piece, first=not self.given)
                self.given += piece.num_rows
                self._given_bytes += page.nbytes
                yield page

    def _batches(self, group: RowGroup, rows: int) -> Iterator[pa.RecordBatch]:
        # By leaves, as names may be paths of others: the column "a.b" and the field b of the column a.
        found: Iterator[pa.RecordBatch] = self._file.reader.iter_batches(
            rows, row_groups=[group.index], column_indices=self._leaves, use_threads=False
        )
        return found


def _lots(groups: Iterable[RowGroup], held_bytes: int) -> Iterator[list[RowGroup]]:
    """Row groups that are fetched together because they are small; each that is not by itself."""
    lot: list[RowGroup] = []
    lot_bytes = 0
    for group in groups:
        nbytes = span_bytes(group.chunks) + GAP_BYTES
        if lot and lot_bytes + nbytes > held_bytes:
            yield lot
            lot, lot_bytes = [], 0
        lot.append(group)
        lot_bytes += nbytes
    if lot:
        yield lot


def check_ends(source: pa.NativeFile, memory_bytes: int) -> int:
    """The footer's size, if the file has one that fits into a fifth of the memory; refuses it as ``batches`` does."""
    size = source.size()
    end = source.read_at(min(8, size), max(0, size - 8))
    nbytes = int.from_bytes(end[:4], "little")
    if size < 12 or end[4:] != _MAGIC:
        start = source.read_at(min(4, size), 0)
        if start not in (_MAGIC, _ENCRYPTED_MAGIC):
            raise Refusal("corrupt_input", "this is not a Parquet file: it does not begin with PAR1", byte=0)
        if _ENCRYPTED_MAGIC in (start, end[4:]):
            raise Refusal("unsupported_type", "the Parquet file is encrypted: decrypt it before sending")
        raise Refusal("truncated_input", f"the Parquet file ends after {size} bytes, without its footer", byte=size)
    if nbytes + 12 > size:
        raise Refusal("corrupt_input", f"the Parquet footer says that it has {nbytes} bytes", byte=size - 8)
    room_bytes = memory_bytes // 5
    if _HEAP_PER_FOOTER_BYTE * nbytes > room_bytes:
        raise Refusal(
            "page_too_large",
            f"the Parquet footer takes about {as_size(_HEAP_PER_FOOTER_BYTE * nbytes)} of memory,"
            f" {as_size(_HEAP_PER_FOOTER_BYTE * nbytes - room_bytes)} more than there is room for:"
            " write larger row groups",
            byte=size - 8 - nbytes,
        )
    return nbytes
