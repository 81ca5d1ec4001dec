"""The engine: one task group per run, one channel per edge, worker threads for the stages, a summary at the end.

It knows no stage, no store and no HTTP. Waiting points downstream only, so no cycle of waits can form inside a run. A
channel is closed only by someone who finished well; failure travels as cancellation of the task group, and then the
sink is aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError as ThreadCancelled
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from app.core.channel import Channel, ChannelStatistics, Edge, EndOfChannel
from app.core.errors import Refusal
from app.core.interfaces import Operator, Receipt, Sated, Sink, Source, Stage
from app.core.page import Page
from app.core.segment import Parallel, Pulled, Quick, Segment, Serial, split, worst_case_bytes

T = TypeVar("T")

_PATIENCE_S = 0.2
"""How long one hand waits for the sink before another goes on with the source. Shorter, and a slow client costs a task;
longer, and one that does not read is rescued later."""


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """``page_bytes``: the largest page on any edge. Too small, and hops to threads (80-100 us each) are all there is;
    too large, and pages leave the processor's cache. ``high_water_bytes``: what one edge may hold; too small and
    neighbours wait for each other, too large and memory is spent on waiting pages. ``lanes``: pages of one parallel
    segment in work; two per thread keep the threads busy while the head of the order is awaited."""

    page_bytes: int
    high_water_bytes: int
    lanes: int


@dataclass(slots=True)
class StageClock:
    """Where a stage's time goes, in seconds, and what passed through it.

    ``busy``: computing, summed over threads where it is ``parallel``. ``idle``: its segment waits for input.
    ``blocked``: its segment waits for room downstream.
    """

    name: str
    parallel: bool = False
    busy_s: float = 0.0
    idle_s: float = 0.0
    blocked_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    rows_in: int = 0
    rows_out: int = 0

    def add(self, other: StageClock) -> None:
        """Add what ``other`` has seen."""
        self.busy_s += other.busy_s
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out


@dataclass(frozen=True, slots=True)
class FlowStatistics:
    """A snapshot of a run, taken at any time. ``peak_bytes`` counts pages on edges and in hands."""

    input_bytes: int
    output_bytes: int
    inside_bytes: int
    peak_bytes: int
    first_byte_s: float | None
    stages: tuple[StageClock, ...]
    edges: tuple[ChannelStatistics, ...]


@dataclass(slots=True)
class _Inside:
    """The bytes of all pages in hands and on ``edges``, changed and read on the loop only."""

    edges: list[Edge]
    in_hands: int = 0
    peak_bytes: int = 0

    @property
    def nbytes(self) -> int:
        total = self.in_hands
        for edge in self.edges:
            total += edge.held_bytes
        return total

    def pick_up(self, nbytes: int) -> None:
        self.in_hands += nbytes
        if (inside := self.nbytes) > self.peak_bytes:
            self.peak_bytes = inside

    def put_down(self, nbytes: int) -> None:
        self.in_hands -= nbytes


@dataclass(slots=True)
class Flow:
    """The machinery of one run: pages are pulled from ``source``, pushed through ``stages``, written to ``sink``.

    ``executor`` runs the stages; it is shared by all runs. ``outside_bytes`` is what source and sink hold by
    themselves. ``last_edge``, if given, stands before the sink in place of a channel.
    """

    source: Source
    stages: Sequence[Stage | Operator]
    sink: Sink
    executor: Executor
    options: FlowOptions
    outside_bytes: int = 0
    last_edge: Edge | None = None
    _segments: list[Segment] = field(init=False)
    _lanes: list[_Lane] = field(init=False)
    _edges: list[Edge] = field(init=False)
    _clocks: list[list[StageClock]] = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(init=False, default_factory=list)
    _inside: _Inside = field(init=False)
    _input_bytes: int = field(init=False, default=0)
    _output_bytes: int = field(init=False, default=0)
    _input_ended: bool = field(init=False, default=False)
    _started: float | None = field(init=False, default=None)
    _first_byte_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._segments = split(self.stages)
        self._clocks = [
            [StageClock(stage.name, isinstance(segment, Parallel)) for stage in _parts(segment)]
            for segment in self._segments
        ]
        names = ["source"]
        for segment in self._segments:
            name = _parts(segment)[-1].name
            names = [*names[:-1], name] if isinstance(segment, Quick) else [*names, name]
        edges: list[Edge] = [Channel(name, self.options.high_water_bytes) for name in names]
        if self.last_edge is not None:
            edges[-1] = self.last_edge
        self._edges = edges
        self._inside = _Inside(edges)
        self._lanes = [_Lane(None, None, edges[0], [], self._inside, self.executor, self.options)]
        for segment, clocks in zip(self._segments, self._clocks, strict=True):
            if isinstance(segment, Quick):
                self._lanes[-1].then(segment.stages, clocks)
            else:
                inp, out = edges[len(self._lanes) - 1], edges[len(self._lanes)]
                self._lanes.append(_Lane(segment, inp, out, clocks, self._inside, self.executor, self.options))

    @property
    def worst_case_bytes(self) -> int:
        """The most bytes this run can hold: the figure it is admitted by."""
        return worst_case_bytes(
            self._segments,
            page_bytes=self.options.page_bytes,
            high_water_bytes=self.options.high_water_bytes,
            lanes=self.options.lanes,
            outside_bytes=self.outside_bytes + self.sink.holds,
        )

    def statistics(self) -> FlowStatistics:
        """What has passed and what is inside, now."""
        return FlowStatistics(
            input_bytes=self._input_bytes,
            output_bytes=self._output_bytes,
            inside_bytes=self._inside.nbytes,
            peak_bytes=self._inside.peak_bytes,
            first_byte_s=self._first_byte_s,
            stages=tuple(clock for clocks in self._clocks for clock in clocks),
            edges=tuple(edge.statistics() for edge in self._edges),
        )

    async def run(self) -> Receipt:
        """Run to the one of two ends: the sink is committed, or it is aborted and the cause is raised.

        Raises the first ``Refusal`` of any part; what else goes wrong in a stage comes out as ``stage_failed``. After a
        cancellation, as after any other end, no thread works for this run any more.
        """
        self._started = time.monotonic()
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    if self.last_edge is not None and len(self._lanes) == 1:
                        group.create_task(_clean(self._carry(group)))
                    else:
                        self._tasks.append(group.create_task(_clean(self._pump())))
                        for index in range(1, len(self._lanes)):
                            self._tasks.append(group.create_task(_clean(self._drive(index))))
                        group.create_task(_clean(self._drain()))
            except BaseExceptionGroup as failures:
                raise _cause(failures) from failures
            return await self.sink.commit()
        except BaseException:
            await self.sink.abort()
            raise
        finally:
            self._inside.in_hands = 0
            for edge in self._edges:
                edge.drop()
            if isinstance(self.source, AsyncGenerator):
                await self.source.aclose()  # it may have stopped with a page in its hands

    async def _carry(self, group: asyncio.TaskGroup) -> None:
        """Nothing between source and sink needs a thread: one hand takes each page from the one to the other.

        Once a page is not taken for a while, another hand goes on with the source, and what it takes waits on the edge
        (which may overflow): the client may be one that reads nothing until it has sent everything.
        """
        lane, loop = self._lanes[0], asyncio.get_running_loop()
        relieved = False

        def relieve() -> None:
            nonlocal relieved
            relieved = True
            self._tasks.append(group.create_task(_clean(self._pump())))

        started = time.perf_counter()
        async for page in self.source:
            lane.lap("idle_s", started)
            self._input_bytes += page.nbytes
            for result in lane.results(page):
                self._pick_up(result)
                started = time.perf_counter()
                patience = None if relieved else loop.call_later(_PATIENCE_S, relieve)
                try:
                    await self._write(result)
                finally:
                    if patience is not None:
                        patience.cancel()
                lane.lap("blocked_s", started)
                del result
            del page  # while the next one is waited for, this one is not ours to keep
            if relieved:
                await self._drain()
                return
            started = time.perf_counter()

    async def _pump(self) -> None:
        lane = self._lanes[0]
        started = time.perf_counter()
        async for page in self.source:
            lane.lap("idle_s", started)
            self._input_bytes += page.nbytes
            self._inside.pick_up(page.nbytes)
            await lane.give(page)
            del page  # while the next one is waited for, this one is not ours to keep
            started = time.perf_counter()
        self._input_ended = True
        lane.out.close()

    async def _drain(self) -> None:
        page = await self._next_result()
        if page is not None and self._input_ended:
            # All input is here, so the next page or the end is not far: a failure till then still has a status.
            first, page = page, await self._next_result()
            await self._write(first)
            del first
        while page is not None:
            await self._write(page)
            del page
            page = await self._next_result()

    async def _next_result(self) -> Page | None:
        try:
            page = await self._edges[-1].receive()
        except EndOfChannel:
            return None
        self._pick_up(page)
        return page

    def _pick_up(self, result: Page) -> None:
        if result.nbytes and self._first_byte_s is None and self._started is not None:
            self._first_byte_s = time.monotonic() - self._started
        self._inside.pick_up(result.nbytes)

    async def _write(self, page: Page) -> None:
        await self.sink.write(page)
        self._inside.put_down(page.nbytes)
        self._output_bytes += page.nbytes

    async def _drive(self, index: int) -> None:
        lane = self._lanes[index]
        segment = lane.segment
        if isinstance(segment, Parallel):
            await lane.run_parallel(segment.stages)
        elif isinstance(segment, Serial):
            if await lane.run_serial(segment.stages):
                # Nothing upstream matters any more, and it may be waiting for input that never comes.
                for task in self._tasks[:index]:
                    task.cancel()
        else:
            assert isinstance(segment, Pulled)
            await lane.run_pulled(segment.operator)
        lane.out.close()


@dataclass(slots=True)
class _Lane:
    """One segment between its two edges, with the quick stages behind it. The first of a flow has no segment, and its
    pages come from the source."""

    segment: Segment | None
    inp: Edge | None
    out: Edge
    clocks: list[StageClock]
    inside: _Inside
    executor: Executor
    options: FlowOptions
    quick: tuple[Stage, ...] = ()
    quick_clocks: list[StageClock] = field(default_factory=list)

    def then(self, stages: tuple[Stage, ...], clocks: list[StageClock]) -> None:
        """Take pages through ``stages`` before they go out."""
        self.quick, self.quick_clocks = (*self.quick, *stages), [*self.quick_clocks, *clocks]

    async def run_parallel(self, stages: tuple[Stage, ...]) -> None:
        """Several pages in work, results in order. A page's place is free again once its results are out."""
        places = asyncio.Semaphore(self.options.lanes)
        order: asyncio.Queue[tuple[list[Page], Future[tuple[list[Page], list[StageClock]]]] | None] = asyncio.Queue()
        submitted: set[Future[Any]] = set()

        async def dispatch() -> None:
            while True:
                await places.acquire()
                pages = await self.take()
                if pages is None:
                    order.put_nowait(None)
                    return
                future = self.executor.submit(_feed_all, stages, pages)
                submitted.add(future)
                order.put_nowait((pages, future))

        dispatcher = asyncio.create_task(dispatch())
        try:
            while (entry := await _either(order.get(), dispatcher)) is not None:
                pages, future = entry
                results, clocks = await asyncio.wrap_future(future)
                submitted.discard(future)
                for clock, seen in zip(self.clocks, clocks, strict=True):
                    clock.add(seen)
                self.inside.put_down(_nbytes(pages))
                self.inside.pick_up(_nbytes(results))
                for page in results:
                    await self.give(page)
                places.release()
                del entry, pages, future, results
        finally:
            dispatcher.cancel()
            await _settle(submitted)

    async def run_serial(self, stages: tuple[Stage, ...]) -> bool:
        """One page at a time, results taken lazily: a page's worth per hop. True when the rest does not matter."""
        while (pages := await self.take()) is not None:
            await self._exhaust(_serve(stages, self.clocks, pages))
            self.inside.put_down(_nbytes(pages))
            if (sated := _sated(stages)) is not None:
                await self._exhaust(_flush(stages, self.clocks, sated))
                return True
        await self._exhaust(_flush(stages, self.clocks, 0))
        return False

    async def _exhaust(self, results: Iterator[Page]) -> None:
        more = True
        while more:
            pages, more = await _hop(self.executor, _collect, results, self.options.page_bytes)
            self.inside.pick_up(_nbytes(pages))
            for page in pages:
                await self.give(page)

    async def run_pulled(self, operator: Operator) -> None:
        """The operator on a thread of its own; the thread waits for the loop, never the loop for the thread."""
        bridge = _Bridge(self, asyncio.get_running_loop())
        with ThreadPoolExecutor(1, thread_name_prefix=f"weir-{operator.name}") as own_thread:
            future = own_thread.submit(bridge.carry, operator)
            try:
                await asyncio.wrap_future(_forward(future))
            finally:
                bridge.stop()
                await _settle((future,))

    async def take(self) -> list[Page] | None:
        """The next page, with those that wait behind it as long as all are less than one page; None at the end."""
        assert isinstance(self.inp, Channel)
        started = time.perf_counter()
        try:
            pages = [await self.inp.receive()]
        except EndOfChannel:
            return None
        finally:
            self.lap("idle_s", started)
        room = self.options.page_bytes - pages[0].nbytes
        while room > 0 and (page := self.inp.receive_nowait(room)) is not None:
            pages.append(page)
            room -= page.nbytes
        self.inside.pick_up(_nbytes(pages))
        return pages

    def results(self, page: Page) -> Iterable[Page]:
        """What the quick stages make of a page."""
        return _through(self.quick, self.quick_clocks, page, 0) if self.quick else (page,)

    async def give(self, page: Page) -> None:
        """Send on a result that was picked up."""
        if self.quick:
            self.inside.put_down(page.nbytes)
            for result in self.results(page):
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


class _Bridge:
    """Lets an operator's thread take pages from, and give pages to, the channels of the loop."""

    def __init__(self, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None:
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
            raise _stage_failed(operator.name, error) from error
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


def _parts(segment: Segment) -> tuple[Stage | Operator, ...]:
    return (segment.operator,) if isinstance(segment, Pulled) else segment.stages


def _nbytes(pages: Iterable[Page]) -> int:
    return sum(page.nbytes for page in pages)


def _through(stages: tuple[Stage, ...], clocks: list[StageClock], page: Page, index: int) -> Iterator[Page]:
    """Push one page through the stages from ``index`` on, depth first, timing each stage by itself."""
    if index == len(stages):
        yield page
        return
    clocks[index].bytes_in += page.nbytes
    clocks[index].rows_in += page.rows
    yield from _timed(stages, clocks, index, lambda: stages[index].feed(page))


def _serve(stages: tuple[Stage, ...], clocks: list[StageClock], pages: list[Page]) -> Iterator[Page]:
    for page in pages:
        yield from _through(stages, clocks, page, 0)
        if _sated(stages) is not None:
            return


def _sated(stages: tuple[Stage, ...]) -> int | None:
    return next((index for index, stage in enumerate(stages) if isinstance(stage, Sated) and stage.sated), None)


def _flush(stages: tuple[Stage, ...], clocks: list[StageClock], start: int) -> Iterator[Page]:
    for index in range(start, len(stages)):
        yield from _timed(stages, clocks, index, stages[index].flush)


def _timed(
    stages: tuple[Stage, ...], clocks: list[StageClock], index: int, call: Callable[[], Iterable[Page]]
) -> Iterator[Page]:
    clock = clocks[index]
    results: Iterator[Page] | None = None
    while True:
        started = time.perf_counter()
        try:
            if results is None:
                results = iter(call())
            page = next(results, None)
        except Refusal:
            raise
        except Exception as error:
            raise _stage_failed(stages[index].name, error) from error
        finally:
            clock.busy_s += time.perf_counter() - started
        if page is None:
            return
        clock.bytes_out += page.nbytes
        clock.rows_out += page.rows
        yield from _through(stages, clocks, page, index + 1)


def _feed_all(stages: tuple[Stage, ...], pages: list[Page]) -> tuple[list[Page], list[StageClock]]:
    clocks = [StageClock(stage.name) for stage in stages]
    return [result for page in pages for result in _through(stages, clocks, page, 0)], clocks


def _collect(results: Iterator[Page], enough_bytes: int) -> tuple[list[Page], bool]:
    """Results until they make up a page; and whether there may be more."""
    pages: list[Page] = []
    collected = 0
    for page in results:
        pages.append(page)
        collected += page.nbytes
        if collected >= enough_bytes:
            return pages, True
    return pages, False


async def _hop(executor: Executor, work: Callable[..., T], *arguments: Any) -> T:
    """Run ``work`` on a thread. When cancelled, wait until the thread let go, then raise."""
    future = executor.submit(work, *arguments)
    try:
        return await asyncio.wrap_future(_forward(future))
    finally:
        await _settle((future,))


def _forward(future: Future[T]) -> Future[T]:
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


async def _settle(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun and wait for what has, whatever happens: threads hold memory that is accounted for."""
    running = [asyncio.wrap_future(_forward(future)) for future in futures if not future.done() and not future.cancel()]
    while pending := [future for future in running if not future.done()]:
        with contextlib.suppress(asyncio.CancelledError):  # the caller raises it again when it is done here
            await asyncio.wait(pending)
    for future in running:
        future.exception()  # looked at, so that asyncio does not report it as lost


async def _either(wanted: Coroutine[Any, Any, T], other: asyncio.Task[Any]) -> T:
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


def _stage_failed(name: str, error: Exception) -> Refusal:
    return Refusal("stage_failed", f"the stage {name!r} failed: {type(error).__name__}: {error}")


async def _clean(work: Coroutine[Any, Any, None]) -> None:
    """Do the work; if it fails, or is cancelled, let go of the pages in the frames that the exception remembers: they
    would stay until it is collected."""
    try:
        await work
    except BaseException as error:
        _clear_frames(error)
        raise


def _clear_frames(error: BaseException) -> None:
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        failure = todo.pop()
        if failure is None or id(failure) in seen:
            continue
        seen.add(id(failure))
        traceback.clear_frames(failure.__traceback__)
        todo += [failure.__cause__, failure.__context__]
        if isinstance(failure, BaseExceptionGroup):
            todo += failure.exceptions


def _cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that began it: the first refusal, or else the first of all."""
    flat: list[BaseException] = []
    todo: list[BaseException] = [failures]
    while todo:
        failure = todo.pop(0)
        if isinstance(failure, BaseExceptionGroup):
            todo[:0] = failure.exceptions
        else:
            flat.append(failure)
    return next((failure for failure in flat if isinstance(failure, Refusal)), flat[0])
