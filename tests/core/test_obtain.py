"""What is opened on a thread for a task that is cancelled: nobody has it, and it is given back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.core.budget import Budget
from app.core.obtain import obtain
from app.core.page import Page
from app.orders.intake import take_in
from app.sinks.overflow import Overflow
from app.sources.spooled import spooled_pages
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile


class SlowSpool(Spool):
    """Opens a file once it may."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, limit_bytes=1 << 20)
        self.opening, self.may_open = threading.Event(), threading.Event()

    def open(self) -> SpoolFile:
        self.opening.set()
        assert self.may_open.wait(30)
        return super().open()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SlowSpool]:
    spool = SlowSpool(tmp_path)
    yield spool
    spool.close()


@pytest.fixture
def one_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def pages() -> AsyncIterator[Page]:
    yield Page(b"x" * 100, 100)


def overflowing(spool: Spool, executor: ThreadPoolExecutor) -> Awaitable[None]:
    edge = Overflow(
        high_water_bytes=100,
        page_bytes=100,
        spool=spool,
        executor=executor,
        upload_open=lambda: True,
        progressed_at=lambda: 0.0,
        patience_s=0.0,
    )

    async def send_two() -> None:
        try:
            for _ in range(2):
                await edge.send(Page(b"x" * 100, 100))
        finally:
            edge.drop()

    return send_two()


def spooling(spool: Spool, executor: ThreadPoolExecutor) -> Awaitable[None]:
    async def read_all() -> None:
        async with contextlib.aclosing(spooled_pages(pages(), spool, lambda _: iter(()), executor)) as read:
            async for _ in read:
                pass

    return read_all()


def taking_in(spool: Spool, executor: ThreadPoolExecutor) -> Awaitable[str]:
    shop = SimpleNamespace(
        options=SimpleNamespace(build=SimpleNamespace(page_bytes=100), socket_bytes=0),
        runner=SimpleNamespace(budget=Budget(1000, max_flows=1, wait_s=1.0)),
        io_executor=executor,
        spool=spool,
        shelf=None,
    )
    return take_in(cast(Any, shop), pages(), cast(Any, None), outside_bytes=0)


@pytest.mark.parametrize("work", [overflowing, spooling, taking_in])
async def test_who_is_cancelled_while_a_file_is_opened_leaves_none_open(
    spool: SlowSpool,
    one_thread: ThreadPoolExecutor,
    work: Callable[[Spool, ThreadPoolExecutor], Awaitable[object]],
) -> None:
    task = asyncio.ensure_future(work(spool, one_thread))
    assert await asyncio.to_thread(spool.opening.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spool.may_open.set()
    await asyncio.wrap_future(one_thread.submit(lambda: None))  # what it did before is done
    assert spool.statistics().open_files == 0


async def test_what_was_made_when_the_cancellation_comes_is_given_back(one_thread: ThreadPoolExecutor) -> None:
    given_back: list[str] = []
    made = threading.Event()

    def make() -> str:
        made.set()
        return "it"

    task = asyncio.ensure_future(obtain(one_thread, make, given_back.append))
    await asyncio.sleep(0)
    made.wait(10)  # the loop stands still, and does not hear of it
    one_thread.submit(lambda: None).result(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given_back == ["it"]


async def test_what_was_not_begun_is_not_made(one_thread: ThreadPoolExecutor) -> None:
    busy, made = threading.Event(), list[str]()
    one_thread.submit(busy.wait, 10)
    task = asyncio.ensure_future(obtain(one_thread, lambda: made.append("it"), lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    busy.set()
    one_thread.submit(lambda: None).result(10)
    assert made == []


async def test_who_is_not_cancelled_has_it_or_is_told_why_not(one_thread: ThreadPoolExecutor) -> None:
    given_back: list[str] = []

    def fail() -> str:
        raise ZeroDivisionError

    assert await obtain(one_thread, lambda: "it", given_back.append) == "it"
    with pytest.raises(ZeroDivisionError):
        await obtain(one_thread, fail, given_back.append)
    assert given_back == []
