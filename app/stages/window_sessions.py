"""Session windows: rows of a group that follow one another within a gap of event time."""

from __future__ import annotations

from bisect import bisect_right
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

_SESSION = "\ue008"
"""The column of session numbers, by a private character."""
_SESSION_BYTES = 400
"""What Python keeps of an open session: its times, its number, its place under its group."""


class _Session:
    """An open session: its first and its last event."""

    __slots__ = ("end", "number", "start")

    def __init__(self, start: int, number: int) -> None:
        self.start = self.end = start
        self.number = number


class SessionWindow:
    """Rows to sessions, each given once the watermark is a gap behind its last row; see ``Window`` for the rest.

    A row joins an open session of its group that it is less than a gap away from, and makes one of two where it stands
    between them. It is late if it can join none, and the watermark has left its own session behind. Where a row joins
    two sessions, a sum of floats may depend in its last bit on how the stream was cut; nothing else does.
    """

    name = "window"
    stateless = False
    # The keys and values of a page beside it, both once more as they are grouped, and Python's numbers of its rows.
    grows = 16.0

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
        self.holds = 4 * STATE_BYTES
        self.rejected: Counter[str] = Counter()
        self._totals: Totals | None = None
        self._state: Any = None
        self._open: dict[Any, list[_Session]] = {}
        self._count = 0
        self._latest: int | None = None
        self._number = 0
        self._first = True

    def feed(self, page: Page) -> Iterator[Page]:
        """The sessions that end by this page; an empty page if it is the first and none does."""
        if self._totals is None:
            self._totals = Totals(self._asked, page.payload.schema, (_SESSION,))
            self._state = self._totals.nothing
        if page.rows:
            yield from self._add(page.payload)
        if self._first:
            yield self._page(pa.RecordBatch.from_pylist([], schema=self._totals.schema))

    def flush(self) -> Iterator[Page]:
        """All sessions that are still open."""
        if self._totals is not None and self._latest is not None:
            yield from self._given(self._closed(self._latest + 2 * self._totals.gap + self._totals.late + 1))

    def _add(self, batch: pa.RecordBatch) -> Iterator[Page]:
        totals = self._totals
        assert totals is not None
        times = totals.times(batch)
        if times.null_count:
            if not self._tolerant:
                raise no_time(self._asked.on)
            self._reject("bad_value", f"{self._asked.on} is null", batch.filter(times.is_null()))
            batch, times = batch.filter(times.is_valid()), times.drop_null()
            if not len(times):
                return
        keys = list(zip(*(batch.column(index).to_pylist() for index in totals.by), strict=True)) or [()] * len(times)
        numbers, closed, merged = self._joined(times.to_pylist(), keys)
        if None in numbers:
            on_time = pa.array([number is not None for number in numbers])
            self._reject("late_row", "its session was given before it came", batch.filter(pc.invert(on_time)))
            batch = batch.filter(on_time)
        found = [number for number in numbers if number is not None]
        if found:
            self._state = totals.grouped(self._renumbered(merged), totals.rows(batch, [self._roots(found, merged)]))
        assert self._latest is not None
        yield from self._given(closed + self._closed(self._latest - totals.late))
        held_bytes = self._state.nbytes + self._count * _SESSION_BYTES
        if held_bytes > STATE_BYTES:
            raise Refusal(
                "state_too_large",
                f"window: {self._count:,} open sessions take {as_size(held_bytes)}, the most is {as_size(STATE_BYTES)}:"
                " group by less, or make gap and lateness shorter",
            )

    def _joined(
        self, times: list[int], keys: list[Any]
    ) -> tuple[list[int | None], list[tuple[Any, _Session]], dict[int, int]]:
        """The number of each row's session, None if it is late; the sessions that closed meanwhile and were replaced;
        and for sessions that became one, the number that is left."""
        totals = self._totals
        assert totals is not None
        gap, late, latest = totals.gap, totals.late, self._latest
        numbers: list[int | None] = []
        closed: list[tuple[Any, _Session]] = []
        merged: dict[int, int] = {}
        for time, key in zip(times, keys, strict=True):
            watermark = latest - late if latest is not None else time - gap
            sessions = self._open.setdefault(key, [])
            while sessions and sessions[0].end + gap <= watermark:
                closed.append((key, sessions.pop(0)))
                self._count -= 1
            # Sessions are apart by a gap at least, so a row is near two of them at the most.
            place = bisect_right(sessions, time, key=lambda session: session.start)
            before = sessions[place - 1] if place and time < sessions[place - 1].end + gap else None
            behind = sessions[place] if place < len(sessions) and sessions[place].start < time + gap else None
            if before is not None and behind is not None:
                before.end = behind.end
                merged[behind.number] = before.number
                del sessions[place]
                self._count -= 1
            elif before is not None:
                before.end = max(before.end, time)
            elif behind is not None:
                behind.start = time
                before = behind
            elif time + gap <= watermark:
                numbers.append(None)
                if not sessions:
                    del self._open[key]
                continue
            else:
                self._number += 1
                before = _Session(time, self._number)
                sessions.insert(place, before)
                self._count += 1
            numbers.append(before.number)
            latest = time if latest is None or time > latest else latest
        self._latest = latest
        return numbers, closed, merged

    def _closed(self, watermark: int) -> list[tuple[Any, _Session]]:
        """The sessions that a watermark ends."""
        assert self._totals is not None
        gap, closed = self._totals.gap, []
        for key in list(self._open):
            sessions = self._open[key]
            while sessions and sessions[0].end + gap <= watermark:
                closed.append((key, sessions.pop(0)))
                self._count -= 1
            if not sessions:
                del self._open[key]
        return closed

    def _roots(self, numbers: list[int], merged: dict[int, int]) -> pa.Array:
        return pa.array([_root(number, merged) for number in numbers] if merged else numbers, pa.int64())

    def _renumbered(self, merged: dict[int, int]) -> Any:
        if not merged or not self._state.num_rows:
            return self._state
        numbers = self._roots(self._state.column(_SESSION).to_pylist(), merged)
        return self._state.set_column(0, self._state.schema.field(0), numbers)

    def _given(self, closed: list[tuple[Any, _Session]]) -> Iterator[Page]:
        if not closed:
            return
        assert self._totals is not None
        totals = self._totals
        of = {session.number: session for _, session in closed}
        is_closed = pc.is_in(self._state.column(_SESSION), value_set=pa.array(list(of), pa.int64()))
        [ended] = self._state.filter(is_closed).combine_chunks().to_batches()
        self._state = self._state.filter(pc.invert(is_closed)).combine_chunks()
        sessions = [of[number] for number in ended.column(_SESSION).to_pylist()]
        starts = pa.array([session.start for session in sessions], pa.int64())
        ends = pa.array([session.end + totals.gap for session in sessions], pa.int64())
        yield from map(self._page, totals.results(ended, starts, ends, self._page_bytes))

    def _reject(self, code: str, detail: str, rows: pa.RecordBatch) -> None:
        self.rejected[code] += rows.num_rows
        if self._keep is not None:
            for rejects in late_rejects(code, detail, self._asked.on, rows):
                self._keep(rejects)

    def _page(self, batch: pa.RecordBatch) -> Page:
        first, self._first = self._first, False
        return Page(batch, max(1, batch.nbytes), batch.num_rows, first=first)


def _root(number: int, merged: dict[int, int]) -> int:
    while number in merged:
        number = merged[number]
    return number
