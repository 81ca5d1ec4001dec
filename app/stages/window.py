"""Event-time windows over the stream, tumbling or sliding: each is given as soon as the watermark has passed its end.

As in "The Dataflow Model" (T. Akidau et al., VLDB 2015): the watermark is the latest event time seen, less the allowed
lateness; a window is given once, when the watermark reaches its end, and what comes for it later is late. Rows are added
up by panes, the stretches that all windows have in common ("No pane, no gain", J. Li et al., SIGMOD Record 2005).

Nothing depends on how the stream is cut into pages. A row is late by the rows before it, not by its page; and totals are
put before a page's rows as rows of their own, so that a sum of floats is always the same chain of additions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.core.errors import Refusal, known
from app.core.page import Page, Reject
from app.core.units import as_size
from app.framing.json_text import rows_text
from app.framing.needs import field_called, folded
from app.stages.window_text import Aggregate, Function, Windows

_STATE_BYTES = 8 * 1024 * 1024
_REJECTED_ROWS = 256
_TEXT_CHARACTERS = 1000
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_PANE, _FROM, _ROW = "\ue003", "\ue004", "\ue005"
"""Columns of the state, by private characters: where a pane begins; the first window that its rows count for."""


@dataclass(frozen=True, slots=True)
class _Total:
    """A running total of a ``column``: ``rows`` (of no column), those that are ``valid``, or what the kind is called; and
    the type it is kept in."""

    name: str
    kind: str
    column: int | None
    type: pa.DataType

    @property
    def combine(self) -> str:
        """What makes one of two."""
        return "sum" if self.kind in ("rows", "valid") else self.kind


class Window:
    """Rows to windows, in the order in which they end, and of their groups.

    The result has ``window_start`` and ``window_end``, the columns of ``by``, and the aggregates. Sums of whole numbers
    are int64, those of decimals have 38 digits; averages are floats. Rows that came after all of their windows were given
    (``late_row``), and those without a time (``bad_value``), are left out; ``rejected`` counts them, and ``keep`` gets
    them as rejects, whose place is not known any more: line 0. Raises ``bad_argument`` for a column
    that is not there or of another type, ``state_too_large`` where open windows have more groups than there is room for,
    ``bad_computation`` for a sum beyond int64.
    """

    name = "window"
    stateless = False
    # The keys and values of a page beside it, and both once more as they are grouped.
    grows = 6.0

    def __init__(
        self, asked: Windows, *, page_bytes: int, keep: Callable[[Sequence[Reject]], None] | None = None
    ) -> None:
        self._asked = asked
        self._page_bytes = page_bytes
        self._keep = keep
        self.rejected: Counter[str] = Counter()
        # The state, as it was and as it becomes, with the windows that are made of it.
        self.holds = 4 * _STATE_BYTES
        self._bound: _Bound | None = None
        self._state: pa.Table | None = None
        self._latest: int | None = None
        self._given: int | None = None
        self._first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The windows that end by this page; an empty page if it is the first and none does."""
        if self._bound is None:
            self._bound = _Bound(self._asked, page.payload.schema)
            self._state = self._bound.nothing
        if page.rows:
            self._add(page.payload)
        if self._latest is not None:
            yield from self._windows(self._latest - self._bound.late)
        if self._first:
            yield self._page(pa.RecordBatch.from_pylist([], schema=self._bound.schema))

    def flush(self) -> Iterator[Page]:
        """All windows that are still open."""
        if self._bound is not None and self._latest is not None:
            yield from self._windows(self._latest + self._bound.every + 1)

    def _add(self, batch: pa.RecordBatch) -> None:
        assert self._bound is not None
        bound = self._bound
        times = bound.times(batch)
        if times.null_count:
            self._reject("bad_value", f"{self._asked.on} is null", batch.filter(times.is_null()))
            batch, times = batch.filter(times.is_valid()), times.drop_null()
            if not len(times):
                return
        # The latest time before each row, and with it the first window that is still open then.
        latest = pc.cumulative_max(times)
        before = pa.concat_arrays([pa.array([self._latest], pa.int64()), latest.slice(0, len(latest) - 1)])
        if self._latest is not None:
            before = pc.max_element_wise(before, self._latest)
        last = bound.floored(times, bound.slide)
        natural = bound.first_window(times)
        is_open = pc.fill_null(bound.first_window(pc.subtract(before, bound.late), closed=True), natural)
        counted = pc.max_element_wise(natural, is_open)
        on_time = pc.less_equal(counted, last)
        self._latest = max(latest[-1].as_py(), self._latest if self._latest is not None else latest[-1].as_py())
        if on_time.false_count:
            self._reject("late_row", "it came after all of its windows were given", batch.filter(pc.invert(on_time)))
            batch, times, counted = batch.filter(on_time), times.filter(on_time), counted.filter(on_time)
        if len(times):
            rows = bound.rows(batch, bound.floored(times, bound.pane), counted)
            self._state = bound.grouped(self._state, rows)
            if self._state.nbytes > _STATE_BYTES:
                raise Refusal(
                    "state_too_large",
                    f"window: {self._state.num_rows:,} groups of open windows take {as_size(self._state.nbytes)}, the"
                    f" most is {as_size(_STATE_BYTES)}: group by less, or make windows, lateness or their overlap shorter",
                )

    def _reject(self, code: str, detail: str, rows: pa.RecordBatch) -> None:
        self.rejected[code] += rows.num_rows
        for start in range(0, rows.num_rows if self._keep is not None else 0, _REJECTED_ROWS):
            texts = bytes(rows_text(rows.slice(start, _REJECTED_ROWS))).decode(errors="replace").splitlines()
            assert self._keep is not None
            self._keep([Reject(0, 0, code, detail, text[:_TEXT_CHARACTERS], self._asked.on) for text in texts])

    def _windows(self, watermark: int) -> Iterator[Page]:
        """The windows that end up to ``watermark`` and were not given yet."""
        assert self._bound is not None
        bound, state = self._bound, self._state
        if state is None or not state.num_rows:
            return
        oldest = pc.min(state.column(_PANE)).as_py()
        if bound.first_window_of(oldest) + bound.every > watermark:
            return
        found = bound.windows(state, watermark, self._given)
        self._given = watermark
        is_needed = pc.greater(pc.add(bound.floored(state.column(_PANE), bound.slide), bound.every), watermark)
        self._state = state.filter(is_needed).combine_chunks()
        step = max(1, self._page_bytes * found.num_rows // max(1, found.nbytes))
        for start in range(0, found.num_rows, step):
            yield self._page(found.slice(start, step))

    def _page(self, batch: pa.RecordBatch) -> Page:
        first, self._first = self._first, False
        return Page(batch, max(1, batch.nbytes), batch.num_rows, first=first)


class _Bound:
    """What is asked for, by the columns of the input; times are in units of the time column's type."""

    def __init__(self, asked: Windows, schema: pa.Schema) -> None:
        self._on = _index(asked.on, schema)
        type_ = schema.field(self._on).type
        if pt.is_date(type_):
            type_ = pa.timestamp("s")
        elif not pt.is_timestamp(type_):
            hint = f"derive=make_timestamp_ms({asked.on}) as {asked.on}_time (or to_timestamp for seconds) makes one"
            raise Refusal("bad_argument", f"window: {asked.on!r} is {type_} and not a time; {hint}", column=asked.on)
        self._time = type_
        self.every = _units(asked.every_s, type_.unit, "every")
        self.slide = _units(asked.slide_s, type_.unit, "slide")
        self.late = _units(asked.late_s, type_.unit, "late")
        self.pane = math.gcd(self.every, self.slide)
        self._by = [_index(name, schema) for name in asked.by]
        self._by_fields = [pa.field(f"k{i}", schema.field(index).type) for i, index in enumerate(self._by)]
        for index in self._by:
            if pt.is_nested(schema.field(index).type):
                raise Refusal("bad_argument", f"window: {schema.field(index).name!r} is nested and cannot be a group")
        self._keys = [_PANE, _FROM, *(field.name for field in self._by_fields)]
        self._aggregates = asked.aggregates
        self._totals: list[_Total] = []
        self._made: list[tuple[Aggregate, list[_Total]]] = []
        for aggregate in asked.aggregates:
            column = None if aggregate.column is None else _index(aggregate.column, schema)
            self._made.append((aggregate, [self._total(*one) for one in _totals(aggregate, column, schema)]))
        fields = [pa.field(_PANE, pa.int64()), pa.field(_FROM, pa.int64()), *self._by_fields]
        self._state_schema = pa.schema([*fields, *(pa.field(total.name, total.type) for total in self._totals)])
        self.nothing = self._state_schema.empty_table()
        times = [pa.field("window_start", type_), pa.field("window_end", type_)]
        groups = [schema.field(index).with_nullable(True) for index in self._by]
        results = [pa.field(one.name, _result_type(one.function, totals)) for one, totals in self._made]
        self.schema = pa.schema([*times, *groups, *results])
        seen: set[bytes] = set()
        for name in self.schema.names:
            if folded(name) in seen:
                raise Refusal(
                    "bad_argument", f"window: two columns would be called {name!r}; give one another name by AS"
                )
            seen.add(folded(name))

    def _total(self, kind: str, column: int | None, type_: pa.DataType) -> _Total:
        for total in self._totals:
            if (total.kind, total.column) == (kind, column):
                return total
        self._totals.append(_Total(f"t{len(self._totals)}", kind, column, type_))
        return self._totals[-1]

    def times(self, batch: pa.RecordBatch) -> pa.Array:
        """When each row happened."""
        return batch.column(self._on).cast(self._time).cast(pa.int64())

    def floored(self, times: Any, step: int) -> Any:
        """The greatest multiple of ``step`` up to each time."""
        whole = pc.multiply(pc.divide(times, step), step)
        below = pc.greater(whole, times)  # division cuts towards zero
        return pc.if_else(below, pc.subtract(whole, step), whole) if pc.any(below).as_py() else whole

    def first_window(self, times: pa.Array, *, closed: bool = False) -> pa.Array:
        """The start of the first window that has a time in it; or, by a watermark, that is not closed. They are the same:
        the first that ends behind it."""
        return pc.add(self.floored(pc.subtract(times, self.every), self.slide), self.slide)

    def first_window_of(self, time: int) -> int:
        """``first_window`` of one time."""
        return (time - self.every) // self.slide * self.slide + self.slide

    def rows(self, batch: pa.RecordBatch, panes: pa.Array, counted: pa.Array) -> pa.Table:
        """A page's rows as if each were a group by itself."""
        columns = [panes, counted, *(batch.column(index) for index in self._by)]
        for total in self._totals:
            if total.column is None:
                columns.append(pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows))
            elif total.kind == "valid":
                columns.append(batch.column(total.column).is_valid().cast(pa.int64()))
            else:
                columns.append(batch.column(total.column).cast(total.type))
        return pa.table(columns, schema=self._state_schema)

    def grouped(self, state: Any, rows: pa.Table) -> pa.Table:
        """The groups of both, in the order in which they first came."""
        self._check_sums(state, rows)
        both = pa.concat_tables([state, rows]) if state.num_rows else rows
        return self._combined(both, self._keys)

    def windows(self, state: pa.Table, watermark: int, given: int | None) -> pa.RecordBatch:
        """The windows that end up to ``watermark``, and behind ``given``, sorted."""
        parts = []
        panes, counted = state.column(_PANE), state.column(_FROM)
        last = self.floored(panes, self.slide)
        for number in range(-(-self.every // self.slide)):
            start = pc.subtract(last, number * self.slide)
            end = pc.add(start, self.every)
            mask = pc.and_(pc.greater_equal(start, counted), pc.less_equal(end, watermark))
            mask = pc.and_(mask, pc.greater(end, panes))
            if given is not None:
                mask = pc.and_(mask, pc.greater(end, given))
            parts.append(state.append_column(_ROW, start).filter(mask))
        found = pa.concat_tables(parts)
        order = [(_ROW, "ascending"), (_PANE, "ascending"), (_FROM, "ascending")]
        found = found.take(pc.sort_indices(found, sort_keys=order)).drop_columns([_PANE, _FROM])
        keys = [field.name for field in self._by_fields]
        found = self._combined(found, [_ROW, *keys])
        sort_keys = [(name, "ascending", "at_end") for name in (_ROW, *keys)]
        found = found.take(pc.sort_indices(found, sort_keys=sort_keys)).combine_chunks()
        start = found.column(_ROW)
        columns = [start.cast(self._time), pc.add(start, self.every).cast(self._time)]
        columns += [found.column(name) for name in keys]
        columns += [_result(one.function, [found.column(total.name) for total in totals]) for one, totals in self._made]
        batches = pa.table(columns, schema=self.schema).combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=self.schema)

    def _combined(self, rows: pa.Table, keys: list[str]) -> pa.Table:
        every_row = pc.ScalarAggregateOptions(skip_nulls=False, min_count=0)
        some = pc.ScalarAggregateOptions(skip_nulls=True, min_count=1)
        wanted = [
            (total.name, total.combine, every_row if total.combine in ("first", "last") else some)
            for total in self._totals
        ]
        found = rows.group_by(keys, use_threads=False).aggregate(wanted)
        schema = pa.schema(
            [rows.schema.field(key) for key in keys] + [self._state_schema.field(t.name) for t in self._totals]
        )
        columns = [found.column(key) for key in keys]
        columns += [found.column(f"{t.name}_{t.combine}").cast(t.type) for t in self._totals]
        return pa.table(columns, schema=schema).combine_chunks()

    def _check_sums(self, state: Any, rows: pa.Table) -> None:
        for total in self._totals:
            if total.kind == "sum" and pt.is_int64(total.type):
                most = _most(state.column(total.name)) + _most(rows.column(total.name)) * rows.num_rows
                if most >= 2**63:
                    raise Refusal(
                        "bad_computation", "window: a sum may outgrow int64: derive the column as DOUBLE or DECIMAL"
                    )


def _totals(aggregate: Aggregate, column: int | None, schema: pa.Schema) -> list[tuple[str, int | None, pa.DataType]]:
    """The totals that an aggregate is made of."""
    function = aggregate.function
    if column is None:
        return [("rows", None, pa.int64())]
    if function == "count":
        return [("valid", column, pa.int64())]
    type_ = schema.field(column).type
    if function not in ("sum", "avg"):
        return [(function, column, type_)]
    if not (pt.is_integer(type_) or pt.is_floating(type_) or pt.is_decimal(type_)):
        raise Refusal("bad_argument", f"window: {aggregate.column!r} is {type_}, of which there is no {function}")
    kept = (
        pa.decimal128(38, type_.scale)
        if pt.is_decimal(type_)
        else pa.float64()
        if pt.is_floating(type_)
        else pa.int64()
    )
    total = ("sum", column, kept)
    return [total] if function == "sum" else [total, ("valid", column, pa.int64())]


def _index(name: str, schema: pa.Schema) -> int:
    index = field_called(folded(name), schema)
    if index is None:
        raise Refusal("bad_argument", f"window: there is no column {name!r}; columns are {known(schema.names[:20])}")
    return index


def _units(seconds: float, unit: str, word: str) -> int:
    units = round(seconds * _PER_SECOND[unit])
    if abs(units - seconds * _PER_SECOND[unit]) > 1e-6 * max(1, units):
        raise Refusal(
            "bad_argument", f"window: {word} {seconds:g} s is no whole number of {unit}, which the times are in"
        )
    return units


def _most(column: Any) -> int:
    found = pc.min_max(column).as_py()
    return int(max(abs(found["min"] or 0), abs(found["max"] or 0)))


def _result_type(function: Function, totals: list[_Total]) -> pa.DataType:
    return pa.float64() if function == "avg" else totals[0].type


def _result(function: Function, totals: list[Any]) -> Any:
    if function != "avg":
        return totals[0]
    count = totals[1]
    return pc.if_else(pc.greater(count, 0), pc.divide(totals[0].cast(pa.float64()), count.cast(pa.float64())), None)
