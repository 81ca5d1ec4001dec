"""Carries a run from its admission to its verdict, and writes the book."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.core.budget import Budget
from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.pipeline import Flow
from app.runs.book import Book, Entry
from app.runs.record import (
    Committed,
    Failed,
    Prepared,
    Progressed,
    Released,
    Run,
    RunEvent,
    Started,
    advance,
)

log = logging.getLogger("weir")


@dataclass(frozen=True, slots=True)
class Account:
    """How a run's rows and overflow are counted, which the flow by itself cannot know.

    ``rows_in`` and ``rows_out`` are stage indices as in ``Built``; ``rejected`` (rows by code), ``passed_over`` (rows
    that count as rows in though none had to be read), ``scanned_bytes`` (bytes that were read by no page) and
    ``spooled_bytes`` look figures up.
    """

    rows_in: int | None = None
    rows_out: int | None = None
    rejected: Callable[[], Mapping[str, int]] = dict
    spooled_bytes: Callable[[], int] = lambda: 0
    passed_over: Callable[[], int] = lambda: 0
    scanned_bytes: Callable[[], int] = lambda: 0


Settle = Callable[[Receipt | None], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs flows within ``budget``. ``observe`` sees every record that became final; ids begin with ``prefix``."""

    budget: Budget
    book: Book
    observe: Callable[[Run], None]
    prefix: str = ""

    def new_id(self) -> str:
        """An id for a run of this process."""
        return self.prefix + secrets.token_hex(8)[len(self.prefix) :]

    async def execute(
        self, entry: Entry, flow: Flow, account: Account, settle: Settle, *, patient: bool = False
    ) -> Receipt:
        """Admit and run ``flow``; the record is final when this returns or raises, and durable unless the run only
        streamed. It waits for the budget as ``Budget.admit`` says.

        ``settle`` keeps what the run left, before its end is recorded; it gets the receipt, or None after a failure.
        Raises what the flow raises. A cancellation leaves the record ``cancelled``, with ``entry.reason`` as its cause
        if somebody gave one; when that is the server's own end, a run that can be done again is left to the next server.
        """

        def progress() -> RunEvent:
            seen = flow.statistics()
            rows_read = None if account.rows_in is None else seen.stages[account.rows_in].rows_out
            return Progressed(
                statistics=replace(seen, input_bytes=seen.input_bytes + account.scanned_bytes()),
                rows_in=None if rows_read is None else rows_read + account.passed_over(),
                rows_out=None if account.rows_out is None else seen.stages[account.rows_out].rows_in,
                rejected=dict(account.rejected()),
                spooled_bytes=account.spooled_bytes(),
                lanes=flow.options.lanes,
            )

        task = asyncio.current_task()
        assert task is not None
        entry.stop = task.cancel
        flow.fit(self.budget.free_bytes)
        entry.run = advance(entry.run, Prepared(flow.worst_case_bytes))
        try:
            async with self.budget.admit(flow.worst_case_bytes, patient=patient) as wait_s:
                entry.run = advance(entry.run, Started(wait_s))
                entry.look = lambda: advance(entry.run, progress())
                entry.edges = lambda: flow.statistics().edges
                if entry.asked is not None:
                    await self.book.save(entry)  # should it take the server down, that is one attempt
                receipt = await flow.run()
                # There is a result now: who cancels from here on comes too late.
                entry.stop, entry.settling = None, True
                await _to_its_end(settle(receipt))
        except BaseException as error:
            if entry.run.state == "running":
                entry.run = advance(entry.run, progress())
            try:
                await flow.sink.abort()  # it may never have been run
            finally:
                await _to_its_end(self._fail(entry, error, settle))
            raise
        entry.run = advance(entry.run, progress())
        await _to_its_end(self._end(entry, Committed(receipt)))
        return receipt

    async def refuse(self, entry: Entry, refusal: Refusal) -> None:
        """The run cannot even be begun."""
        await self._end(entry, Failed(refusal))

    async def conclude(self, entry: Entry, receipt: Receipt) -> None:
        """The run had succeeded when its server went down."""
        if entry.run.state == "accepted":
            entry.run = advance(entry.run, Started(0.0))
        await self._end(entry, Committed(receipt))

    async def _fail(self, entry: Entry, error: BaseException, settle: Settle) -> None:
        if isinstance(error, Refusal):
            refusal = error
        elif isinstance(error, asyncio.CancelledError):
            refusal = entry.reason or Refusal("cancelled", "the run was cancelled")
            if refusal.code == "shutting_down" and entry.asked is not None:
                entry.run = advance(entry.run, Released())
                self.book.release(entry)
                return
        else:
            refusal = Refusal("stage_failed", f"{type(error).__name__}: {error}")
        if not entry.settling:
            try:
                await settle(None)
            except Exception as another:
                log.warning("what run %s left could not be kept: %s", entry.run.id, another)
        await self._end(entry, Failed(refusal))

    async def _end(self, entry: Entry, event: RunEvent) -> None:
        entry.run = advance(entry.run, event)
        written = self.book.end(entry)
        self.observe(entry.run)
        if entry.run.mode != "stream":
            await written


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work``, whoever cancels meanwhile."""
    task, waiter = asyncio.ensure_future(work), asyncio.current_task()
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            if waiter is not None:
                waiter.uncancel()
    task.result()
