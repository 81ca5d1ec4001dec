"""Work on threads, awaited so that no thread works any more once the awaiting is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


async def hop(executor: Executor, work: Callable[..., T], *arguments: Any) -> T:
    """Run ``work`` on a thread. When cancelled, wait until the thread let go, then raise."""
    future = executor.submit(work, *arguments)
    try:
        return await outcome(future)
    finally:
        if not future.done():
            await settle((future,))


async def outcome(future: Future[T]) -> T:
    """The result of ``future``, or what it raises. A cancelled wait leaves it alone.

    As ``asyncio.wrap_future``, at a third of its price: this is paid for every page.
    """
    await over(future)
    return future.result()


async def over(future: Future[Any]) -> None:
    """Return once ``future`` is done, however."""
    if not future.done():
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(_wake, seen))
        await seen


def _wake(seen: asyncio.Future[None]) -> None:
    if not seen.done():
        seen.set_result(None)


async def settle(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun and wait for what has, whatever happens: threads hold memory that is accounted for."""
    for future in [future for future in futures if not future.cancel()]:
        while not future.done():
            with contextlib.suppress(
                BaseException
            ):  # a cancellation, which the caller raises again when it is done here
                await outcome(future)
