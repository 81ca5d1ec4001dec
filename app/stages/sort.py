"""Rows of a whole input in the order of a key: in memory as far as they fit, in sorted runs on disk beyond.

An external merge sort (D. Knuth, "The Art of Computer Programming", volume 3, section 5.4). As groups are, runs are merged
by ranges of keys and not row by row: each range is as large as what fits, and sorted at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from app.core.interfaces import Spill
from app.core.page import Page
from app.framing.batches import empty_batch
from app.stages.sorted_runs import Cursor, SortedRun, SortedRuns
from app.stages.sql_engine import QueryOptions
from app.stages.sql_pages import pieces, query_page
from app.stages.whole_input import WholeInput

_RUN_SHARE, _BLOCKS_SHARE = 1 / 4, 1 / 8
"""Of the memory: rows of a run, which are there twice while they are sorted, beside their order; and blocks, one of each
run, which meet as many to be sorted with them, and are there twice then. Samples take some of the rest."""
_MOST_RUN_BYTES = 1 << 30
"""Offsets of texts have 32 bits."""
_BATCH_BYTES = 4096
"""What a batch takes beside its rows."""


class Sort(WholeInput):
    """Rows in the order of their last column, bytes, which leaves them; those with the same keep theirs. Of these the first
    ``skip`` are left out, and all behind the next ``count``, if that is a number.

    What outgrows its memory goes to the spill. Raises ``spool_full``, and ``state_too_large`` where there is no disk.
    ``spilled_bytes`` is the most that stood there.
    """

    name = "sort"
    grows = 2.0  # what is given, and cut once more where rows are of very different sizes

    def __init__(self, options: QueryOptions, *, skip: int = 0, count: int | None = None) -> None:
        super().__init__(options)
        self._skip = skip
        self._count = count

    def pages(self, pages: Iterator[Page]) -> Iterator[Page]:
        """See ``WholeInput``."""
        page: Page | None = next(pages)
        assert page is not None
        schema = page.payload.schema
        empty = query_page(_without_key(empty_batch(schema)), page_bytes=self._page_bytes)
        with closing(RowMerge(schema, memory_bytes=self.holds, spill=self._spill, look=self.look)) as merge:
            while page is not None:
                if page.rejects:
                    yield replace(empty, rejects=page.rejects)
                merge.add(page.payload, page.nbytes)
                page = next(pages, None)
            yield empty
            for rows in self._wanted(merge.rows(self._page_bytes)):
                for piece in pieces(rows, page_bytes=self._page_bytes, row_bytes=merge.largest_bytes, steps="sql"):
                    yield query_page(piece, page_bytes=self._page_bytes)
            self.spilled_bytes = merge.spilled_bytes

    def _wanted(self, sorted_rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        skip, left = self._skip, self._count
        for batch in sorted_rows:
            rows = batch.slice(skip, left)
            skip -= min(skip, batch.num_rows)
            left = None if left is None else left - rows.num_rows
            yield _without_key(rows)
            if left == 0:
                return


class RowMerge:
    """Rows of ``schema``, which come in any order and go in that of their last column. It takes ``memory_bytes``, and files
    of ``spill`` until it is closed. ``look`` is called again and again meanwhile; what it raises comes out."""

    def __init__(self, schema: pa.Schema, *, memory_bytes: int, spill: Spill | None, look: Callable[[], None]) -> None:
        self._schema = schema
        self._look = look
        self._run_bytes = min(int(memory_bytes * _RUN_SHARE), _MOST_RUN_BYTES)
        self._runs = SortedRuns(schema, schema.names[-1:], memory_bytes=memory_bytes, spill=spill, look=look)
        self._block_bytes = int(memory_bytes * _BLOCKS_SHARE) // self._runs.most
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self.largest_bytes = 0
        """The most that rows that were added at once have occupied."""

    @property
    def spilled_bytes(self) -> int:
        """The most that stood on disk."""
        return self._runs.spilled_bytes

    def close(self) -> None:
        """Give the disk back."""
        self._runs.close()

    def add(self, rows: pa.RecordBatch, nbytes: int) -> None:
        """Rows that occupy ``nbytes``."""
        self.largest_bytes = max(self.largest_bytes, nbytes)
        self._waiting.append(rows)
        self._waiting_bytes += nbytes + _BATCH_BYTES
        if self._waiting_bytes >= self._run_bytes:
            self._add_run()

    def rows(self, batch_bytes: int) -> Iterator[pa.RecordBatch]:
        """All of them, in batches of about as many bytes."""
        if not self._runs.all:
            yield from self._sorted(self._taken(), batch_bytes)
            return
        if self._waiting:
            self._add_run()
        yield from self._merged(self._runs.all, batch_bytes)

    def _add_run(self) -> None:
        self._runs.add(self._sorted(self._taken(), self._block_bytes))
        self._runs.shorten(lambda runs: self._merged(runs, self._block_bytes))

    def _taken(self) -> list[pa.RecordBatch]:
        rows, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return rows

    def _sorted(self, waiting: list[pa.RecordBatch], batch_bytes: int) -> Iterator[pa.RecordBatch]:
        """All that is ``waiting``, which it is no more then; rows with the same key keep their order."""
        rows = pa.concat_batches(waiting) if waiting else empty_batch(self._schema)
        waiting.clear()
        rows = rows.take(pc.array_sort_indices(_keys(rows)))
        step = max(1, rows.num_rows * batch_bytes // max(1, rows.nbytes))
        for start in range(0, rows.num_rows, step):
            self._look()
            yield rows.slice(start, step)

    def _merged(self, runs: Sequence[SortedRun], batch_bytes: int) -> Iterator[pa.RecordBatch]:
        """The rows of ``runs``, of older ones first where keys are the same. Samples tell how far a range can go so that no
        more blocks begin in it than what there is room for."""
        samples = pa.concat_batches([run.samples for run in runs]).column(0)
        order = pc.array_sort_indices(samples)
        at_a_time = max(1, self._runs.most // self._runs.stride)
        bounds = (samples[order[place].as_py()].as_py() for place in range(at_a_time, len(samples), at_a_time))
        cursors = [Cursor(run).moved(0) for run in runs]
        for bound in bounds:
            lowest = min((_keys(cursor.rows)[0].as_py() for cursor in cursors if cursor.rows.num_rows), default=bound)
            if bound == lowest:
                yield from self._gathered(cursors, bound, bisect_right)
            elif bound > lowest:
                yield from self._sorted(list(self._gathered(cursors, bound, bisect_left)), batch_bytes)
        yield from self._sorted(list(self._gathered(cursors)), batch_bytes)

    def _gathered(
        self, cursors: list[Cursor], bound: bytes | None = None, place: Callable[..., int] = bisect_left
    ) -> Iterator[pa.RecordBatch]:
        """The rows behind ``cursors``, which move: all, or those before the ``place`` of ``bound`` among their keys."""
        for index, cursor in enumerate(cursors):
            while cursor.rows.num_rows:
                self._look()
                rows = cursor.rows
                count = rows.num_rows if bound is None else place(_keys(rows), bound, key=lambda one: one.as_py())
                if count:
                    yield rows.slice(0, count)
                cursor = cursors[index] = cursor.moved(count)
                if count < rows.num_rows:
                    break


def _keys(rows: pa.RecordBatch) -> pa.Array:
    return rows.column(rows.num_columns - 1)


def _without_key(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.select(range(rows.num_columns - 1))
