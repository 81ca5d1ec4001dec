"""SQL steps that look at one row at a time, on the worker threads, page by page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa

from app.core.page import Page
from app.framing.batches import empty_batch
from app.stages.sql_binding import bind
from app.stages.sql_bound_rows import BoundRows
from app.stages.sql_clause import Clause, steps_of
from app.stages.sql_engine import shared_engine
from app.stages.sql_formula import Unfit
from app.stages.sql_growth import growth
from app.stages.sql_pages import fitted, query_pages
from app.stages.sql_program import Program, may_be_program, row_program
from app.stages.sql_text import parse
from app.stages.sql_types import fed_schema, given_names


def is_row_query(clauses: Sequence[tuple[str, str]]) -> bool:
    """``RowQuery`` can do them, and for most tables without DuckDB."""
    return all(may_be_program(parse(kind, text)) for kind, text in clauses)


class RowQuery:
    """``clauses``, pairs of ``where``, ``select`` or ``derive`` and their texts, over each page by itself.

    What it gives and what it raises is what ``Query`` does. DuckDB says what each column is before the first page, and
    computes the pages for which there are no formulas, or in which one fails: one after the other, at 3 ms each.
    """

    name = "sql"
    holds = 0
    stateless = True

    def __init__(self, clauses: Sequence[tuple[str, str]], *, page_bytes: int) -> None:
        self._clauses = [parse(kind, text) for kind, text in clauses]
        self._growth = growth(self._clauses)
        self._page_bytes = page_bytes
        # Beside what is made of a row: the columns that a filter has left of it.
        self.grows = max(1.0, self._growth.row) + self._growth.work + 1.0
        self._bound: BoundRows | None = None
        self._binding = threading.Lock()

    def feed(self, page: Page) -> Iterator[Page]:
        """What the rows of ``page`` become; an empty page if none is left. What is no rows goes on to a ``Query``."""
        if not isinstance(page.payload, pa.RecordBatch):
            yield page
            return
        bound = self._bound_to(page.payload.schema)
        made = bound.made_of(fitted(page.payload, bound.fed))
        steps = steps_of(self._clauses)
        yield from query_pages(made, page, page_bytes=self._page_bytes, steps=steps, rejects=page.rejects)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _bound_to(self, schema: pa.Schema) -> BoundRows:
        with self._binding:
            if self._bound is None:
                self._bound = _bound(self._clauses, fed_schema(schema))
            return self._bound


def _bound(clauses: Sequence[Clause], fed: pa.Schema) -> BoundRows:
    """Raises ``bad_sql`` where a clause does not fit."""
    with shared_engine(empty_batch(fed)) as connection:
        query = bind(connection, clauses, fed.names)
        schema = connection.sql(query.sql).to_arrow_reader(1).schema
    program: Program | None
    try:
        program, made = row_program(clauses, fed)
    except Unfit:
        program = None
    else:
        program = program if made.types == schema.types else None
    names = given_names(schema.names)
    schema = pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])
    return BoundRows(fed, schema, query, program)
