"""``weir run``: one pipeline over a file, a pipe or an object, with the very engine that the server uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app.core.budget import Budget
from app.core.errors import Refusal
from app.core.interfaces import Sink, Source
from app.main import build_options, open_database, open_stores, part_room_bytes
from app.orders.lookups import Lookups
from app.pipeline import Flow, FlowOptions
from app.plan import FORMATS, Allowance, Built, Plan, build, build_within, format_of_file_name, sniff
from app.runs.ledger import Ledger
from app.runs.owners import BEAT_S, Owner
from app.settings import Settings
from app.sinks.file import FileSink, StdoutSink
from app.sinks.multipart import MultipartSink
from app.sinks.rejects import RejectsLog
from app.sources.file import LocalFile, file_pages
from app.sources.random_access import ReadFile, read_pages
from app.sources.spooled import spooled_pages
from app.sources.stored import StoredObject
from app.stores.catalogue import Stores
from app.stores.metered import PartMeter
from app.stores.objects import Writing
from app.stores.part_sizes import part_sizes
from app.stores.spool import Spool


async def run_once(plan: Plan, source: str, target: str, rejects_path: Path | None, settings: Settings) -> None:
    """Run ``plan`` from ``source`` to ``target``: files, ``-``, or objects. Raises what goes wrong; then no part of the
    result is there, but for what standard output has taken."""
    spool = Spool(settings.spool_dir, limit_bytes=settings.spool_limit)
    ledger: Ledger | None = None

    def others(url: str, token: str) -> set[str] | None:
        return set() if ledger is None else ledger.uploads_beside(url, token)

    stores = open_stores(settings, PartMeter(lambda _: None), lambda _: None, others)
    rejects = RejectsLog(spool)
    with ThreadPoolExecutor(settings.worker_threads) as executor, ThreadPoolExecutor(8) as io_executor:
        try:
            async with contextlib.AsyncExitStack() as ends:
                reader = ends.enter_context(ThreadPoolExecutor(1))
                opened = _open(source, settings, stores, io_executor, reader, ends)
                told = format_of_file_name(target) if target != "-" else None
                plan = replace(plan, source=plan.source or format_of_file_name(source), target=plan.target or told)
                if plan.source is None and plan.needs_rows:
                    plan = replace(plan, source=sniff(await opened.peek(), plan.charset))
                plan = replace(plan, source=plan.source or FORMATS["bytes"])
                plan = replace(plan, target=plan.target or plan.source)
                budget = Budget(settings.memory_budget, max_flows=1, wait_s=0)
                tables = Lookups(settings.lookups_dir, stores, budget, io_executor, max_line_bytes=settings.max_line)
                lookups = await ends.enter_async_context(tables.hold(plan.lookups))
                options = build_options(settings, spool)
                allowance = Allowance(budget.free_bytes, settings.high_water_bytes, settings.lanes)
                built = build_within(allowance, options, partial(build, plan, keep=rejects.keep, lookups=lookups))
                pages: Source
                if built.read_file is not None and opened.pages_by is not None:
                    pages = _shown(opened.pages_by(built.read_file), None, source)
                    opened.holds = 0
                else:
                    pages = _shown(opened.pages(), opened.nbytes, source)
                    if built.read_file is not None:
                        pages = spooled_pages(pages, spool, built.read_file, io_executor)
                sink: Sink
                if _is_url(target):
                    ledger = await ends.enter_async_context(_ledger(settings, spool, io_executor))
                    sink = _object_sink(target, plan, built, opened.nbytes, settings, stores, ledger, io_executor)
                else:
                    sink = StdoutSink(1, io_executor) if target == "-" else FileSink(Path(target), io_executor)
                flow = Flow(
                    pages,
                    built.stages,
                    sink,
                    executor,
                    FlowOptions(
                        built.page_bytes,
                        max(settings.high_water_bytes, built.page_bytes),
                        settings.lanes,
                        built.source_page_bytes,
                    ),
                    outside_bytes=built.outside_bytes + opened.holds,
                )
                try:
                    flow.fit(budget.free_bytes)
                    async with budget.admit(flow.worst_case_bytes):
                        await flow.run()
                finally:
                    await sink.abort()  # what is committed stays
            if rejects_path is not None:
                _copy_rejects(rejects, rejects_path)
        finally:
            rejects.close()
            stores.close()
            spool.close()


@dataclass(slots=True)
class _Opened:
    """An input: its size if that is known, what reading it in order holds, and its pages, of which some were looked at.
    ``pages_by`` reads it at random, where that can be."""

    nbytes: int | None
    holds: int
    source: AsyncIterator[Any]
    pages_by: Callable[[ReadFile], AsyncIterator[Any]] | None = None
    ahead: Any = None

    async def peek(self) -> bytes:
        """How it begins."""
        self.ahead = await anext(self.source, None)
        return b"" if self.ahead is None else bytes(self.ahead.payload[: 64 * 1024])

    async def pages(self) -> AsyncIterator[Any]:
        """All of it."""
        if self.ahead is not None:
            ahead, self.ahead = self.ahead, None
            yield ahead
        async for page in self.source:
            yield page


def _open(
    name: str,
    settings: Settings,
    stores: Stores,
    executor: Executor,
    reader: Executor,
    ends: contextlib.AsyncExitStack,
) -> _Opened:
    if _is_url(name):
        stop = threading.Event()
        ends.callback(stop.set)
        place = stores.reopen(name, stop)
        stored = StoredObject(
            place,
            place.store.head(place.key),
            range_bytes=settings.s3_part_bytes,
            page_bytes=settings.page_bytes,
            ahead=settings.s3_parts_in_flight,
            executor=executor,
            stop=stop,
        )
        pages = stored.pages()
        ends.push_async_callback(pages.aclose)
        return _Opened(stored.nbytes, stored.holds, pages, lambda read: stored.pages_by(read, reader))
    try:
        fd = 0 if name == "-" else os.open(name, os.O_RDONLY)
    except OSError as error:
        raise Refusal("source_failed", f"{name}: {error.strerror}") from error
    if fd:
        ends.callback(os.close, fd)
    seen = os.fstat(fd)
    opened = _Opened(seen.st_size or None, 0, file_pages(fd, page_bytes=settings.page_bytes, executor=executor))
    if stat.S_ISREG(seen.st_mode):
        opened.pages_by = lambda read: read_pages(LocalFile(fd), read, executor)
    return opened


def _object_sink(
    url: str,
    plan: Plan,
    built: Built,
    length_bytes: int | None,
    settings: Settings,
    stores: Stores,
    ledger: Ledger,
    executor: Executor,
) -> MultipartSink:
    token, stop = secrets.token_hex(8), threading.Event()
    assert plan.target is not None
    target = stores.reopen(url, stop).named(f"{token}{plan.target.suffixes[0]}")
    return MultipartSink(
        target,
        Writing(token, built.media_type, None, plan.overwrite),
        sizes=part_sizes(
            target.store.limits,
            wanted_bytes=settings.s3_part_bytes,
            room_bytes=part_room_bytes(settings),
            length_bytes=length_bytes,
            exact=built.keeps_length,
        ),
        in_flight=settings.s3_parts_in_flight,
        page_bytes=built.page_bytes,
        hashed=False,
        executor=executor,
        ledger=ledger,
        stop=stop,
        on_abort=lambda _: None,
    )


@contextlib.asynccontextmanager
async def _ledger(settings: Settings, spool: Spool, executor: Executor) -> AsyncIterator[Ledger]:
    """The ledger that servers on this spool have: should this process be killed, they abort what it left."""
    database = open_database(settings)
    owner = Owner(database, spool.directory)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(executor, owner.beat)

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await loop.run_in_executor(executor, owner.beat)

    beating = asyncio.create_task(beat())
    try:
        yield Ledger(database, owner.id)
    finally:
        beating.cancel()
        await asyncio.wait((beating,))
        owner.leave()
        database.close()


async def _shown(pages: AsyncIterator[Any], total: int | None, name: str) -> AsyncIterator[Any]:
    """The same pages, with a progress bar on standard error if that is a terminal."""
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=Path(name).name, disable=None) as bar:
        async for page in pages:
            bar.update(page.nbytes)
            yield page


def _is_url(name: str) -> bool:
    return name.startswith(("s3://", "store:"))


def _copy_rejects(rejects: RejectsLog, path: Path) -> None:
    with path.open("wb") as file:
        while data := rejects.read(file.tell(), 1024 * 1024):
            file.write(data)
