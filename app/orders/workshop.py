"""What runs are made with: the process's budget, threads, spool and stores, and how sources, stages and sinks are
joined from them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from app.core.channel import Edge
from app.core.interfaces import Sink, Source
from app.core.obtain import obtain
from app.core.page import Page, Reject
from app.orders.lookups import Lookups
from app.orders.result import ResultSink
from app.pipeline import Flow, FlowOptions
from app.plan import Allowance, BuildOptions, Built, Plan, build, build_within
from app.runs.ledger import Ledger
from app.runs.runner import Account, Runner
from app.sinks.multipart import MultipartSink
from app.sinks.rejects import RejectsLog
from app.sinks.spooled import SpooledSink
from app.sources.spooled import spooled_pages
from app.sources.stored import StoredObject
from app.stores.catalogue import Located, Stores
from app.stores.kept import KeptBytes, Shelf
from app.stores.objects import ObjectInfo, Writing
from app.stores.part_sizes import part_sizes
from app.stores.spool import Spool


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """What the operator set for every run. ``part_bytes`` is what a part of an upload has at first, ``part_room_bytes``
    what it may grow to, ``parts_in_flight`` how many are sent, or fetched, at a time. ``results`` is where results are
    kept: None for beside the spool."""

    build: BuildOptions
    high_water_bytes: int
    lanes: int
    max_body_bytes: int
    idle_s: float
    socket_bytes: int
    part_bytes: int
    part_room_bytes: int
    parts_in_flight: int
    results: str | None


@dataclass(frozen=True, slots=True)
class Workshop:
    """See the module. ``executor`` runs stages, ``io_executor`` the disk, ``store_executor`` calls to stores."""

    runner: Runner
    spool: Spool
    shelf: Shelf
    stores: Stores
    lookups: Lookups
    ledger: Ledger
    executor: Executor
    io_executor: Executor
    store_executor: Executor
    on_abort: Callable[[bool], object]
    options: WorkOptions

    @contextlib.asynccontextmanager
    async def built(
        self,
        plan: Plan,
        *,
        decode: Sequence[str] = (),
        encode: str | None = None,
        keep: Callable[[Sequence[Reject]], None] | None = None,
    ) -> AsyncIterator[Built]:
        """The stages of ``plan`` (see ``build_within``), with the lookup tables that they hold until the scope ends."""
        async with self.lookups.hold(plan.lookups) as lookups:
            options = self.options
            allowance = Allowance(self.runner.budget.free_bytes, options.high_water_bytes, options.lanes)
            make = partial(build, plan, decode=decode, encode=encode, keep=keep, lookups=lookups)
            yield build_within(allowance, options.build, make)

    def flow(
        self,
        built: Built,
        source: Source,
        sink: Sink,
        *,
        outside_bytes: int = 0,
        last_edge: Edge | None = None,
    ) -> Flow:
        """The machinery of one run. ``outside_bytes`` is what the source holds."""
        options = self.options
        return Flow(
            source,
            built.stages,
            sink,
            self.executor,
            FlowOptions(
                built.page_bytes,
                max(options.high_water_bytes, built.page_bytes),
                options.lanes,
                built.source_page_bytes,
            ),
            outside_bytes=built.outside_bytes + outside_bytes,
            last_edge=last_edge,
        )

    def from_its_end(self, built: Built, source: Source) -> Source:
        """``source``, by way of the spool where its format is read from its end."""
        if built.read_file is None:
            return source
        return spooled_pages(source, self.spool, built.read_file, self.io_executor)

    def stored_object(self, place: Located, info: ObjectInfo, stop: threading.Event) -> StoredObject:
        """An object to read."""
        options = self.options
        return StoredObject(
            place,
            info,
            range_bytes=options.part_bytes,
            page_bytes=options.build.page_bytes,
            ahead=options.parts_in_flight,
            executor=self.store_executor,
            stop=stop,
        )

    def object_sink(
        self,
        url: str,
        name: str,
        writing: Writing,
        built: Built | None,
        length_bytes: int | None,
        *,
        hashed: bool = False,
        ours: bool = False,
    ) -> MultipartSink:
        """A sink to the object ``url``, or to ``name`` below it; ``length_bytes`` is the input's, where it is known
        (the object's own, without ``built``). What is ``ours`` need not be allowed."""
        options, stop = self.options, threading.Event()
        find = self.stores.reopen if ours else self.stores.find
        target = find(url, stop).named(name)
        return MultipartSink(
            target,
            writing,
            sizes=part_sizes(
                target.store.limits,
                wanted_bytes=options.part_bytes,
                room_bytes=options.part_room_bytes,
                length_bytes=length_bytes,
                exact=built is None or built.keeps_length,
            ),
            in_flight=options.parts_in_flight,
            page_bytes=options.build.page_bytes if built is None else built.page_bytes,
            hashed=hashed,
            executor=self.store_executor,
            ledger=self.ledger,
            stop=stop,
            on_abort=self.on_abort,
        )

    def result_sink(self, run_id: str, writing: Writing, built: Built, length_bytes: int | None) -> ResultSink:
        """A sink for a result that is kept."""
        if self.options.results is None:
            return ResultSink(SpooledSink(self.spool, self.io_executor), self.shelf, run_id, self.io_executor)
        url = f"{self.options.results.rstrip('/')}/"
        sink = self.object_sink(url, f"{run_id}.result", writing, built, length_bytes, hashed=True, ours=True)
        return ResultSink(sink, self.shelf, run_id, self.io_executor)

    async def open_kept(self, place: str) -> KeptBytes:
        """What is kept at ``place``; the caller closes it. Cancelled meanwhile, nothing stays open."""
        return await obtain(self.io_executor, partial(self.shelf.open, place), lambda kept: kept.close())

    async def keep_rejects(self, run_id: str, rejects: RejectsLog) -> str:
        """Keep quarantined rows with their run; their place, empty if there are none."""
        if rejects.file is None:
            return ""
        if self.options.results is None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.io_executor, self.shelf.put, rejects.file, f"{run_id}.rejects")
        url = f"{self.options.results.rstrip('/')}/"
        writing = Writing(f"{run_id}.rejects", "application/x-ndjson")
        sink = self.object_sink(url, f"{run_id}.rejects", writing, None, rejects.nbytes, ours=True)
        try:
            async for page in self._file_pages(rejects):
                await sink.write(page)
            await sink.commit()
        finally:
            await sink.abort()  # what is committed stays
        return sink.url

    async def _file_pages(self, rejects: RejectsLog) -> AsyncIterator[Page]:
        loop = asyncio.get_running_loop()
        for offset in range(0, rejects.nbytes, self.options.build.page_bytes):
            data = await loop.run_in_executor(self.io_executor, rejects.read, offset, self.options.build.page_bytes)
            yield Page(data, len(data))


def account_of(built: Built, spooled_bytes: Callable[[], int] = lambda: 0) -> Account:
    """How a run's rows are counted."""
    return Account(
        rows_in=built.rows_in,
        rows_out=built.rows_out,
        rejected=lambda: built.rejected,
        spooled_bytes=lambda: spooled_bytes() + built.spilled_bytes,
        passed_over=lambda: built.passed_over.rows,
        scanned_bytes=lambda: built.passed_over.scanned_bytes,
    )


def object_name(run_id: str, plan: Plan) -> str:
    """What an object is called whose name was left to us."""
    assert plan.target is not None
    return f"{run_id}{plan.target.suffixes[0]}"
