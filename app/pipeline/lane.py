"""One segment of a flow at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from app.core.channel import Channel, Edge, EndOfChannel
from app.core.interfaces import Interruptible, Operator, Stage
from app.core.page import Page
from app.core.segment import Parallel, Segment
from app.pipeline.bridge import Bridge
from app.pipeline.options import FlowOptions
from app.pipeline.push import Work, collect, flush, is_brisk, nbytes_of, sated, serve, through
from app.pipeline.statistics import Inside, StageClock
from app.pipeline.threads import hop, outcome, over, settle


@dataclass(slots=True)
class Lane:
    """One segment between its two edges, with the quick stages behind it. The first of a flow has no segment, and its
    pages come from the source."""

    segment: Segment | None
    inp: Edge | None
    out: Edge
    clocks: list[StageClock]
    inside: Inside
    executor: Executor
    options: FlowOptions
    quick: tuple[Stage, ...] = ()
    quick_clocks: list[StageClock] = field(default_factory=list)

    def then(self, stages: tuple[Stage, ...], clocks: list[StageClock]) -> None:
        """Take pages through ``stages`` before they go out."""
        self.quick, self.quick_clocks = (*self.quick, *stages), [*self.quick_clocks, *clocks]

    async def run_parallel(self, segment: Parallel) -> None:
        """Several pages in work, results in order, a page's worth per hop. A page's place is free again once all of its
        results are out."""
        in_turn = bool(segment.lead or segment.trail)
        places = asyncio.Semaphore(self.options.lanes)
        order: asyncio.Queue[tuple[Work, Future[tuple[list[Page], bool]]] | None] = asyncio.Queue()
        submitted: set[Future[Any]] = set()

        def submit(work: Work) -> Future[tuple[list[Page], bool]]:
            # A byte more than a page: mostly there is one result, and then that it is the last is known at once.
            future = self.executor.submit(work.some, self.options.page_bytes + 1)
            submitted.add(future)
            return future

        async def dispatch() -> None:
            work: Work | None = None
            pages: list[Page] | None = []
            try:
                while pages is not None:
                    await places.acquire()
                    pages = await self.take()
                    if pages is None and not in_turn:
                        return
                    if work is not None and work.future is not None and not is_brisk(segment.lead):
                        await over(work.future)  # no thread has to wait for its turn
                    work = Work(segment, pages, work if in_turn else None)
                    work.future = submit(work)
                    order.put_nowait((work, work.future))
                    pages = pages and []
            finally:
                order.put_nowait(None)

        dispatcher = asyncio.create_task(dispatch())
        try:
            while (entry := await order.get()) is not None:
                work, future = entry
                more = True
                while more:
                    results, more = await outcome(future)
                    submitted.discard(future)
                    work.future = None  # it would keep the results
                    self.inside.pick_up(nbytes_of(results))
                    if not more:
                        self._finish(work)
                    for page in results:
                        await self.give(page)
                    if more:
                        future = submit(work)
                places.release()
                del entry, work, future, results
            await dispatcher
        finally:
            dispatcher.cancel()
            await settle(submitted)

    def _finish(self, work: Work) -> None:
        for clock, seen in zip(self.clocks, work.clocks, strict=True):
            clock.add(seen)
        self.inside.put_down(work.nbytes)

    async def run_serial(self, stages: tuple[Stage, ...]) -> bool:
        """One page at a time, results taken lazily: a page's worth per hop. True when the rest does not matter."""
        while (pages := await self.take()) is not None:
            await self._exhaust(serve(stages, self.clocks, pages))
            self.inside.put_down(nbytes_of(pages))
            if (index := sated(stages)) is not None:
                await self._exhaust(flush(stages, self.clocks, index))
                return True
        await self._exhaust(flush(stages, self.clocks, 0))
        return False

    async def _exhaust(self, results: Iterator[Page]) -> None:
        more = True
        while more:
            pages, more = await hop(self.executor, collect, results, self.options.page_bytes)
            self.inside.pick_up(nbytes_of(pages))
            for page in pages:
                await self.give(page)

    async def run_pulled(self, operator: Operator) -> None:
        """The operator on a thread of its own; the thread waits for the loop, never the loop for the thread."""
        bridge = Bridge(self, asyncio.get_running_loop())
        supplier, deliverer = asyncio.create_task(bridge.supply()), asyncio.create_task(bridge.deliver())
        with ThreadPoolExecutor(1, thread_name_prefix=f"weir-{operator.name}") as own_thread:
            future = own_thread.submit(bridge.carry, operator)
            try:
                await asyncio.gather(outcome(future), deliverer)
            finally:
                supplier.cancel()
                deliverer.cancel()
                bridge.stop()
                if isinstance(operator, Interruptible) and not future.done():
                    operator.interrupt()
                await settle((future,))

    async def take(self) -> list[Page] | None:
        """The next page, with those that wait behind it as long as all are less than one page; None at the end."""
        started = time.perf_counter()
        try:
            return await self.receive()
        finally:
            self.lap("idle_s", started)

    async def receive(self) -> list[Page] | None:
        """As ``take``, for whoever notes by itself how long it waits."""
        assert isinstance(self.inp, Channel)
        try:
            pages = [await self.inp.receive()]
        except EndOfChannel:
            return None
        room = self.options.page_bytes - pages[0].nbytes
        while room > 0 and (page := self.inp.receive_nowait(room)) is not None:
            pages.append(page)
            room -= page.nbytes
        self.inside.pick_up(nbytes_of(pages))
        return pages

    async def results(self, page: Page) -> Iterable[Page]:
        """What the quick stages make of a page."""
        return await self._in_place(through(self.quick, self.quick_clocks, page, 0)) if self.quick else (page,)

    async def rest(self) -> Iterable[Page]:
        """What the quick stages kept back, once all pages are through."""
        return await self._in_place(flush(self.quick, self.quick_clocks, 0))

    async def _in_place(self, results: Iterator[Page]) -> Iterable[Page]:
        """``results``, to be made in place; or made on a thread, where one of the stages may take its time."""
        if is_brisk(self.quick):
            return results
        return await hop(self.executor, list, results)

    async def finish(self) -> None:
        """All pages are through: what is left, and the end."""
        for page in await self.rest():
            self.inside.pick_up(page.nbytes)
            await self._send(page)
        self.out.close()

    async def give(self, page: Page) -> None:
        """Send on a result that was picked up."""
        if self.quick:
            self.inside.put_down(page.nbytes)
            for result in await self.results(page):
                self.inside.pick_up(result.nbytes)
                await self._send(result)
        else:
            await self._send(page)

    async def _send(self, page: Page) -> None:
        started = time.perf_counter()
        await self.out.send(page)
        self.lap("blocked_s", started)
        self.inside.put_down(page.nbytes)

    def lap(self, state: Literal["idle_s", "blocked_s"], started: float) -> None:
        """Add the time since ``started`` to every clock."""
        seconds = time.perf_counter() - started
        for clock in (*self.clocks, *self.quick_clocks):
            if state == "idle_s":
                clock.idle_s += seconds
            else:
                clock.blocked_s += seconds
