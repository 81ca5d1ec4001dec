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
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.core.units import as_size
from app.stages.window_text import Windows
from app.stages.window_totals import STATE_BYTES, Totals, late_rejects, no_time

_PANE, _FROM, _ROW = "\ue003", "\ue004", "\ue005"
"""Columns of the state, by private characters: where a pane begins; the first window that its rows count for."""


class Window:
    """Rows to windows, in the order in which they end, and of their groups.

    The result has ``window_start`` and ``window_end``, the columns of ``by``, and the aggregates. Sums of whole numbers
    are int64, those of decimals have 38 digits; averages are floats. Rows that came after all of their windows were given
    (``late_row``), and those without a time (``bad_value``), are left out; ``rejected`` counts them, and ``keep`` gets
    them as rejects, whose place is not known any more: line 0. Unless it is ``tolerant``, ``bad_value`` is raised for a
    row without a time. Raises ``bad_argument`` for a column
    that is not there or of another type, ``state_too_large`` where open windows have more groups than there is room for,
    ``bad_computation`` for a sum beyond int64.
    """

    name = "window"
    stateless = False
    # The keys and values of a page beside it, and both once more as they are grouped.
    grows = 6.0

    def __init__(
        self,
        asked: Windows,
        *,
        page_bytes: int,
        keep: Callable[[Sequence[Reject]], None] | None = None,
        tolerant: bool = True,
    ) -> None:
        self._asked = asked
        self._page_bytes = page_bytes
        self._keep = keep
        self._tolerant = tolerant
        self.rejected: Counter[str] = Counter()
        # The state, as it was and as it becomes, with the windows that are made of it.
        self.holds = 4 * STATE_BYTES
        self._bound: _Panes | None = None
        self._state: pa.Table | None = None
        self._latest: int | None = None
        self._given: int | None = None
        self._first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The windows that end by this page; an empty page if it is the first and none does."""
        if self._bound is None:
            self._bound = _Panes(self._asked, page.payload.schema)
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
            if not self._tolerant:
                raise no_time(self._asked.on)
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
            rows = bound.rows(batch, [bound.floored(times, bound.pane), counted])
            self._state = bound.grouped(self._state, rows)
            if self._state.nbytes > STATE_BYTES:
                raise Refusal(
                    "state_too_large",
                    f"window: {self._state.num_rows:,} groups of open windows take {as_size(self._state.nbytes)}, the"
                    f" most is {as_size(STATE_BYTES)}: group by less, or make windows, lateness or their overlap shorter",
                )

    def _reject(self, code: str, detail: str, rows: pa.RecordBatch) -> None:
        self.rejected[code] += rows.num_rows
        if self._keep is not None:
            for rejects in late_rejects(code, detail, self._asked.on, rows):
                self._keep(rejects)

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


class _Panes(Totals):
    """Totals by pane, and by the first window that their rows count for."""

    def __init__(self, asked: Windows, schema: pa.Schema) -> None:
        super().__init__(asked, schema, (_PANE, _FROM))
        self.pane = math.gcd(self.every, self.slide)

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
        found = self.combined(found, [_ROW, *self.keys])
        starts = found.column(_ROW)
        return self.results(found, starts, pc.add(starts, self.every))
