"""Work on threads, awaited so that no thread works any more once the awaiting is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError as ThreadCancelled
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


async def hop(executor: Executor, work: Callable[..., T], *arguments: Any) -> T:
    """Run ``work`` on a thread. When cancelled, wait until the thread let go, then raise."""
    future = executor.submit(work, *arguments)
    try:
        return await asyncio.wrap_future(forward(future))
    finally:
        await settle((future,))


def forward(future: Future[T]) -> Future[T]:
    """A future that ends as ``future`` does, and can be cancelled without touching it."""
    front = Future[T]()

    def copy(done: Future[T]) -> None:
        wanted = front.set_running_or_notify_cancel()
        if not wanted:
            return
        if done.cancelled():
            front.set_exception(ThreadCancelled())
        elif (error := done.exception()) is not None:
            front.set_exception(error)
        else:
            front.set_result(done.result())

    future.add_done_callback(copy)
    return front


async def settle(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun and wait for what has, whatever happens: threads hold memory that is accounted for."""
    running = [asyncio.wrap_future(forward(future)) for future in futures if not future.done() and not future.cancel()]
    while pending := [future for future in running if not future.done()]:
        with contextlib.suppress(asyncio.CancelledError):  # the caller raises it again when it is done here
            await asyncio.wait(pending)
    for future in running:
        future.exception()  # looked at, so that asyncio does not report it as lost


async def either(wanted: Coroutine[Any, Any, T], other: asyncio.Task[Any]) -> T:
    """The result of ``wanted``, or the failure of ``other`` if that comes first."""
    task = asyncio.ensure_future(wanted)
    try:
        if not other.done():
            await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
        if other.done() and not task.done():
            other.result()
        return await task
    finally:
        task.cancel()
