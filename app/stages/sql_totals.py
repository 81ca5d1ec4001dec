"""Two of the three parts of a query that groups: what it needs of each row, and totals by group. ``Query`` does the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.core.page import Page
from app.framing.batches import empty_batch, table_page
from app.framing.parquet_scan import FileScan
from app.stages.groups import Groups, Kind, Total, supported
from app.stages.groups_merge import GroupMerge, mergeable
from app.stages.sql_binding import Bound, Piece, bind, plain
from app.stages.sql_bound_rows import BoundRows
from app.stages.sql_engine import QueryOptions, shared_engine
from app.stages.sql_formula import Formula, Unfit, applied, column, condition, formula
from app.stages.sql_growth import growth
from app.stages.sql_levels import ARGUMENT, KEY, TOTAL, Levels
from app.stages.sql_pages import fitted, query_pages
from app.stages.sql_program import Program
from app.stages.sql_steps import Filter, Projection, Step
from app.stages.sql_types import fed_schema

GROUPS_BYTES = 2 * 1024 * 1024
_FEW_ROWS = 4
"""Where a group has fewer rows than this, to group them first is work for nothing."""


class Grouped:
    """What the parts of one query know of it. Once the first page has come it is ``bound``; where its types are such that
    it cannot be taken apart, and where ``Query`` may read a file itself, there are no ``rows``, and the input goes to it as
    it is."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self._binding = threading.Lock()
        self._bound: _Bound | None = None

    def bound_to(self, page: Page) -> _Bound:
        """With the columns of the input. Raises ``bad_sql``."""
        with self._binding:
            if self._bound is None:
                is_file = isinstance(page.payload, FileScan)
                self._bound = _Bound() if is_file else _bound(self.levels, fed_schema(page.payload.schema))
            return self._bound

    @property
    def bound(self) -> _Bound:
        """What ``bound_to`` has found."""
        assert self._bound is not None
        return self._bound

    def merge(self, options: QueryOptions, memory_bytes: int, look: Callable[[], None]) -> GroupMerge | None:
        """What makes single groups of totals, where ``query`` is over these."""
        if not self.bound.is_merged:
            return None
        return GroupMerge(
            self.bound.totals_schema,
            self.bound.totals,
            memory_bytes=memory_bytes,
            spill=options.spill,
            look=look,
        )


@dataclass(slots=True)
class _Bound:
    rows: BoundRows | None = None
    keys: list[pa.DataType] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)
    arguments: list[int | None] = field(default_factory=list)
    """For each of the totals the column of ``rows``."""
    query: Bound | None = None
    is_merged: bool = False
    """``query`` is over groups that come once each; otherwise it adds them up itself."""

    @property
    def totals_schema(self) -> pa.Schema:
        keys = [pa.field(f"{KEY}{i}", type_) for i, type_ in enumerate(self.keys)]
        return pa.schema([*keys, *(pa.field(f"{TOTAL}{i}", one.result_type) for i, one in enumerate(self.totals))])


class GroupColumns:
    """Pages with the keys and arguments of a query, of those rows that it is about."""

    name = "group-columns"
    holds = 0
    stateless = True

    def __init__(self, grouped: Grouped, *, page_bytes: int) -> None:
        self._grouped = grouped
        self._page_bytes = page_bytes
        found = growth([grouped.levels.clause])
        self.grows = max(1.0, found.row) + found.work + 1.0

    def feed(self, page: Page) -> Iterator[Page]:
        """What is needed of the rows of ``page``."""
        rows = self._grouped.bound_to(page).rows
        if rows is None:
            yield page
            return
        made = rows.made_of(fitted(page.payload, rows.fed))
        yield from query_pages(made, page, page_bytes=self._page_bytes, steps=self._grouped.levels.clause.kind)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())


class GroupTotals:
    """Totals by group of such pages, which come once there is no room for more groups, or at the end. Where there are
    nearly as many groups as rows, each row is its own total."""

    name = "group-totals"
    stateless = False
    gathers = True
    grows = 3.0  # totals of as many rows

    def __init__(self, grouped: Grouped, *, page_bytes: int) -> None:
        self._grouped = grouped
        self._page_bytes = page_bytes
        self.holds = 3 * GROUPS_BYTES  # while it grows, and with what is taken out of it
        self._groups: Groups | None = None
        self._rows = 0
        self._are_many = False
        self._is_first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """Nothing, as a rule."""
        bound = self._grouped.bound
        if bound.rows is None:
            yield page
            return
        batch = page.payload
        while batch.num_rows:
            if self._are_many:
                yield from self._pages(_as_totals(batch, bound))
                return
            batch = self._added(batch, bound)
            if batch.num_rows:
                assert self._groups is not None
                self._are_many = self._rows < _FEW_ROWS * len(self._groups)
                yield from self._taken()

    def flush(self) -> Iterator[Page]:
        """All totals."""
        if self._grouped.bound.rows is not None:
            yield from self._taken()
            if self._is_first:
                yield from self._pages(empty_batch(self._grouped.bound.totals_schema))

    def _added(self, batch: pa.RecordBatch, bound: _Bound) -> pa.RecordBatch:
        """Those rows of ``batch`` for which there was no room."""
        if self._groups is None:
            self._groups = Groups(bound.keys, bound.totals, most_bytes=GROUPS_BYTES)
        keys = [batch.column(index) for index in range(len(bound.keys))]
        taken = self._groups.add(keys, [None if i is None else batch.column(i) for i in bound.arguments])
        self._rows += taken
        return batch.slice(taken)

    def _taken(self) -> Iterator[Page]:
        if self._groups is not None and len(self._groups):
            made, self._rows = self._groups.take(), 0
            yield from self._pages(made.rename_columns(self._grouped.bound.totals_schema.names))

    def _pages(self, batch: pa.RecordBatch) -> Iterator[Page]:
        step = max(1, batch.num_rows * self._page_bytes // max(1, batch.nbytes))
        for start in range(0, max(1, batch.num_rows), step):
            yield table_page(batch.slice(start, step), first=self._is_first)
            self._is_first = False


def _bound(levels: Levels, fed: pa.Schema) -> _Bound:
    clause = levels.clause
    with shared_engine(empty_batch(fed)) as connection:
        query = bind(connection, [clause], fed.names)
        wanted = connection.sql(query.sql).to_arrow_reader(1).schema
    try:
        made = _taken_apart(levels, fed, wanted)
    except Unfit:
        return _Bound()
    assert made.query is not None
    with shared_engine(empty_batch(made.totals_schema)) as connection:
        made.query = plain(connection, made.query)
        found = connection.sql(made.query.sql).to_arrow_reader(1).schema
    return made if found.equals(wanted) else _Bound()


def _taken_apart(levels: Levels, fed: pa.Schema, wanted: pa.Schema) -> _Bound:
    """Raises ``Unfit``."""
    keys = [formula(node, fed, {}) for node in levels.keys]
    arguments = [formula(node, fed, {}) for node in levels.arguments]
    for one in keys:
        if not supported("key", one.type) or pt.is_floating(one.type):
            raise Unfit
    totals = [
        Total(kind, pa.null()) if index is None else _total(kind, arguments[index].type)
        for kind, index in levels.totals
    ]
    made: list[Formula | None] = [*keys, *arguments]
    names = [*(f"{KEY}{i}" for i in range(len(keys))), *(f"{ARGUMENT}{i}" for i in range(len(arguments)))]
    places = [None if index is None else len(keys) + index for _, index in levels.totals]
    if not made and len(fed):  # rows are to be counted, and a column has to carry them
        made = [applied("nulls", pa.null(), column(0, fed.field(0).type))]
        names, places = [f"{ARGUMENT}0"], [0]
    schema = pa.schema([pa.field(name, one.type) for name, one in zip(names, made, strict=True) if one])
    steps: list[Step] = [Filter(condition(node, fed)) for node in levels.conditions]
    piece = Piece(levels.clause, 0, "", 0)
    rows = BoundRows(fed, schema, Bound(levels.row_query(), (piece,)), Program([*steps, Projection(made)], fed))
    types = [one.type for one in keys]
    is_merged = mergeable(types)
    query = levels.total_query(wanted.names, lambda index: pt.is_integer(arguments[index].type), merged=is_merged)
    return _Bound(rows, types, totals, places, Bound(query, (piece,)), is_merged)


def _total(kind: Kind, type_: pa.DataType) -> Total:
    is_number = pt.is_signed_integer(type_) or pt.is_float64(type_)
    if kind == "sum" and not (is_number or pt.is_decimal128(type_)):
        raise Unfit
    if not supported(kind, type_):
        raise Unfit
    return Total(kind, type_, wide=True)


def _as_totals(batch: pa.RecordBatch, bound: _Bound) -> pa.RecordBatch:
    """Each row of ``batch`` as a group."""
    columns = [batch.column(index) for index in range(len(bound.keys))]
    for total, index in zip(bound.totals, bound.arguments, strict=True):
        if index is None:
            columns.append(pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows))
        elif total.kind == "valid":
            columns.append(pc.cast(pc.is_valid(batch.column(index)), pa.int64()))
        else:
            columns.append(batch.column(index).cast(total.result_type))
    return pa.RecordBatch.from_arrays(columns, schema=bound.totals_schema)
