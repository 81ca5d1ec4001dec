"""An input of random access as the pages that a format reads from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from typing import Any

from app.core.interfaces import RandomAccess
from app.core.page import Page

ReadFile = Callable[[RandomAccess], Iterator[Page]]
"""What a format makes of an input: a blocking iterator."""


async def read_pages(
    input: RandomAccess, read: ReadFile, executor: Executor, *, ended: Callable[[], Any] = lambda: None
) -> AsyncGenerator[Page]:
    """The pages that ``read`` makes of ``input``, one per hop to a thread; one without bytes only gives a chance to stop,
    and is not among them. Once this is closed, no thread is in ``input``
    any more; ``ended`` is called before that is waited for."""
    loop = asyncio.get_running_loop()
    pages = read(input)
    reading: asyncio.Future[Page | None] | None = None
    try:
        while True:
            # Shielded: a cancelled future of a running call would be forgotten, and the call would go on.
            reading = loop.run_in_executor(executor, next, pages, None)
            page = await asyncio.shield(reading)
            reading = None
            if page is None:
                return
            if page.nbytes:
                yield page
            del page
    finally:
        ended()
        while reading is not None and not reading.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([reading])
        if reading is not None:
            reading.exception()  # looked at, so that asyncio does not report it as lost
