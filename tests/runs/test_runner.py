"""A run comes to its verdict whatever happens to it, and to one only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.budget import Budget
from app.core.interfaces import Receipt
from app.core.page import Page
from app.pipeline import Flow, FlowOptions
from app.runs.record import Run
from app.runs.runner import Account, Runner
from app.sinks.spooled import SpooledSink
from tests.runs.process import Process, new_run, process

PAGE_BYTES = 1000


class Standing:
    """One run of an input that stands still, and what was told of it."""

    def __init__(self, server: Process) -> None:
        self.verdicts: list[Run] = []
        self.begun, self.settling, self.settle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.budget = Budget(1 << 20, max_flows=4, wait_s=1.0)
        self.entry = server.book.add(new_run("aa", "whole"))
        self.sink = SpooledSink(server.spool, server.threads)
        self.flow = Flow(
            self.pages(), [], self.sink, server.threads, FlowOptions(PAGE_BYTES, 2 * PAGE_BYTES, 2, PAGE_BYTES)
        )
        self.runner = Runner(self.budget, server.book, self.verdicts.append)

    async def pages(self) -> AsyncIterator[Page]:
        yield Page(b"x", 1)
        self.begun.set()
        await asyncio.Event().wait()

    async def keep(self, _: Receipt | None) -> None:
        self.settling.set()
        await self.settle.wait()


async def test_it_ends_however_often_it_is_cancelled(tmp_path: Path, url: str) -> None:
    """As by a client that leaves, a DELETE and the server's own end, while its rejects are put away."""
    async with process(tmp_path / "a", url) as server:
        run = Standing(server)
        task = asyncio.create_task(run.runner.execute(run.entry, run.flow, Account(), run.keep))
        await run.begun.wait()
        task.cancel()
        await run.settling.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        run.settle.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [verdict.state for verdict in run.verdicts] == ["cancelled"]
        assert (await server.book.find("aa")).run.state == "cancelled"
        assert server.book.in_flight()["whole"] == 0
        assert run.budget.statistics().reserved_bytes == 0
        assert server.spool.statistics().open_files == 0
