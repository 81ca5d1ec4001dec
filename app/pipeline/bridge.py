"""Between an operator's thread, which pulls, and the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError as ThreadCancelled
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

    One page, or some small ones, wait on this side of the loop while the operator works on the one before; and one, or
    some small ones that make a page at the most, on their way back.
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
        self._results: deque[Page] = deque()
        self._given_bytes = 0
        self._over = False
        self._filled = asyncio.Event()

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

    async def deliver(self) -> None:
        """Runs on the loop until all results are given on, after ``carry`` has ended well."""
        while True:
            await self._filled.wait()
            with self._changed:
                self._filled.clear()
                pages, over = list(self._results), self._over
                self._results.clear()
            for page in pages:
                self._lane.inside.pick_up(page.nbytes)
                await self._lane.give(page)
                with self._changed:
                    self._given_bytes -= page.nbytes
                    self._changed.notify_all()
            if over:
                return
            del pages

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
                    with self._changed:
                        self._over = True
                    self._loop.call_soon_threadsafe(self._filled.set)
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
            self._results.clear()
            self._changed.notify_all()

    def _give(self, page: Page) -> None:
        def has_room() -> bool:
            return not self._given_bytes or self._given_bytes + page.nbytes <= self._lane.options.page_bytes

        with self._changed:
            self._changed.wait_for(lambda: self._stopped or has_room())
            if self._stopped:
                raise ThreadCancelled
            self._given_bytes += page.nbytes
            self._results.append(page)
        self._loop.call_soon_threadsafe(self._filled.set)

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
