"""The SQL steps on rows, from ``where`` to ``aggregate`` and ``sql``: neighbours run as one streaming DuckDB query."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import duckdb
import pyarrow as pa

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.core.units import as_size
from app.stages.sql_binding import Bound, bind
from app.stages.sql_growth import growth
from app.stages.sql_parser import open_parser
from app.stages.sql_text import SQL_STEPS, parse
from app.stages.sql_types import fed_schema, given_names

T = TypeVar("T")

_INSTANCE_BYTES = 6 * 1024 * 1024
_MEMORY_LIMIT_BYTES = 64 * 1024 * 1024
_BESIDE_LIMIT_BYTES = 40 * 1024 * 1024
"""What a query that remembers rows takes beside its memory limit (30 to 45 MiB over runs of up to 50 million groups)."""
_LEAST_WHOLE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """``threads``: 1 runs everything on the thread that iterates ``run``. From 2 on DuckDB's own threads help where rows
    go one by one; then they too take pages from the input, one at a time, perhaps while the caller is busy with the
    output. ``whole_bytes``: the memory of a query that has to see the whole input; what is beyond goes to
    ``temp_directory``, up to ``spill_bytes``.
    """

    page_bytes: int
    threads: int
    whole_bytes: int
    temp_directory: str
    spill_bytes: int

    def of_pages(self, page_bytes: int) -> QueryOptions:
        """These with other pages."""
        return replace(self, page_bytes=page_bytes)


def check(clause: str, text: str) -> None:
    """Refuse with ``bad_sql`` unless ``text`` is one SQL condition ("where") or select list ("select", "derive").

    Or what to aggregate ("aggregate"), columns ("distinct"), or a SELECT ("sql"). Nothing passes but the input's columns
    and functions that are in ``sql_functions``. ``position`` of the refusal counts characters of ``text``. It needs no
    data: whether the columns exist and their types fit is known with the first page.
    """
    growth((parse(clause, text),))


def is_whole(clause: str, text: str) -> bool:
    """Whether a step that ``check`` let pass has to see all of the input before it gives anything."""
    return clause in SQL_STEPS and parse(clause, text).is_whole


def warm_up() -> None:
    """Open what the process shares and run one small query: 40 MiB and 0.2 s that no run has to pay for."""
    open_parser()
    batch = pa.RecordBatch.from_pydict({"a": [1, 2]})
    query = Query((("where", "a > 1"),), QueryOptions(64 * 1024, 1, 0, "", 0))
    list(query.run(iter((Page(batch, batch.nbytes, rows=2, first=True),))))


class Query:
    """``clauses``, pairs of a step's name and its text, as one query over the stream. Checks them as ``check`` does; a
    ``sql`` can only be the first.

    Rows keep their order. ``where`` keeps rows, ``select`` gives its list, ``derive`` all columns and its list;
    ``distinct`` the first row of each key; ``aggregate`` a row for each group, in the order of the keys. All is computed
    in the order of the input, so that sums of floats are the same however it came. Raises ``bad_sql``, before any
    output, where a column is missing, a type does not fit or a name is given twice; ``bad_computation`` where a value
    cannot be computed; ``page_too_large`` where a row outgrows two pages; ``state_too_large`` and ``spool_full`` where
    what has to be remembered outgrows memory or disk.

    ``spilled_bytes`` is the most that stood on disk.
    """

    name = "sql"

    def __init__(self, clauses: Sequence[tuple[str, str]], options: QueryOptions) -> None:
        self._clauses = [parse(kind, text) for kind, text in clauses]
        self._growth = growth(self._clauses)
        self._page_bytes = options.page_bytes
        self._options = options
        self._is_whole = any(clause.is_whole for clause in self._clauses)
        # A LIMIT may end it before the input does, and no thread must be waiting for the input then.
        is_query = any(clause.kind == "sql" for clause in self._clauses)
        self._threads = 1 if self._is_whole or is_query else options.threads
        self.grows = max(1.0, self._growth.row) + self._growth.work
        self.holds = _INSTANCE_BYTES + 4 * max(2, self._threads) * self._page_bytes
        self.spilled_bytes = 0
        self._guard = threading.Lock()
        self._running: duckdb.DuckDBPyConnection | None = None
        self._whole_bytes = options.whole_bytes if self._is_whole else 0
        if self._is_whole:
            self.holds += self._whole_bytes + _BESIDE_LIMIT_BYTES

    def spare(self, nbytes: int) -> None:
        """Hold so much less of what the whole input needs, down to what DuckDB cannot do without."""
        spared = min(nbytes, self.spare_bytes)
        self._whole_bytes -= spared
        self.holds -= spared

    @property
    def spare_bytes(self) -> int:
        """See ``Modest``."""
        return max(0, self._whole_bytes - _LEAST_WHOLE_BYTES)

    def interrupt(self) -> None:
        """See ``Interruptible``. A thread that waits for its input is woken by that."""
        with self._guard:
            if self._running is not None:
                self._running.interrupt()

    def run(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The output for the whole stream. What ``pages`` raises comes out as it is."""
        feed = _Feed(pages, self._page_bytes)
        connection = self._connect()
        with self._guard:
            self._running = connection
        try:
            yield from self._results(connection, feed)
        finally:
            with self._guard:
                self._running = None
            connection.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """An instance of its own, closed to everything but the rows that it is given."""
        # For one thread DuckDB gets two, both of them "external": it starts none, and the caller's does all the work.
        # Told of one, it would gather the rows of a selective filter until they are 2,048, and those of a batch until
        # they are as many as asked for, over any number of pages and however large rows are. Told of two it never
        # gathers over more than one batch of the input.
        memory_bytes = self._whole_bytes or _MEMORY_LIMIT_BYTES
        memory_bytes += int(4 * self.grows * self._page_bytes)
        options = self._options
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{memory_bytes}B",
                "threads": str(max(2, self._threads)),
                "external_threads": "2" if self._threads == 1 else "1",
                "async_threads": "0",
                "preserve_insertion_order": "true",
                "temp_directory": options.temp_directory,
                "allow_persistent_secrets": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",
                "errors_as_json": "true",
                "arrow_output_version": "1.0",
                "arrow_large_buffer_size": "false",
            },
        )
        # Whatever is ready is handed over before more is made.
        connection.execute("SET streaming_buffer_size = '1B'")
        if options.temp_directory:
            connection.execute(f"SET max_temp_directory_size = '{options.spill_bytes}B'")
        connection.execute("SET TimeZone = 'UTC'")
        # Not in the configuration above, because there it may come before temp_directory and forbid it.
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def _results(self, connection: duckdb.DuckDBPyConnection, feed: _Feed) -> Iterator[Page]:
        connection.register("input", pa.RecordBatchReader.from_batches(feed.schema, feed.batches()))
        bound = bind(connection, self._clauses, feed.schema.names)
        row_bytes = feed.row_bytes * max(1.0, self._growth.row) + self._growth.row_bytes
        rows = max(1, int(self._page_bytes / row_bytes))
        reader = feed.guard(bound, lambda: connection.sql(bound.sql).to_arrow_reader(rows))
        names = given_names(reader.schema.names)
        first = True
        while (batch := feed.guard(bound, lambda: next(reader, None))) is not None:
            if first and self._is_whole:
                self._look_at_disk(connection)
            for piece in self._pieces(batch, feed.largest_bytes):
                yield _page(piece.rename_columns(names), first, feed.take_rejects())
                first = False
        if first or feed.rejects:
            empty = pa.RecordBatch.from_pylist([], schema=reader.schema)
            yield _page(empty.rename_columns(names), first, feed.take_rejects())

    def _look_at_disk(self, connection: duckdb.DuckDBPyConnection) -> None:
        """What there is once the input is over is the most there was, or nearly."""
        with connection.cursor() as other:
            (found,) = other.execute("SELECT sum(size) FROM duckdb_temporary_files()").fetchone() or (0,)
        self.spilled_bytes = max(self.spilled_bytes, int(found or 0))

    def _pieces(self, batch: pa.RecordBatch, largest_bytes: int) -> Iterator[pa.RecordBatch]:
        """``batch`` in slices of two pages at most, none if it has no row."""
        most_bytes, rows = 2 * self._page_bytes, batch.num_rows
        if rows == 1 and batch.nbytes > max(most_bytes, largest_bytes):
            steps = "/".join(dict.fromkeys(clause.kind for clause in self._clauses))
            detail = f"{steps}: one row becomes {as_size(batch.nbytes)}, the most is {as_size(most_bytes)}, two pages"
            raise Refusal("page_too_large", detail)
        if batch.nbytes <= most_bytes or rows == 1:
            yield from (batch,) if rows else ()
            return
        step = max(1, min(rows // 2, rows * self._page_bytes // batch.nbytes))
        for start in range(0, rows, step):
            yield from self._pieces(batch.slice(start, step), largest_bytes)


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

    def batches(self) -> Iterator[pa.RecordBatch]:
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
            trouble = self._failure or bound.failure(error, self.rows)
        raise trouble

    def take_rejects(self) -> tuple[Reject, ...]:
        """The rejects of all pages since the last call."""
        rejects, self.rejects = tuple(self.rejects), []
        return rejects

    def _fitting(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        if not batch.schema.equals(self.schema):
            arrays = [column.cast(field.type) for column, field in zip(batch.columns, self.schema, strict=True)]
            batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        rows = batch.num_rows
        step = rows if batch.nbytes <= 2 * self._page_bytes else max(1, rows * self._page_bytes // batch.nbytes)
        for start in range(0, rows, max(1, step)):
            yield batch.slice(start, step)


def _page(batch: pa.RecordBatch, first: bool, rejects: tuple[Reject, ...]) -> Page:
    return Page(batch, max(1, batch.nbytes), rows=batch.num_rows, first=first, rejects=rejects)
