"""What a thread makes for a task that may be cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")


async def obtain(executor: Executor, make: Callable[[], T], give_back: Callable[[T], object]) -> T:
    """What ``make`` gives on a thread of ``executor``; the caller has to give it back.

    After a cancellation nobody has it: ``make`` was not begun, or what it made is given back as soon as it is there, on
    its thread. That is not waited for. Raises what ``make`` raises.
    """

    def give_back_what_was_made(done: Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            give_back(done.result())

    making = executor.submit(make)
    try:
        return await asyncio.wrap_future(making)
    except BaseException:
        making.add_done_callback(give_back_what_was_made)
        raise
