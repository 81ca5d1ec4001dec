"""Running totals of windows: a page's rows are grouped behind what there is so far, as rows of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.core.errors import Refusal, known
from app.core.page import Reject
from app.framing.json_text import rows_text
from app.framing.needs import field_called, folded
from app.stages.groups import Groups, Kind, supported
from app.stages.groups import Total as GroupTotal
from app.stages.window_text import Aggregate, Function, Windows

STATE_BYTES = 8 * 1024 * 1024
"""What open windows may take."""
_REJECTED_ROWS = 256
_TEXT_CHARACTERS = 1000
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_START, _END = "\ue006", "\ue007"
"""Columns of the result while it is sorted, by private characters."""


@dataclass(frozen=True, slots=True)
class _Total:
    """A running total of a ``column``: ``rows`` (of no column), those that are ``valid``, or what the kind is called; and
    the type it is kept in."""

    name: str
    kind: Kind
    column: int | None
    type: pa.DataType

    @property
    def combine(self) -> str:
        """What makes one of two."""
        return "sum" if self.kind in ("rows", "valid") else self.kind


class Totals:
    """What is asked for, by the columns of the input; times are in units of the time column's type.

    A state has the columns ``leading`` (int64), which tell windows apart, those of ``by``, and the totals.
    """

    def __init__(self, asked: Windows, schema: pa.Schema, leading: tuple[str, ...]) -> None:
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
        self.gap = _units(asked.gap_s, type_.unit, "gap")
        self.late = _units(asked.late_s, type_.unit, "late")
        self.by = [_index(name, schema) for name in asked.by]
        self._by_fields = [pa.field(f"k{i}", schema.field(index).type) for i, index in enumerate(self.by)]
        for field in (schema.field(index) for index in self.by):
            if not supported("key", field.type):
                raise Refusal("bad_argument", f"window: {field.name!r} is {field.type} and cannot be a group")
        self.keys = [field.name for field in self._by_fields]
        self._leading = leading
        self._totals: list[_Total] = []
        self._made: list[tuple[Aggregate, list[_Total]]] = []
        for aggregate in asked.aggregates:
            column = None if aggregate.column is None else _index(aggregate.column, schema)
            self._made.append((aggregate, [self._total(*one) for one in _totals(aggregate, column, schema)]))
        self._of_rows = [
            GroupTotal(t.kind, pa.null() if t.column is None else schema.field(t.column).type) for t in self._totals
        ]
        fields = [*(pa.field(name, pa.int64()) for name in leading), *self._by_fields]
        self._state_schema = pa.schema([*fields, *(pa.field(total.name, total.type) for total in self._totals)])
        self.nothing = self._state_schema.empty_table()
        times = [pa.field("window_start", type_), pa.field("window_end", type_)]
        groups = [schema.field(index).with_nullable(True) for index in self.by]
        results = [pa.field(one.name, _result_type(one.function, totals)) for one, totals in self._made]
        self.schema = pa.schema([*times, *groups, *results])
        seen: set[bytes] = set()
        for name in self.schema.names:
            if folded(name) in seen:
                raise Refusal(
                    "bad_argument", f"window: two columns would be called {name!r}; give one another name by AS"
                )
            seen.add(folded(name))

    def _total(self, kind: Kind, column: int | None, type_: pa.DataType) -> _Total:
        for total in self._totals:
            if (total.kind, total.column) == (kind, column):
                return total
        self._totals.append(_Total(f"t{len(self._totals)}", kind, column, type_))
        return self._totals[-1]

    def times(self, batch: pa.RecordBatch) -> pa.Array:
        """When each row happened."""
        times = batch.column(self._on)
        return (times if times.type == self._time else times.cast(self._time)).view(pa.int64())

    def rows(self, batch: pa.RecordBatch, leading: Sequence[pa.Array]) -> pa.Table:
        """A page's rows as if each were a group by itself."""
        columns = [*leading, *(batch.column(index) for index in self.by)]
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
        return self.combined(both, [*self._leading, *self.keys])

    def results(self, found: Any, starts: Any, ends: Any, page_bytes: int) -> Iterator[pa.RecordBatch]:
        """The windows whose groups and totals are ``found``, in the order in which they end, start, and of their groups."""
        names = [_END, _START, *self.keys]
        arrays = [ends, starts, *(found.column(name) for name in self.keys)]
        sort_keys = [(name, "ascending", "at_end") for name in names]
        order = pc.sort_indices(pa.RecordBatch.from_arrays(arrays, names=names), sort_keys=sort_keys)
        step = max(1, page_bytes * found.num_rows // max(1, found.nbytes))
        del arrays
        for start in range(0, found.num_rows, step):
            rows = order.slice(start, step)
            part = found.take(rows)
            columns = [column.take(rows).cast(self._time) for column in (starts, ends)]
            columns += [part.column(name) for name in self.keys]
            columns += [
                _result(one.function, [_fitting(part.column(total.name), total.type) for total in totals])
                for one, totals in self._made
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def groups(self) -> Groups:
        """For ``columns``, and the leads of panes."""
        return Groups([field.type for field in self._by_fields], self._of_rows, most_bytes=STATE_BYTES, led=True)

    def columns(self, batch: pa.RecordBatch) -> tuple[list[pa.Array], list[pa.Array | None]]:
        """Keys and values of rows."""
        values = [None if total.column is None else batch.column(total.column) for total in self._totals]
        return [batch.column(index) for index in self.by], values

    def combined(self, rows: pa.Table, keys: list[str]) -> pa.Table:
        """The totals of each of ``keys``, in the order of ``rows``."""
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
                    raise too_large()


def _totals(aggregate: Aggregate, column: int | None, schema: pa.Schema) -> list[tuple[Kind, int | None, pa.DataType]]:
    """The totals that an aggregate is made of."""
    function = aggregate.function
    if column is None:
        return [("rows", None, pa.int64())]
    if function == "count":
        return [("valid", column, pa.int64())]
    type_ = schema.field(column).type
    kind: Kind = "sum" if function == "avg" else function
    if not supported(kind, type_):
        raise Refusal("bad_argument", f"window: {aggregate.column!r} is {type_}, of which there is no {function}")
    if kind != "sum":
        return [(kind, column, type_)]
    kept = (
        pa.decimal128(38, type_.scale)
        if pt.is_decimal(type_)
        else pa.float64()
        if pt.is_floating(type_)
        else pa.int64()
    )
    total: tuple[Kind, int | None, pa.DataType] = ("sum", column, kept)
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


def _fitting(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """A total as it is given: while it is summed, it may have more digits."""
    try:
        if pt.is_decimal(type_):
            column.validate(full=True)
        return column.cast(type_)
    except pa.ArrowInvalid:
        raise too_large() from None


def too_large() -> Refusal:
    """The refusal of a sum."""
    return Refusal("bad_computation", "window: a sum may outgrow int64: derive the column as DOUBLE or DECIMAL")


def _result(function: Function, totals: list[Any]) -> Any:
    if function != "avg":
        return totals[0]
    count = totals[1]
    return pc.if_else(pc.greater(count, 0), pc.divide(totals[0].cast(pa.float64()), count.cast(pa.float64())), None)


def no_time(column: str) -> Refusal:
    """The refusal of a row whose time is null, where bad rows are not left out."""
    detail = (
        f"window: {column} is null in a row; leave such rows out by where={column} is not null, or by on_error=skip"
    )
    return Refusal("bad_value", detail, column=column)


def late_rejects(code: str, detail: str, column: str, rows: pa.RecordBatch) -> Iterator[list[Reject]]:
    """Rows that a window leaves out, as rejects, some at a time. Where they stood is not known any more: line 0."""
    for start in range(0, rows.num_rows, _REJECTED_ROWS):
        texts = bytes(rows_text(rows.slice(start, _REJECTED_ROWS))).decode(errors="replace").splitlines()
        yield [Reject(0, 0, code, detail, text[:_TEXT_CHARACTERS], column) for text in texts]
