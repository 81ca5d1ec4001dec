"""The panes of windows: the stretches of time that all windows have in common.

A pane, and the first window that a row in it counts for, are one number, the lead: that of the pane, times how many windows
a pane is in, and how many of these were closed before the row came.
"""

from __future__ import annotations

import ctypes
import math

import pyarrow as pa

from app.core.errors import Refusal
from app.core.unset import unset_bytes
from app.framing.native import LIBRARY
from app.framing.native import Panes as State

LATE = -(2**63)
"""The lead of a row all of whose windows were closed before it came."""
_LAST = 2**63 - 1


class Panes:
    """Windows of ``every`` that begin at each multiple of ``slide``, closed ``late`` behind their end; in units of time."""

    def __init__(self, every: int, slide: int, late: int) -> None:
        self.every, self.slide, self._late = every, slide, late
        self.pane = math.gcd(every, slide)
        self.count = -(-every // slide)
        self._state = State(every, slide, self.pane, late, self.count, 0, _LAST, 0, 0)

    @property
    def watermark(self) -> int:
        """Windows that end up to here are closed; before all time until a row came."""
        return int(self._state.latest) - self._late if self._state.has_latest else -_LAST

    @property
    def end(self) -> int:
        """All windows that rows were counted for end up to here."""
        return int(self._state.latest) + self.every if self._state.has_latest else -_LAST

    @property
    def first_end(self) -> int:
        """Where the first window ends that rows were counted for since ``forget``; behind all time if there is none."""
        return int(self._state.least) + self.every

    def forget(self, start: int | None) -> None:
        """No window before ``start`` is asked for any more; None: none that there is."""
        self._state.least = _LAST if start is None else start

    def leads(self, times: pa.Array) -> tuple[pa.Array, int]:
        """Of rows in their order; and how many are ``LATE``."""
        leads = pa.py_buffer(unset_bytes(8 * len(times)))
        place = times.buffers()[1].address + 8 * times.offset
        if LIBRARY is None:
            late = self._leads(times.to_pylist(), (ctypes.c_int64 * len(times)).from_address(leads.address))
        else:
            late = LIBRARY.weir_panes(ctypes.addressof(self._state), place, len(times), leads.address)
        if late < 0:
            raise Refusal("bad_argument", "window: a time is in too many windows: make slide longer")
        return pa.Array.from_buffers(pa.int64(), len(times), [None, leads]), late

    def start(self, lead: int) -> int:
        """Where the pane begins."""
        return lead // self.count * self.pane

    def counted(self, lead: int) -> int:
        """Where the first window begins that rows count for."""
        return self.first_window(self.start(lead)) + lead % self.count * self.slide

    def first_window(self, time: int) -> int:
        """Where the first window begins that ends behind ``time``."""
        return (time - self.every) // self.slide * self.slide + self.slide

    def first_lead(self, time: int) -> int:
        """The first lead of panes that begin at ``time``, a multiple of ``pane``, or later."""
        return min(time // self.pane * self.count, _LAST)

    def _leads(self, times: list[int], leads: ctypes.Array[ctypes.c_int64]) -> int:
        """See panes.c."""
        state, late = self._state, 0
        for row, time in enumerate(times):
            lead = time // self.pane * self.count
            counted = first = self.first_window(time)
            if not -_LAST <= lead <= _LAST - self.count:
                return -1
            if state.has_latest and self.watermark >= first + self.every:
                counted = self.first_window(self.watermark)
                lead += (counted - first) // self.slide
            if counted > time // self.slide * self.slide:
                lead = LATE
                late += 1
            else:
                state.least = min(state.least, counted)
                state.latest = max(state.latest, time) if state.has_latest else time
                state.has_latest = 1
            leads[row] = lead
        return late
