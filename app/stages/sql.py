"""The SQL steps on rows, from ``where`` to ``aggregate`` and ``sql``: neighbours run as one streaming DuckDB query."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from itertools import chain
from typing import TypeVar

import duckdb
import pyarrow as pa

from app.core.page import Page, Reject
from app.framing.parquet_scan import FileScan
from app.stages.sql_binding import Bound, bind
from app.stages.sql_clause import Clause, steps_of
from app.stages.sql_engine import INSTANCE_BYTES, MEMORY_LIMIT_BYTES, QueryOptions, open_engine, shared_engine
from app.stages.sql_file import FileFeed
from app.stages.sql_growth import growth
from app.stages.sql_levels import levels
from app.stages.sql_pages import fitted, pieces, query_page
from app.stages.sql_parser import open_parser
from app.stages.sql_text import SQL_STEPS, parse
from app.stages.sql_totals import Grouped
from app.stages.sql_types import fed_schema, given_names

T = TypeVar("T")

_BESIDE_LIMIT_BYTES = 40 * 1024 * 1024
"""What a query that remembers rows takes beside its memory limit (30 to 45 MiB over runs of up to 50 million groups)."""
_LEAST_WHOLE_BYTES = 8 * 1024 * 1024
_GROUPED_PAGES = 4
"""Groups are few, as a rule, and come once all is over: in so small parts of pages, whoever writes them needs less room."""


def check(clause: str, text: str) -> None:
    """Refuse with ``bad_sql`` unless ``text`` is one SQL condition ("where") or select list ("select", "derive").

    Or what to aggregate ("aggregate"), columns ("distinct"), or a SELECT ("sql"). Nothing passes but the input's columns
    and functions that are in ``sql_functions``. ``position`` of the refusal counts characters of ``text``. It needs no
    data: whether the columns exist and their types fit is known with the first page.
    """
    growth((parse(clause, text),))


def remembers_rows(clause: str, text: str) -> bool:
    """Whether a step that ``check`` let pass has to see all of the input before it gives anything, and not only totals."""
    if clause not in SQL_STEPS:
        return False
    parsed = parse(clause, text)
    return parsed.is_whole and levels(parsed) is None


def warm_up() -> None:
    """Open what the process shares and run one small query: 45 MiB and 0.2 s that no run has to pay for."""
    open_parser()
    batch = pa.RecordBatch.from_pydict({"a": [1, 2]})
    with shared_engine(batch) as connection:
        connection.sql("FROM input").fetchall()
    query = Query((("where", "a > 1"),), QueryOptions(64 * 1024, 1, 0))
    list(query.run(iter((Page(batch, batch.nbytes, rows=2, first=True),))))


class Query:
    """``clauses``, pairs of a step's name and its text, as one query over the stream. Checks them as ``check`` does; a
    ``sql`` can only be the first.

    Rows keep their order. ``where`` keeps rows, ``select`` gives its list, ``derive`` all columns and its list;
    ``aggregate`` a row for each group, in the order of the keys. All is computed
    in the order of the input, so that sums of floats are the same however it came. Raises ``bad_sql``, before any
    output, where a column is missing, a type does not fit or a name is given twice; ``bad_computation`` where a value
    cannot be computed; ``page_too_large`` where a row outgrows two pages; ``state_too_large`` and ``spool_full`` where
    what has to be remembered outgrows memory or disk. Half of its memory is for groups, which go to disk in sorted runs.

    ``spilled_bytes`` is the most that stood on disk. With ``grouped`` its input is what ``GroupTotals`` gives, and ``changed``
    stands in place of clauses: a query without what ``Sort`` or ``Distinct`` does behind it.
    ``before`` are clauses of which stages before it take care, but not where it reads a file itself.
    """

    name = "sql"

    def __init__(
        self,
        clauses: Sequence[tuple[str, str]],
        options: QueryOptions,
        *,
        before: Sequence[tuple[str, str]] = (),
        grouped: Grouped | None = None,
        changed: Clause | None = None,
    ) -> None:
        self._before = [parse(kind, text) for kind, text in before]
        self._grouped = grouped
        self._clauses = [parse(kind, text) for kind, text in clauses] if changed is None else [changed]
        self._growth = growth([*self._before, *self._clauses])
        self._page_bytes = options.page_bytes
        self._options = options
        self._is_whole = any(clause.is_whole for clause in self._clauses)
        # A LIMIT may end it before the input does, and no thread must be waiting for the input then.
        is_query = any(clause.kind == "sql" for clause in self._clauses)
        self._threads = 1 if self._is_whole or is_query else options.threads
        self.grows = max(1.0, self._growth.row) + self._growth.work
        self.holds = INSTANCE_BYTES + 4 * max(2, self._threads) * self._page_bytes
        self._given_bytes = self._page_bytes if grouped is None else self._page_bytes // _GROUPED_PAGES
        self.gives_bytes = 2 * self._given_bytes
        self.spilled_bytes = 0
        self._guard = threading.Lock()
        self._running: duckdb.DuckDBPyConnection | None = None
        self._is_over = False
        self._whole_bytes = options.whole_bytes if self._is_whole else 0
        if self._is_whole:
            self.holds += self._whole_bytes + _BESIDE_LIMIT_BYTES

    def spare(self, nbytes: int) -> None:
        """Hold so much less of what the whole input needs, down to what DuckDB cannot do without, or was promised."""
        spared = min(nbytes, self.spare_bytes)
        self._whole_bytes -= spared
        self.holds -= spared

    @property
    def spare_bytes(self) -> int:
        """See ``Modest``."""
        return max(0, self._whole_bytes - max(_LEAST_WHOLE_BYTES, self._options.least_bytes))

    @property
    def scan_grows(self) -> float | None:
        """See ``ReadOptions``: whoever has to see the whole input can read it from a file."""
        return self.grows if self._is_whole else None

    def interrupt(self) -> None:
        """See ``Interruptible``. A thread that waits for its input is woken by that."""
        with self._guard:
            self._is_over = True
            if self._running is not None:
                self._running.interrupt()

    def run(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The output for the whole stream. What ``pages`` raises comes out as it is."""
        first = next(pages)
        if isinstance(first.payload, FileScan):
            with FileFeed(first.payload, pages) as file, self._connected(file) as connection:
                yield from self._results(connection, file, [*self._before, *self._clauses])
            return
        pages = chain((first,), pages)
        del first
        merge = None
        if self._grouped is not None:
            merge = self._grouped.merge(self._options, self._whole_bytes // 2, self._look)
        if merge is None:
            with self._connected() as connection:
                yield from self._results(connection, _Feed(pages, self._page_bytes), self._clauses)
            return
        with closing(merge), self._connected(is_merged=True) as connection:
            yield from self._results(connection, _Feed(merge.pages(pages), self._page_bytes), self._clauses)
            self.spilled_bytes += merge.spilled_bytes

    @contextmanager
    def _connected(
        self, file: FileFeed | None = None, *, is_merged: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = self._connect(file, is_merged=is_merged)
        with self._guard:
            self._running = connection
        try:
            self._look()
            yield connection
        finally:
            with self._guard:
                self._running = None
            connection.close()

    def _look(self) -> None:
        with self._guard:
            if self._is_over:
                raise CancelledError

    def _connect(self, file: FileFeed | None = None, *, is_merged: bool = False) -> duckdb.DuckDBPyConnection:
        whole_bytes = self._whole_bytes // 2 if is_merged else self._whole_bytes
        memory_bytes = (whole_bytes or MEMORY_LIMIT_BYTES) + int(4 * self.grows * self._page_bytes)
        options = self._options
        return open_engine(
            memory_bytes=memory_bytes + (0 if file is None else file.memory_bytes),
            threads=self._threads,
            spill=options.spill,
            allow=None if file is None else file.allow,
        )

    def _results(
        self, connection: duckdb.DuckDBPyConnection, feed: _Feed | FileFeed, clauses: Sequence[Clause]
    ) -> Iterator[Page]:
        feed.register(connection)
        found = self._grouped.bound.query if self._grouped is not None else None
        bound = found or bind(connection, clauses, feed.schema.names)
        row_bytes = feed.row_bytes * max(1.0, self._growth.row) + self._growth.row_bytes
        rows = max(1, int(self._given_bytes / row_bytes))
        reader = feed.guard(bound, lambda: connection.sql(bound.sql).to_arrow_reader(rows))
        names = given_names(reader.schema.names)
        first = True
        while (batch := feed.guard(bound, lambda: next(reader, None))) is not None:
            if first and self._is_whole:
                self._look_at_disk(connection)
            largest_bytes = max(2 * self._page_bytes, feed.largest_bytes)
            steps = steps_of(self._clauses)
            for piece in pieces(batch, page_bytes=self._given_bytes, row_bytes=largest_bytes, steps=steps):
                yield self._page(piece.rename_columns(names), feed, first=first)
                first = False
        if first or feed.rejects:
            empty = pa.RecordBatch.from_pylist([], schema=reader.schema)
            yield self._page(empty.rename_columns(names), feed, first=first)

    def _page(self, batch: pa.RecordBatch, feed: _Feed | FileFeed, *, first: bool) -> Page:
        return query_page(batch, page_bytes=self._given_bytes, first=first, rejects=feed.take_rejects())

    def _look_at_disk(self, connection: duckdb.DuckDBPyConnection) -> None:
        """What there is once the input is over is the most there was, or nearly."""
        with connection.cursor() as other:
            (found,) = other.execute("SELECT sum(size) FROM duckdb_temporary_files()").fetchone() or (0,)
        self.spilled_bytes = max(self.spilled_bytes, int(found or 0))


class _Feed:
    """The input as batches for DuckDB. It remembers what DuckDB would forget: why the input ended, and the rejects."""

    def __init__(self, pages: Iterator[Page], page_bytes: int) -> None:
        self._pages = pages
        self._page_bytes = page_bytes
        self._waiting: Page | None = next(pages)
        batch = self._waiting.payload
        self.schema = fed_schema(batch.schema)
        self.row_bytes = max(1.0, batch.nbytes / batch.num_rows if batch.num_rows else 8 * len(self.schema))
        self.largest_bytes = 0
        self.rows = 0
        self.rejects: list[Reject] = []
        self._failure: BaseException | None = None

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make it the relation ``input``."""
        connection.register("input", pa.RecordBatchReader.from_batches(self.schema, self._batches()))

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, in batches of two pages at most. DuckDB calls it, from whatever thread it likes."""
        try:
            while self._waiting is not None:
                batch, rejects, self._waiting = self._waiting.payload, self._waiting.rejects, None
                self.rejects += rejects
                self.largest_bytes = max(self.largest_bytes, batch.nbytes)
                self.rows += batch.num_rows
                yield from self._fitting(batch)
                del batch
                self._waiting = next(self._pages, None)
        except GeneratorExit:
            raise
        except BaseException as failure:
            self._failure = failure
            raise

    def guard(self, bound: Bound, call: Callable[[], T]) -> T:
        """The result of ``call`` into DuckDB. If it fails because the input did, what the input raised comes out."""
        try:
            return call()
        except Exception as error:
            where = f"among the first {self.rows:,} rows that came to this step"
            trouble = self._failure or bound.failure(error, where)
        raise trouble

    def take_rejects(self) -> tuple[Reject, ...]:
        """The rejects of all pages since the last call."""
        rejects, self.rejects = tuple(self.rejects), []
        return rejects

    def _fitting(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        batch = fitted(batch, self.schema)
        rows = batch.num_rows
        step = rows if batch.nbytes <= 2 * self._page_bytes else max(1, rows * self._page_bytes // batch.nbytes)
        for start in range(0, rows, max(1, step)):
            yield batch.slice(start, step)
