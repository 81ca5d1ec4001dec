"""The process's bytes. A run pays for its worst case at the door and is paid back by leaving the scope."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from app.core.errors import Refusal
from app.core.units import as_size


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A snapshot: ``reserved_bytes`` is what admitted runs hold, ``demand_bytes`` what those in the queue wait for,
    ``aside_bytes`` what is set aside for all of them."""

    limit_bytes: int
    reserved_bytes: int
    demand_bytes: int
    admitted: int
    waiting: int
    aside_bytes: int = 0


@dataclass(slots=True, eq=False)
class _Claim:
    nbytes: int
    granted: asyncio.Event


class Budget:
    """Admits runs by their worst case, first come first served.

    The mutable state is the sum of what admitted runs hold, their number, and the queue of claims. One plain method
    changes it and wakes whoever was granted. Nothing is ever taken from the budget piecemeal: a run that had to come
    back for more could wait behind runs that wait for it (a prototype with a lease per page did deadlock).
    """

    def __init__(self, limit_bytes: int, *, max_flows: int, wait_s: float) -> None:
        self._limit_bytes = limit_bytes
        self._max_flows = max_flows
        self._wait_s = wait_s
        self._reserved_bytes = 0
        self._aside_bytes = 0
        self._admitted = 0
        self._queue: deque[_Claim] = deque()
        self._patient: deque[_Claim] = deque()

    @asynccontextmanager
    async def admit(self, worst_case_bytes: int, *, patient: bool = False) -> AsyncIterator[float]:
        """Hold ``worst_case_bytes`` while in the scope; gives the seconds that were spent in the queue.

        Raises ``never_fits`` at once when the limit could not carry it even alone, and ``budget_full`` with a
        ``retry_after_s`` when it was not granted within ``wait_s``. Who is ``patient`` waits as long as it takes, and
        lets all others go first; but after ``wait_s`` he stands in the queue like them, so that he is not forgotten. A
        cancelled waiter leaves the queue and holds nothing.
        """
        limit_bytes = self.free_bytes
        if worst_case_bytes > limit_bytes:
            beside = f" less {as_size(self._aside_bytes)} of lookup tables" if self._aside_bytes else ""
            raise Refusal(
                "never_fits",
                f"this pipeline may need {as_size(worst_case_bytes)} at once,"
                f" {as_size(worst_case_bytes - limit_bytes)} more than MEMORY_BUDGET leaves for runs"
                f" ({as_size(self._limit_bytes)}{beside}); give the server more, or lower PAGE_BYTES or WORKER_THREADS",
            )
        started = time.monotonic()
        claim = _Claim(worst_case_bytes, asyncio.Event())
        (self._patient if patient else self._queue).append(claim)
        self._grant()
        try:
            await (self._wait_long(claim) if patient else self._wait_granted(claim))
            yield time.monotonic() - started
        finally:
            self._leave(claim)

    @property
    def free_bytes(self) -> int:
        """What runs may have, all together."""
        return self._limit_bytes - self._aside_bytes

    def set_aside(self, nbytes: int) -> None:
        """Take so much away from what runs may have, for what they share. Raises ``never_fits`` where there is not as
        much, ``budget_full`` while runs have it."""
        free_bytes = self.free_bytes
        if nbytes > free_bytes:
            raise Refusal("never_fits", f"{as_size(free_bytes)} of MEMORY_BUDGET are left; raise it")
        if nbytes > free_bytes - self._reserved_bytes:
            raise Refusal(
                "budget_full",
                f"{as_size(self._reserved_bytes)} of {as_size(self._limit_bytes)} are taken by {self._admitted} runs",
                retry_after_s=math.ceil(max(1.0, self._wait_s / 2)),
            )
        self._aside_bytes += nbytes

    def give_back(self, nbytes: int) -> None:
        """Undo ``set_aside``."""
        self._aside_bytes -= nbytes
        self._grant()

    async def _wait_granted(self, claim: _Claim) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await claim.granted.wait()
        except TimeoutError:
            if claim.granted.is_set():
                return
            raise Refusal(
                "budget_full",
                f"this pipeline needs {as_size(claim.nbytes)}, and {as_size(self._reserved_bytes)} of"
                f" {as_size(self._limit_bytes)} are taken by {self._admitted} runs; it waited {self._wait_s:g} s",
                retry_after_s=math.ceil(max(1.0, self._wait_s / 2)),
            ) from None

    async def _wait_long(self, claim: _Claim) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await claim.granted.wait()
        if claim in self._patient:
            self._patient.remove(claim)
            self._queue.append(claim)
        await claim.granted.wait()

    def statistics(self) -> BudgetStatistics:
        """What is taken and what is asked for, now."""
        return BudgetStatistics(
            limit_bytes=self._limit_bytes,
            reserved_bytes=self._reserved_bytes,
            aside_bytes=self._aside_bytes,
            demand_bytes=sum(claim.nbytes for claim in (*self._queue, *self._patient)),
            admitted=self._admitted,
            waiting=len(self._queue) + len(self._patient),
        )

    def _leave(self, claim: _Claim) -> None:
        """Give back what the claim holds, or take it out of the queue: settled here, whatever raced."""
        if claim.granted.is_set():
            self._reserved_bytes -= claim.nbytes
            self._admitted -= 1
        else:
            (self._patient if claim in self._patient else self._queue).remove(claim)
        self._grant()

    def _grant(self) -> None:
        """Grant from the head of the queue for as long as the head fits. A small run never overtakes a large one, unless
        that is patient."""
        while queue := self._queue or self._patient:
            head = queue[0]
            if self._admitted >= self._max_flows or self._reserved_bytes + head.nbytes > self.free_bytes:
                return
            queue.popleft()
            self._reserved_bytes += head.nbytes
            self._admitted += 1
            head.granted.set()
