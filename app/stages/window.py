"""Event-time windows over the stream, tumbling or sliding: each is given as soon as the watermark has passed its end.

As in "The Dataflow Model" (T. Akidau et al., VLDB 2015): the watermark is the latest event time seen, less the allowed
lateness; a window is given once, when the watermark reaches its end, and what comes for it later is late. Rows are added
up by panes, the stretches that all windows have in common ("No pane, no gain", J. Li et al., SIGMOD Record 2005).

Nothing depends on how the stream is cut into pages. A row is late by the rows before it, not by its page; and a sum of
floats is always the same chain of additions: of a pane's rows in their order, then of a window's panes in theirs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.core.units import as_size
from app.stages.panes import LATE, Panes
from app.stages.window_text import Windows
from app.stages.window_totals import STATE_BYTES, Totals, late_rejects, no_time, too_large

_STEP_ROWS = 1 << 14
"""What is added at a time: the leads of more would outgrow a core's own cache."""
_STEP_BYTES = 1 << 20
"""What is made of these: times, leads, and what some types are grouped by."""


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
    gathers = True
    # The late rows of a page, and as text.
    grows = 2.0

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
        # The state, what is taken out of it, windows as they are put together, and these in their order.
        self.holds = 4 * STATE_BYTES + _STEP_BYTES
        self._open: _Open | None = None
        self._first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The windows that end by this page; an empty page if it is the first and none does."""
        if self._open is None:
            self._open = _Open(self._asked, page.payload.schema, self._page_bytes)
        for start in range(0, page.rows, _STEP_ROWS):
            self._add(self._open, page.payload.slice(start, _STEP_ROWS))
        yield from map(self._page, self._open.closed(self._open.panes.watermark))
        if self._first:
            yield self._page(pa.RecordBatch.from_pylist([], schema=self._open.totals.schema))

    def flush(self) -> Iterator[Page]:
        """All windows that are still open."""
        if self._open is not None:
            yield from map(self._page, self._open.closed(self._open.panes.end))

    def _add(self, open_: _Open, batch: pa.RecordBatch) -> None:
        times = open_.totals.times(batch)
        if times.null_count:
            if not self._tolerant:
                raise no_time(self._asked.on)
            self._reject("bad_value", f"{self._asked.on} is null", batch.filter(times.is_null()))
            batch, times = batch.filter(times.is_valid()), times.drop_null()
        leads, late_rows = open_.panes.leads(times)
        if late_rows:
            on_time = pc.not_equal(leads, LATE)
            self._reject("late_row", "it came after all of its windows were given", batch.filter(pc.invert(on_time)))
            batch, leads = batch.filter(on_time), leads.filter(on_time)
        open_.add(batch, leads)

    def _reject(self, code: str, detail: str, rows: pa.RecordBatch) -> None:
        self.rejected[code] += rows.num_rows
        if self._keep is not None:
            for rejects in late_rejects(code, detail, self._asked.on, rows):
                self._keep(rejects)

    def _page(self, batch: pa.RecordBatch) -> Page:
        first, self._first = self._first, False
        return Page(batch, max(1, batch.nbytes), batch.num_rows, first=first)


class _Open:
    """What open windows are made of: groups by panes, which grow until a window closes that they count for, and those
    that do not grow any more, by their leads."""

    def __init__(self, asked: Windows, schema: pa.Schema, page_bytes: int) -> None:
        self.totals = Totals(asked, schema, ())
        self.panes = Panes(self.totals.every, self.totals.slide, self.totals.late)
        self._page_bytes = page_bytes
        self._growing, self._merged = self.totals.groups(), self.totals.groups()
        self._grown = self._growing.take_partial()
        self._next: int | None = None

    def add(self, batch: pa.RecordBatch, leads: pa.Array) -> None:
        """Rows that count, with their leads."""
        try:
            added = self._growing.add(*self.totals.columns(batch), leads)
        except OverflowError:
            raise too_large() from None
        if added < len(leads) or self._growing.used_bytes + self._grown.nbytes > STATE_BYTES:
            raise self._full()

    def closed(self, watermark: int) -> Iterator[pa.RecordBatch]:
        """The windows that end up to ``watermark`` and were not given yet."""
        panes = self.panes
        if panes.first_end > watermark:
            return
        last = (watermark - panes.every) // panes.slide * panes.slide
        self._grow_up(last)
        if panes.count == 1:
            yield from self._results(self._grown, pc.multiply(self._grown.column(0), panes.slide))
        elif self._grown.num_rows:
            yield from self._put_together(last)
        self._next = last + panes.slide
        needed = pc.greater_equal(self._grown.column(0), panes.first_lead(self._next))
        self._grown = self._grown.filter(needed)
        panes.forget(self._next if len(self._growing) or self._grown.num_rows else None)

    def _grow_up(self, last: int) -> None:
        """Windows up to the one that begins at ``last`` are closed, so that nothing comes any more for what counts for
        them."""
        panes = self.panes
        groups = self._growing.take_partial()
        leads = groups.column(0)
        is_grown = pc.less(leads, panes.first_lead(last + panes.every))
        if panes.count > 1:
            late = [lead for lead in pc.unique(leads.filter(is_grown)).to_pylist() if panes.counted(lead) > last]
            is_grown = pc.and_not(is_grown, pc.is_in(leads, value_set=pa.array(late, pa.int64())))
        growing = groups.filter(pc.invert(is_grown))
        if self._growing.merge(growing) < growing.num_rows:
            raise self._full()
        del growing
        grown = groups.filter(is_grown)
        del groups, leads
        self._grown = pa.concat_batches([self._grown, grown]) if self._grown.num_rows else grown

    def _put_together(self, last: int) -> Iterator[pa.RecordBatch]:
        """The windows up to the one that begins at ``last``."""
        panes = self.panes
        self._grown, leads, ends = _by_leads(self._grown)
        starts = [panes.start(lead) for lead in leads]
        page_rows = self._page_bytes * self._grown.num_rows // self._grown.nbytes
        start = panes.first_window(starts[0]) if self._next is None else self._next
        while start <= last:
            begin, end = bisect_left(starts, start), bisect_left(starts, start + panes.every)
            if begin == len(starts):
                break
            if begin == end:
                start = panes.first_window(starts[begin])
                continue
            if len(self._merged) and len(self._merged) + ends[end] - ends[begin] > page_rows:
                yield from self._given()
            is_whole = all(panes.counted(lead) <= start for lead in leads[begin:end])
            for left, right in [(begin, end)] if is_whole else [(i, i + 1) for i in range(begin, end)]:
                if is_whole or panes.counted(leads[left]) <= start:
                    self._merge(self._grown.slice(ends[left], ends[right] - ends[left]), start)
            start += panes.slide
        yield from self._given()

    def _merge(self, groups: pa.RecordBatch, start: int) -> None:
        windows = pa.repeat(pa.scalar(start, pa.int64()), groups.num_rows)
        if self._merged.merge(groups, windows) < groups.num_rows:
            raise self._full()

    def _given(self) -> Iterator[pa.RecordBatch]:
        found = self._merged.take_partial()
        yield from self._results(found, found.column(0))

    def _results(self, found: pa.RecordBatch, starts: pa.Array) -> Iterator[pa.RecordBatch]:
        return self.totals.results(found, starts, pc.add(starts, self.panes.every), self._page_bytes)

    def _full(self) -> Refusal:
        groups, nbytes = len(self._growing) + self._grown.num_rows, self._growing.used_bytes + self._grown.nbytes
        return Refusal(
            "state_too_large",
            f"window: {groups:,} groups of open windows take {as_size(nbytes)}, of the {as_size(STATE_BYTES)} that they"
            " and their index may: group by less, or make windows, lateness or their overlap shorter",
        )


def _by_leads(groups: pa.RecordBatch) -> tuple[pa.RecordBatch, list[int], list[int]]:
    """Groups in the order of their leads; these, and where the first group and those behind each of them stand."""
    runs = pc.run_end_encode(groups.column(0))
    leads = runs.values.to_pylist()
    if any(left > right for left, right in pairwise(leads)):  # they mostly came in that order
        groups = groups.take(pc.sort_indices(groups.column(0)))
        runs = pc.run_end_encode(groups.column(0))
        leads = runs.values.to_pylist()
    return groups, leads, [0, *runs.run_ends.to_pylist()]
