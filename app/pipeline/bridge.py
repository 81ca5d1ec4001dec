"""Between an operator's thread, which pulls, and the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError as ThreadCancelled
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from app.core.errors import Refusal
from app.core.interfaces import Operator
from app.core.page import Page
from app.pipeline.push import stage_failed
from app.pipeline.statistics import StageClock

if TYPE_CHECKING:
    from app.pipeline.lane import Lane

T = TypeVar("T")


class Bridge:
    """Lets an operator's thread take pages from, and give pages to, the channels of the loop."""

    def __init__(self, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        self._lane = lane
        self._loop = loop
        # More than one at a time: the engine below may pull pages on a thread of its own while results are given.
        self._waiting: set[Future[Any]] = set()
        self._guard = threading.Lock()
        self._stopped = False

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
                self._wait(self._give(page))
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
        with self._guard:
            self._stopped = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    async def _give(self, page: Page) -> None:
        self._lane.inside.pick_up(page.nbytes)
        await self._lane.give(page)

    def _pages(self, clock: StageClock) -> Iterator[Page]:
        while (pages := self._wait(self._lane.take())) is not None:
            for page in pages:
                clock.bytes_in += page.nbytes
                clock.rows_in += page.rows
                yield page
                # The operator holds it until it asks for the next one.
                self._loop.call_soon_threadsafe(self._lane.inside.put_down, page.nbytes)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._guard:
            if self._stopped:
                coroutine.close()
                raise ThreadCancelled
            waiting: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waiting.add(waiting)
        try:
            return waiting.result()
        finally:
            self._waiting.discard(waiting)
