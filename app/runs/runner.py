"""Carries a run from its admission to its verdict, and writes the book."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.core.budget import Budget
from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.pipeline import Flow
from app.runs.book import Book, Entry
from app.runs.record import Committed, Failed, Progressed, Run, RunEvent, Started, advance


@dataclass(frozen=True, slots=True)
class Account:
    """How a run's rows and overflow are counted, which the flow by itself cannot know.

    ``rows_in`` and ``rows_out`` are stage indices as in ``Built``; ``rejected`` (rows by code) and
    ``spooled_bytes`` look figures up.
    """

    rows_in: int | None = None
    rows_out: int | None = None
    rejected: Callable[[], Mapping[str, int]] = dict
    spooled_bytes: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs flows within ``budget``. ``observe`` sees every record that became final; ids begin with ``prefix``."""

    budget: Budget
    book: Book
    observe: Callable[[Run], None]
    prefix: str = ""

    def accept(self, flow: Flow, *, mode: str, pipeline: str, source: str, target: str) -> Entry:
        """Open an entry in the book for a flow that is about to be admitted."""
        return self.book.add(
            Run(
                id=self.prefix + secrets.token_hex(8)[len(self.prefix) :],
                mode=mode,
                pipeline=pipeline,
                source=source,
                target=target,
                worst_case_bytes=flow.worst_case_bytes,
                created_at=time.time(),
            )
        )

    async def execute(self, entry: Entry, flow: Flow, account: Account) -> Receipt:
        """Admit and run ``flow``; the record is final when this returns or raises.

        Raises what the flow raises. A cancellation leaves the record ``cancelled``, with ``entry.reason`` as its cause
        if somebody gave one.
        """

        def progress() -> RunEvent:
            seen = flow.statistics()
            return Progressed(
                statistics=seen,
                rows_in=None if account.rows_in is None else seen.stages[account.rows_in].rows_out,
                rows_out=None if account.rows_out is None else seen.stages[account.rows_out].rows_in,
                rejected=dict(account.rejected()),
                spooled_bytes=account.spooled_bytes(),
                lanes=flow.options.lanes,
            )

        def end(event: RunEvent) -> None:
            if entry.run.state == "running":
                entry.run = advance(entry.run, progress())
            entry.run = advance(entry.run, event)
            self.book.end(entry)
            self.observe(entry.run)

        task = asyncio.current_task()
        assert task is not None
        entry.stop = task.cancel
        try:
            async with self.budget.admit(flow.worst_case_bytes) as wait_s:
                entry.run = advance(entry.run, Started(wait_s))
                entry.look = lambda: advance(entry.run, progress())
                entry.edges = lambda: flow.statistics().edges
                receipt = await flow.run()
        except Refusal as refusal:
            end(Failed(refusal))
            raise
        except asyncio.CancelledError:
            end(Failed(entry.reason or Refusal("cancelled", "the run was cancelled")))
            raise
        except BaseException as error:
            end(Failed(Refusal("stage_failed", f"{type(error).__name__}: {error}")))
            raise
        end(Committed(receipt))
        return receipt
