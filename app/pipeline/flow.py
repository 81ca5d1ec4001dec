"""The machinery of one run: its source, lanes, edges and sink in one task group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from app.core.channel import Channel, Edge, EndOfChannel
from app.core.frames import clear_frames
from app.core.interfaces import GivesStretches, Modest, Operator, Receipt, Sink, Source, Stage, TakesStretches
from app.core.page import Page
from app.core.segment import Parallel, Pulled, Quick, Segment, Serial, parts_of, split, worst_case_bytes
from app.pipeline.failure import cause, clean
from app.pipeline.lane import Lane
from app.pipeline.options import FlowOptions
from app.pipeline.statistics import FlowStatistics, Inside, StageClock, clocks_of

_PATIENCE_S = 0.2
"""How long one hand waits for the sink before another goes on with the source. Shorter, and a slow client costs a task;
longer, and one that does not read is rescued later."""


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
    _lanes: list[Lane] = field(init=False)
    _edges: list[Edge] = field(init=False)
    _clocks: list[list[StageClock]] = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(init=False, default_factory=list)
    _inside: Inside = field(init=False)
    _stretches: tuple[GivesStretches, TakesStretches] | None = field(init=False, default=None)
    _input_bytes: int = field(init=False, default=0)
    _output_bytes: int = field(init=False, default=0)
    _input_ended: bool = field(init=False, default=False)
    _started: float | None = field(init=False, default=None)
    _first_byte_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._segments = split(self.stages)
        self._clocks = [clocks_of(segment) for segment in self._segments]
        names = ["source"]
        for segment in self._segments:
            name = parts_of(segment)[-1].name
            names = [*names[:-1], name] if isinstance(segment, Quick) else [*names, name]
        edges: list[Edge] = [Channel(name, self.options.high_water_bytes) for name in names]
        if self.last_edge is not None:
            edges[-1] = self.last_edge
        self._edges = edges
        # Asked once: to look whether something is of a protocol takes longer than to send a page.
        if isinstance(edges[-1], GivesStretches) and isinstance(self.sink, TakesStretches):
            self._stretches = edges[-1], self.sink
        self._inside = Inside(edges)
        self._lanes = [Lane(None, None, edges[0], [], self._inside, self.executor, self.options)]
        for segment, clocks in zip(self._segments, self._clocks, strict=True):
            if isinstance(segment, Quick):
                self._lanes[-1].then(segment.stages, clocks)
            else:
                inp, out = edges[len(self._lanes) - 1], edges[len(self._lanes)]
                self._lanes.append(Lane(segment, inp, out, clocks, self._inside, self.executor, self.options))

    @property
    def worst_case_bytes(self) -> int:
        """The most bytes this run can hold: the figure it is admitted by."""
        return worst_case_bytes(
            self._segments,
            page_bytes=self.options.page_bytes,
            high_water_bytes=self.options.high_water_bytes,
            lanes=self.options.lanes,
            outside_bytes=self.outside_bytes + self.sink.holds,
            source_page_bytes=self.options.source_page_bytes,
        )

    def fit(self, limit_bytes: int) -> None:
        """Have modest operators hold no more than ``limit_bytes`` leave, as far as they can."""
        for stage in self.stages:
            excess_bytes = self.worst_case_bytes - limit_bytes
            if excess_bytes > 0 and isinstance(stage, Modest):
                stage.spare(excess_bytes)

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
                        group.create_task(clean(self._carry(group)))
                    else:
                        self._tasks.append(group.create_task(clean(self._pump())))
                        for index in range(1, len(self._lanes)):
                            self._tasks.append(group.create_task(clean(self._drive(index))))
                        group.create_task(clean(self._drain()))
            except BaseExceptionGroup as failures:
                raise cause(failures) from failures
            return await self.sink.commit()
        except BaseException as error:
            await self.sink.abort()
            clear_frames(error)  # the sink's, where it failed to commit
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
            self._tasks.append(group.create_task(clean(self._pump())))

        started = time.perf_counter()
        async for page in self.source:
            lane.lap("idle_s", started)
            self._input_bytes += page.nbytes
            for result in await lane.results(page):
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
        for result in await lane.rest():
            self._pick_up(result)
            await self._write(result)

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
        await lane.finish()

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
            await self._write_stretches()
            page = await self._next_result()

    async def _write_stretches(self) -> None:
        """What is left of the result may be in a file, and the sink may have a way for files."""
        if self._stretches is None:
            return
        edge, sink = self._stretches
        while sink.takes_stretches and (stretch := edge.stretch()) is not None:
            await sink.write_stretch(stretch)
            self._output_bytes += stretch.nbytes

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
            await lane.run_parallel(segment)
        elif isinstance(segment, Serial):
            if await lane.run_serial(segment.stages):
                self._give_up(index)
        else:
            assert isinstance(segment, Pulled)
            await lane.run_pulled(segment.operator)
            self._give_up(index)  # an operator may end before its input does
        await lane.finish()

    def _give_up(self, index: int) -> None:
        """Nothing before a lane matters any more, and it may be waiting for input that never comes."""
        for task in self._tasks[:index]:
            task.cancel()
