"""SQL steps that look at one row at a time, on the worker threads, page by page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from app.core.page import Page
from app.framing.batches import empty_batch
from app.stages.sql_binding import Bound, bind
from app.stages.sql_clause import Clause, steps_of
from app.stages.sql_engine import INSTANCE_BYTES, MEMORY_LIMIT_BYTES, binder, open_engine
from app.stages.sql_formula import Unfit
from app.stages.sql_growth import growth
from app.stages.sql_pages import fitted, pieces, query_page
from app.stages.sql_program import Program, may_be_program, row_program
from app.stages.sql_text import parse
from app.stages.sql_types import fed_schema, given_names


def is_row_query(clauses: Sequence[tuple[str, str]]) -> bool:
    """``RowQuery`` can do them, and for most tables without DuckDB."""
    return all(kind in ("where", "select", "derive") and may_be_program(parse(kind, text)) for kind, text in clauses)


class RowQuery:
    """``clauses``, pairs of ``where``, ``select`` or ``derive`` and their texts, over each page by itself.

    What it gives and what it raises is what ``Query`` does. DuckDB says what each column is before the first page, and
    computes the pages for which there are no formulas, or in which one fails: one after the other, at 3 ms each.
    """

    name = "sql"
    stateless = True

    def __init__(self, clauses: Sequence[tuple[str, str]], *, page_bytes: int) -> None:
        self._clauses = [parse(kind, text) for kind, text in clauses]
        self._growth = growth(self._clauses)
        self._page_bytes = page_bytes
        # Beside what is made of a row: the columns that a filter has left of it.
        self.grows = max(1.0, self._growth.row) + self._growth.work + 1.0
        self.holds = INSTANCE_BYTES
        self._bound: _BoundRows | None = None
        self._binding = threading.Lock()

    def feed(self, page: Page) -> Iterator[Page]:
        """What the rows of ``page`` become; an empty page if none is left."""
        bound = self._bound_to(page.payload.schema)
        batch = fitted(page.payload, bound.fed)
        made = bound.by_formulas(batch)
        if made is None:
            with self._binding:
                made = bound.by_duckdb(batch, self.grows * self._page_bytes)
        first, rejects = page.first, page.rejects
        parts = pieces(made, page_bytes=self._page_bytes, row_bytes=batch.nbytes, steps=steps_of(self._clauses))
        for piece in parts:
            yield query_page(piece, first=first, rejects=rejects)
            first, rejects = False, ()
        if not made.num_rows:
            yield query_page(made, first=first, rejects=rejects)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _bound_to(self, schema: pa.Schema) -> _BoundRows:
        with self._binding:
            if self._bound is None:
                self._bound = _BoundRows.of(self._clauses, fed_schema(schema))
            return self._bound


@dataclass(slots=True)
class _BoundRows:
    """Clauses over rows of ``fed``, which become rows of ``schema``: as a query, and as formulas, if there are any."""

    fed: pa.Schema
    schema: pa.Schema
    query: Bound
    program: Program | None
    _connection: duckdb.DuckDBPyConnection | None = None

    @staticmethod
    def of(clauses: Sequence[Clause], fed: pa.Schema) -> _BoundRows:
        """Raises ``bad_sql`` where a clause does not fit."""
        with binder(fed) as connection:
            query = bind(connection, clauses, fed.names)
            schema = connection.sql(query.sql).to_arrow_reader(1).schema
        program: Program | None
        try:
            program, made = row_program(clauses, fed)
        except Unfit:
            program = None
        else:
            program = program if made.types == schema.types else None
        schema = pa.schema([field.with_name(n) for field, n in zip(schema, given_names(schema.names), strict=True)])
        return _BoundRows(fed, schema, query, program)

    def by_formulas(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        """The rows that ``batch`` becomes; None if that is for DuckDB to say."""
        if self.program is None:
            return None
        try:
            columns, _ = self.program.run(batch)
        except pa.ArrowException:
            return None
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def by_duckdb(self, batch: pa.RecordBatch, work_bytes: float) -> pa.RecordBatch:
        """The same, by a query over ``batch`` alone. One thread at a time."""
        if self._connection is None:
            self._connection = open_engine(memory_bytes=MEMORY_LIMIT_BYTES + int(4 * work_bytes))
        self._connection.register("input", batch)
        try:
            reader = self._connection.sql(self.query.sql).to_arrow_reader(max(1, batch.num_rows))
            batches = [made for made in reader if made.num_rows]
        except Exception as error:
            trouble = self.query.failure(error, f"in a page of {batch.num_rows:,} rows")
        else:
            self._connection.unregister("input")
            table = pa.Table.from_batches(batches, reader.schema).rename_columns(self.schema.names).combine_chunks()
            return next(iter(table.to_batches()), empty_batch(self.schema))
        raise trouble
