"""Between an operator's thread, which pulls, and the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError as ThreadCancelled
from concurrent.futures import Future
from typing import TYPE_CHECKING

from app.core.errors import Refusal
from app.core.interfaces import Operator
from app.core.page import Page
from app.pipeline.push import stage_failed
from app.pipeline.statistics import StageClock

if TYPE_CHECKING:
    from app.pipeline.lane import Lane


class Bridge:
    """Lets an operator's thread take pages from, and give pages to, the channels of the loop.

    One page, or some small ones, wait on this side of the loop while the operator works on the one before.
    """

    def __init__(self, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        self._lane = lane
        self._loop = loop
        self._changed = threading.Condition()
        self._ahead: deque[Page] = deque()
        self._ended = False
        self._failure: BaseException | None = None
        self._stopped = False
        self._empty = asyncio.Event()
        self._empty.set()
        # The engine below may pull pages on a thread of its own while a result is given.
        self._giving: Future[None] | None = None

    async def supply(self) -> None:
        """Runs on the loop, for the length of the stream."""
        try:
            while True:
                await self._empty.wait()
                self._empty.clear()
                pages = await self._lane.receive()
                with self._changed:
                    self._ended = pages is None
                    self._ahead.extend(pages or ())
                    self._changed.notify_all()
                if pages is None:
                    return
                del pages
        except Exception as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def carry(self, operator: Operator) -> None:
        """Runs on the operator's thread, for the length of the stream."""
        clock = self._lane.clocks[0]
        results = operator.run(self._pages(clock))
        try:
            while True:
                started, waited = time.perf_counter(), clock.idle_s
                page = next(results, None)
                clock.busy_s += time.perf_counter() - started - (clock.idle_s - waited)
                if page is None:
                    return
                clock.bytes_out += page.nbytes
                clock.rows_out += page.rows
                self._give(page)
        except (Refusal, ThreadCancelled):
            raise
        except Exception as error:
            raise stage_failed(operator.name, error) from error
        finally:
            close = getattr(results, "close", None)
            if close is not None:
                close()

    def stop(self) -> None:
        """Wake all threads that wait for the loop, and those that will; they end with ``CancelledError``."""
        with self._changed:
            self._stopped = True
            self._ahead.clear()
            self._changed.notify_all()
            giving = self._giving
        if giving is not None:
            giving.cancel()

    def _give(self, page: Page) -> None:
        async def give() -> None:
            self._lane.inside.pick_up(page.nbytes)
            await self._lane.give(page)

        with self._changed:
            if self._stopped:
                raise ThreadCancelled
            giving = self._giving = asyncio.run_coroutine_threadsafe(give(), self._loop)
        try:
            giving.result()
        finally:
            self._giving = None

    def _pages(self, clock: StageClock) -> Iterator[Page]:
        held_bytes = 0
        while (page := self._next(held_bytes)) is not None:
            clock.bytes_in += page.nbytes
            clock.rows_in += page.rows
            held_bytes = page.nbytes
            yield page
            del page  # the operator holds it until it asks for the next one

    def _next(self, held_bytes: int) -> Page | None:
        """The next page, None at the end; one of ``held_bytes`` is over."""
        self._loop.call_soon_threadsafe(self._lane.inside.put_down, held_bytes)
        with self._changed:
            if not (self._ahead or self._ended):
                started = time.perf_counter()
                self._changed.wait_for(lambda: self._ahead or self._ended or self._stopped or self._failure)
                self._lane.lap("idle_s", started)
            if self._stopped:
                raise ThreadCancelled
            if self._failure is not None:
                raise self._failure
            page = self._ahead.popleft() if self._ahead else None
            is_empty = not self._ahead
        if is_empty:
            self._loop.call_soon_threadsafe(self._empty.set)
        return page
