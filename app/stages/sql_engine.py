"""DuckDB, closed to everything but the rows that it is given."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from app.core.interfaces import Spill

INSTANCE_BYTES = 6 * 1024 * 1024
"""What an instance takes beside what it does."""
MEMORY_LIMIT_BYTES = 64 * 1024 * 1024

_shared: duckdb.DuckDBPyConnection | None = None
_sharing = threading.Lock()


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """``threads``: 1 runs everything on the thread that iterates ``run``. From 2 on DuckDB's own threads help where rows
    go one by one; then they too take pages from the input, one at a time, perhaps while the caller is busy with the
    output. ``whole_bytes``: the memory of a query that has to see the whole input; what is beyond goes to ``spill``, if
    there is one. It is made smaller, down to ``least_bytes``, where pages can be larger then.
    """

    page_bytes: int
    threads: int
    whole_bytes: int
    spill: Spill | None = None
    least_bytes: int = 0

    def of_pages(self, page_bytes: int) -> QueryOptions:
        """These with other pages."""
        return replace(self, page_bytes=page_bytes)


def open_engine(
    *,
    memory_bytes: int,
    threads: int = 1,
    spill: Spill | None = None,
    allow: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> duckdb.DuckDBPyConnection:
    """An instance of its own, which takes 30 ms. ``allow`` is called before everything outside is forbidden for good."""
    # For one thread DuckDB gets two, both of them "external": it starts none, and the caller's does all the work. Told of
    # one, it would gather the rows of a selective filter until they are 2,048, and those of a batch until they are as many
    # as asked for, over any number of pages and however large rows are. Told of two it never gathers over more than one
    # batch of the input.
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{memory_bytes}B",
            "threads": str(max(2, threads)),
            "external_threads": "2" if threads == 1 else "1",
            "async_threads": "0",
            "preserve_insertion_order": "true",
            "temp_directory": "" if spill is None else str(spill.directory),
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
    if spill is not None:
        connection.execute(f"SET max_temp_directory_size = '{spill.limit_bytes}B'")
    connection.execute("SET TimeZone = 'UTC'")
    if allow is not None:
        allow(connection)
    # Not in the configuration above, because there it may come before temp_directory and forbid it.
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def shared_engine(rows: pa.RecordBatch) -> Iterator[duckdb.DuckDBPyConnection]:
    """An instance whose ``input`` are these few ``rows``: to try queries on, or for a page. The process has one, which opens
    with the first call; others wait until it is free."""
    global _shared
    with _sharing:
        if _shared is None:
            _shared = open_engine(memory_bytes=MEMORY_LIMIT_BYTES)
            atexit.register(_shared.close)
        _shared.register("input", rows)
        try:
            yield _shared
        finally:
            _shared.unregister("input")
