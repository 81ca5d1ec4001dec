"""The first row of each key: as soon as it comes, where all keys so far are in memory, and at the end beyond.

What does not fit is parted by the hash of its keys until each part does (section 4.2 of "Query Evaluation Techniques for Large
Databases", G. Graefe, ACM Computing Surveys 1993), and put in the order of the input again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from app.core.errors import Refusal
from app.core.interfaces import Spill
from app.core.page import Page
from app.framing.batches import empty_batch
from app.framing.native.gather import Taken, take_rows, text_span_bytes
from app.stages.block_file import BlockFile
from app.stages.distinct_keys import DistinctKeys
from app.stages.groups import Groups, Total
from app.stages.sort import RowMerge
from app.stages.sql_clause import Clause
from app.stages.sql_engine import QueryOptions
from app.stages.sql_pages import pieces, query_page
from app.stages.whole_input import WholeInput

_LEAST_SHARE = 1 / 4
"""Of what it may have, even where pages could be larger then: with a little, rows go through the disk twice."""
_FIRST_SHARE, _LATER_SHARE, _PARTS_SHARE, _ORDER_SHARE = 1 / 2, 1 / 4, 1 / 8, 3 / 8
"""Of the memory: keys whose rows were given, which are copied when there is no more room; and then keys of a part, what is on
its way to the disk, and what comes back from there. What grows is there twice for a moment."""
_MOST_PARTS, _LEAST_PARTS = 64, 4
_COLUMN_BYTES = 256
"""What a column of a block is to have: Arrow keeps as much beside it."""
_MOST_LEVELS = 9
"""Parts are parted again by other bits of the same hash, of which there are 64."""
_BATCH_ROWS = 16 * 1024
_READ_BYTES = 1024 * 1024
"""What is read back at a time: each call of DuckDB takes 3 ms."""
_NUMBER = pa.field("\ue002number", pa.int64())
"""A column for a while: private characters, as no column has them in its name."""


class Distinct(WholeInput):
    """Of rows with the same values in the columns of ``clause``, a ``distinct``, or in all, the first one, in the order of
    the input. Nulls are the same, and so are NaNs, and 0.0 and -0.0.

    A row is given as soon as it comes, as long as all keys so far fit in memory; the others once the input is over. What
    outgrows memory goes to the spill. Raises ``bad_sql`` where a column is missing, ``spool_full``, and ``state_too_large``
    where there is no disk. ``spilled_bytes`` is the most that stood there.
    """

    name = "distinct"
    grows = 4.0  # rows and their keys as DuckDB gives them; what is given, cut once more where sizes differ much

    def __init__(self, clause: Clause, options: QueryOptions) -> None:
        super().__init__(options, least_bytes=int(options.whole_bytes * _LEAST_SHARE))
        self._clause = clause

    def pages(self, pages: Iterator[Page]) -> Iterator[Page]:
        """See ``WholeInput``."""
        first = next(pages)
        keys = DistinctKeys(self._clause, first.payload.schema)
        yield query_page(empty_batch(keys.schema), page_bytes=self._page_bytes)
        seen = _Seen(keys, int(self.holds * _FIRST_SHARE))
        for page in chain((first,), pages):
            if page.rejects:
                yield query_page(empty_batch(keys.schema), page_bytes=self._page_bytes, rejects=page.rejects)
            rows = keys.rows(page.payload)
            new, count = seen.add(rows)
            yield from self._cut(keys.given(new), page.nbytes)
            if count < rows.num_rows:
                yield from self._others(keys, seen, rows.slice(count), pages)
                return

    def _others(self, keys: DistinctKeys, seen: _Seen, rows: pa.RecordBatch, pages: Iterator[Page]) -> Iterator[Page]:
        """The first ones of ``rows`` and of all in ``pages`` whose keys were not ``seen``."""
        most_bytes = int(self.holds * _ORDER_SHARE)
        schema = pa.schema([*keys.schema, _NUMBER])
        with (
            closing(_Apart(keys, self.holds, self._spill, self.look)) as apart,
            closing(RowMerge(schema, memory_bytes=most_bytes, spill=self._spill, look=self.look)) as ordered,
        ):
            parts = apart.parts(0)
            for known in seen.taken():
                parts.add_seen(known)
            number = 0
            while rows is not None:
                numbers = pa.array(range(number, number + rows.num_rows), pa.int64())
                parts.add(pa.RecordBatch.from_arrays([*rows.columns, numbers], schema=keys.numbered(_NUMBER)))
                number += rows.num_rows
                page = next(pages, None)
                rows = None if page is None else keys.rows(page.payload)
                if page is not None and page.rejects:
                    yield query_page(empty_batch(keys.schema), page_bytes=self._page_bytes, rejects=page.rejects)
            for new in apart.firsts(parts):
                given = pa.RecordBatch.from_arrays([*keys.given(new).columns, new.columns[-1]], schema=schema)
                ordered.add(given, given.nbytes)
            self.spilled_bytes = apart.spilled_bytes
            for batch in ordered.rows(self._page_bytes):
                yield from self._cut(batch.select(range(len(keys.schema))), ordered.largest_bytes)
            self.spilled_bytes += ordered.spilled_bytes

    def _cut(self, rows: pa.RecordBatch, largest_bytes: int) -> Iterator[Page]:
        for piece in pieces(rows, page_bytes=self._page_bytes, row_bytes=largest_bytes, steps="distinct"):
            yield query_page(piece, page_bytes=self._page_bytes)


class _Seen:
    """Keys that came."""

    def __init__(self, keys: DistinctKeys, most_bytes: int) -> None:
        self._keys = keys
        self._groups = Groups(keys.types, [Total("first", pa.int32())], most_bytes=most_bytes)
        self._numbers = pa.array([], pa.int32())

    def add(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """Those of ``rows`` whose keys are new, and how many were looked at: all, or there is no room for more."""
        count, found = self._added(self._keys.of(rows), rows.num_rows)
        if len(found) == rows.num_rows:
            return rows, count
        text_bytes = sum(map(text_span_bytes, rows.columns))
        wanted = [Taken(column, found.buffers()[1], may_miss=False) for column in rows.columns]
        taken = take_rows(wanted, len(found), text_bytes) if len(found) else [column[:0] for column in rows.columns]
        return pa.RecordBatch.from_arrays(taken, schema=rows.schema), count

    def add_seen(self, seen: pa.RecordBatch) -> int:
        """How many of these keys, which came before, there is room for."""
        return self._added(seen.columns, seen.num_rows)[0]

    def taken(self) -> Iterator[pa.RecordBatch]:
        """All keys, some at a time; none is here then, nor is their memory."""
        found = self._groups.take()
        del self._groups
        keys = pa.RecordBatch.from_arrays(found.columns[:-1], names=found.schema.names[:-1])
        for start in range(0, keys.num_rows, _BATCH_ROWS):
            yield keys.slice(start, _BATCH_ROWS)

    def _added(self, keys: Sequence[pa.Array], rows: int) -> tuple[int, pa.Array]:
        if len(self._numbers) < rows:
            self._numbers = pa.array(range(rows), pa.int32())
        before = len(self._groups)
        try:
            count = self._groups.add(keys, [self._numbers.slice(0, rows)])
        except Refusal as refusal:
            raise Refusal(
                refusal.code, f"distinct: a key is too large ({refusal.detail}): raise QUERY_MEMORY"
            ) from None
        return count, self._groups.firsts(before)


class _Apart:
    """Tells rows with a number behind them apart, by parts on disk."""

    def __init__(self, keys: DistinctKeys, memory_bytes: int, spill: Spill | None, look: Callable[[], None]) -> None:
        self._keys = keys
        self._most_bytes = int(memory_bytes * _LATER_SHARE)
        self._waiting_bytes = int(memory_bytes * _PARTS_SHARE) // 2  # which is there twice while it is parted
        self._spill = spill
        self._look = look
        self._open: set[BlockFile] = set()
        self._used_bytes = 0
        self.spilled_bytes = 0
        """The most that stood on disk."""

    def close(self) -> None:
        """Give the disk back."""
        for file in self._open:
            file.close()

    def parts(self, level: int) -> _Parts:
        """Empty ones."""
        if level > _MOST_LEVELS:
            raise Refusal("state_too_large", "distinct: the keys of a few rows outgrow QUERY_MEMORY: raise it")
        return _Parts(self, self._keys, level, self._waiting_bytes)

    def firsts(self, parts: _Parts) -> Iterator[pa.RecordBatch]:
        """The first rows of each part, those with a key that was seen excepted; in their order within it."""
        for seen_file, rows_file in parts.taken():
            seen = _Seen(self._keys, self._most_bytes)
            others: _Parts | None = None
            for keys in seen_file.joined(_READ_BYTES) if seen_file is not None else ():
                keys = keys.slice(seen.add_seen(keys) if others is None else 0)
                if keys.num_rows:
                    others = others or self._overflown(parts.level, seen)
                    others.add_seen(keys)
            for rows in rows_file.joined(_READ_BYTES):
                self._look()
                if others is None:
                    new, count = seen.add(rows)
                    yield new
                    rows = rows.slice(count)
                if rows.num_rows:
                    others = others or self._overflown(parts.level, seen)
                    others.add(rows)
            del seen
            for file in (seen_file, rows_file):
                if file is not None:
                    self.drop(file)
            if others is not None:
                yield from self.firsts(others)

    def _overflown(self, level: int, seen: _Seen) -> _Parts:
        parts = self.parts(level + 1)
        for keys in seen.taken():
            parts.add_seen(keys)
        return parts

    def file(self, schema: pa.Schema) -> BlockFile:
        """An empty one, for rows."""
        file = BlockFile(self._spill, schema)
        self._open.add(file)
        return file

    def write(self, file: BlockFile, rows: pa.RecordBatch) -> None:
        """Put them behind what is in it."""
        self._look()
        before = file.nbytes
        file.add(rows)
        self._used_bytes += file.nbytes - before
        self.spilled_bytes = max(self.spilled_bytes, self._used_bytes)

    def drop(self, file: BlockFile) -> None:
        """It is of no more use."""
        self._used_bytes -= file.nbytes
        self._open.remove(file)
        file.close()


class _Parts:
    """Rows, and keys that were seen before them, by some bits of the hash of their keys, in a file for each part."""

    def __init__(self, apart: _Apart, keys: DistinctKeys, level: int, waiting_bytes: int) -> None:
        self.level = level
        self._apart = apart
        self._keys = keys
        self._most_bytes = waiting_bytes
        self._count = _MOST_PARTS
        while self._count > _LEAST_PARTS and waiting_bytes < _COLUMN_BYTES * len(keys.schema) * self._count:
            self._count //= 2
        self._seen: list[BlockFile | None] = [None] * self._count
        self._rows: list[BlockFile | None] = [None] * self._count
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0

    def add_seen(self, keys: pa.RecordBatch) -> None:
        """Keys, before any row."""
        self._write(self._seen, keys, keys.columns)

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows behind those that were added before."""
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= self._most_bytes:
            self._part()

    def taken(self) -> Iterator[tuple[BlockFile | None, BlockFile]]:
        """Those parts that have rows."""
        self._part()
        for seen, rows in zip(self._seen, self._rows, strict=True):
            if rows is not None:
                yield seen, rows
            elif seen is not None:
                self._apart.drop(seen)

    def _part(self) -> None:
        if self._waiting:
            rows = pa.concat_batches(self._waiting)
            self._waiting, self._waiting_bytes = [], 0
            self._write(self._rows, rows, self._keys.of(rows))

    def _write(self, files: list[BlockFile | None], batch: pa.RecordBatch, keys: Sequence[pa.Array]) -> None:
        if not batch.num_rows:
            return
        numbers = self._keys.hashed(keys, self.level, self._count)
        counts = {one["values"]: one["counts"] for one in pc.value_counts(numbers).to_pylist()}
        batch = batch.take(pc.array_sort_indices(numbers))  # which is stable
        start = 0
        for number in sorted(counts):
            file = files[number] = files[number] or self._apart.file(batch.schema)
            self._apart.write(file, batch.slice(start, counts[number]))
            start += counts[number]
