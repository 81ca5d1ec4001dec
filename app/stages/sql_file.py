"""A file as the relation ``input`` of a query, in the place of batches: DuckDB reads it by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

import duckdb

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.framing.parquet_scan import FileScan
from app.stages.sql_binding import Bound, reason_of
from app.stages.sql_types import fed_schema, quoted

T = TypeVar("T")

_FENCE = "LIMIT 9223372036854775807"
"""Nothing is pushed down into the file through it, and rows come in order, on one thread. What a file tells of its values
would mislead: DuckDB takes NaN for the largest number, and a file's bounds leave it out."""
_ROOM_OF_ITS_OWN = frozenset(("state_too_large", "spool_full", "page_too_large"))


class FileFeed:
    """See ``FileScan``; within its scope the file is open. ``pages`` are those behind the one that brought it."""

    largest_bytes = 0

    def __init__(self, scan: FileScan, pages: Iterator[Page]) -> None:
        self.schema = fed_schema(scan.schema)
        self.row_bytes = scan.row_bytes
        self.rows = scan.rows
        self.rejects: list[Reject] = []
        self.memory_bytes = scan.memory_bytes
        self._scan = scan
        self._pages = pages
        self._fd = -1

    def __enter__(self) -> FileFeed:
        self._fd = os.open(self._scan.path, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scan.over.set()
        os.close(self._fd)

    def allow(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let ``connection`` read this file, when all others are forbidden. It reads what it needs when it needs it."""
        connection.execute("LOAD parquet")  # it is built in
        connection.execute("SET disable_parquet_prefetching = true")
        connection.execute("SET enable_external_file_cache = false")
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.execute(f"SET allowed_paths = ['{self._path}']")

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make it the relation ``input``."""
        columns = ", ".join(quoted(name) for name in self.schema.names)
        scan = self._scan
        rows = ""
        if scan.rows < scan.all_rows:
            rows = f"WHERE file_row_number >= {scan.first_row} AND file_row_number < {scan.first_row + scan.rows}"
        read = f"read_parquet('{self._path}', hive_partitioning = false)"
        try:
            connection.execute(f"CREATE TEMP VIEW input AS SELECT {columns} FROM {read} {rows} {_FENCE}")
        except duckdb.Error as error:
            reason = reason_of(error)
        else:
            return
        self._look_again()
        raise self._damaged(reason)

    def guard(self, bound: Bound, call: Callable[[], T]) -> T:
        """The result of ``call`` into DuckDB. If it fails and the file is to blame, what its reader raises comes out."""
        try:
            return call()
        except Exception as error:
            trouble, reason = bound.failure(error, f"among the {self.rows:,} rows of the file"), reason_of(error)
        if trouble.code not in _ROOM_OF_ITS_OWN and trouble.position is None:
            self._look_again()
            if self._path in reason or "parquet" in reason.lower():
                raise self._damaged(reason)
        raise trouble

    def take_rejects(self) -> tuple[Reject, ...]:
        """None: a row of such a file is whole, or the file is damaged."""
        return ()

    def _look_again(self) -> None:
        """Have the file read as any other is; raises what is wrong with it."""
        self._scan.doubted = True
        self._scan.over.set()
        for _ in self._pages:
            pass

    def _damaged(self, reason: str) -> Refusal:
        """Arrow has nothing against the file, but DuckDB has."""
        return Refusal("corrupt_input", f"the Parquet file cannot be decoded: {reason.replace(self._path, 'input')}")

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self._fd}"
