"""The composition root: the only file that knows everybody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.core.budget import Budget
from app.core.errors import Refusal
from app.core.interfaces import Spill
from app.framing.native import LIBRARY
from app.metrics import Metrics, Readings
from app.observer import observer
from app.orders.desk import Desk
from app.orders.lookups import Lookups
from app.orders.workshop import WorkOptions, Workshop
from app.plan import BuildOptions
from app.runs.book import Book
from app.runs.database import Database, sqlite_url
from app.runs.ledger import Ledger
from app.runs.owners import BEAT_S, Owner
from app.runs.runner import Runner
from app.settings import Settings
from app.stages.sql import warm_up
from app.stages.sql_engine import QueryOptions
from app.stores.catalogue import Stores
from app.stores.kept import Shelf
from app.stores.metered import PartMeter
from app.stores.objects import TransientReason
from app.stores.retried import Others, Patience
from app.stores.s3 import S3Client, S3Options
from app.stores.spool import Spool
from app.user_steps import install_user_steps
from app.web.errors import problem, problem_of_status
from app.web.lookup_routes import lookup_routes
from app.web.protocol import FileSender, Limits, PagePool, Wire, fastest_way
from app.web.routes import Health, operation_routes, transform_routes
from app.web.run_routes import run_routes

log = logging.getLogger("weir")

_LAG_EVERY_S = 0.25
_REFRESH_S = 1.0
STORE_THREADS = 32
"""Calls to stores at a time, of all runs together."""
_MOST_RECYCLED_BYTES = 4 << 30
_MOST_FREE_PAGES = 8
"""Pages that are kept for the next body. More, and memory lies idle; fewer, and a busy server touches fresh memory."""


def build_options(settings: Settings, spill: Spill) -> BuildOptions:
    """The part of the settings that pipelines are built with."""
    return BuildOptions(
        page_bytes=settings.page_bytes,
        max_line_bytes=settings.max_line,
        max_expansion=settings.max_expansion,
        whole_bytes=settings.memory_budget // 4,
        query=QueryOptions(
            page_bytes=settings.page_bytes,
            threads=min(settings.worker_threads, 2),
            whole_bytes=settings.query_bytes,
            spill=spill,
            least_bytes=settings.query_memory,
        ),
    )


def open_stores(
    settings: Settings, meter: PartMeter, on_retry: Callable[[TransientReason], object], others: Others
) -> Stores:
    """The stores that the settings describe, with nothing allowed but what they say. ``others`` is for ``Retried``."""
    options = S3Options(
        endpoint_url=settings.s3_endpoint_url,
        addressing=settings.s3_addressing,
        connections=STORE_THREADS,
        equal_parts=settings.s3_equal_parts,
    )
    return Stores(
        S3Client(options),
        allow=settings.s3_allow,
        named=settings.stores,
        patience=Patience(),
        meter=meter,
        on_retry=on_retry,
        others=others,
    )


def open_database(settings: Settings) -> Database:
    """Where runs and writes are written down."""
    return Database(settings.state or sqlite_url(settings.spool_dir / "state.db"))


def part_room_bytes(settings: Settings) -> int:
    """What a part of an upload may grow to, so that all that are on their way take a quarter of the budget."""
    return settings.memory_budget // 4 // (settings.s3_parts_in_flight + 1)


def create_app(settings: Settings, run_prefix: str = "") -> FastAPI:
    """The ASGI application, whose runs' ids begin with ``run_prefix``. It takes its place in the spool at once, and gives
    it back when its lifespan ends."""
    install_user_steps()
    spool = Spool(
        settings.spool_dir,
        limit_bytes=settings.spool_limit,
        recycle_bytes=min(settings.spool_limit // 8, _MOST_RECYCLED_BYTES),
    )
    kept_bytes = min(settings.page_bytes * _MOST_FREE_PAGES, settings.memory_budget // 32)
    pool = PagePool(settings.page_bytes, keep_bytes=kept_bytes)
    budget = Budget(settings.memory_budget - kept_bytes, max_flows=settings.max_flows, wait_s=settings.admit_timeout)
    executor = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="weir-worker")
    io_executor = ThreadPoolExecutor(8, thread_name_prefix="weir-io")
    # Fewer than cores: a thread sends at memory speed, and the loop has to get its turn.
    send_executor = ThreadPoolExecutor(max(1, settings.worker_threads // 2), thread_name_prefix="weir-send")
    wire = Wire(
        pool,
        FileSender(send_executor, library=LIBRARY),
        Limits(
            header_s=settings.header_timeout,
            keep_alive_s=settings.keep_alive_timeout,
            idle_s=settings.idle_timeout,
            min_bytes_per_s=settings.min_rate,
            request_s=settings.request_timeout,
        ),
        settings.socket_bytes,
        LIBRARY,
    )
    database = open_database(settings)
    owner = Owner(database, spool.directory)
    ledger = Ledger(database, owner.id)
    meter = PartMeter(lambda seconds: metrics.observe("weir_s3_part_seconds", seconds))
    stores = open_stores(
        settings,
        meter,
        on_retry=lambda reason: metrics.count("weir_s3_retries_total", reason=reason),
        others=ledger.uploads_beside,
    )
    shelf = Shelf(settings.spool_dir / "kept", spool, stores)
    state_executor = ThreadPoolExecutor(2, thread_name_prefix="weir-state")
    store_executor = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="weir-store")
    book = Book(database, owner.id, shelf, state_executor, ttl_s=settings.result_ttl)
    health = Health()
    metrics = Metrics(
        Readings(
            budget=budget.statistics,
            spool=spool.statistics,
            edges=book.edge_bytes,
            in_flight=book.in_flight,
            pages=pool.statistics,
            parts_in_flight=lambda: meter.in_flight,
            open_uploads=lambda: ledger.open_writes,
            arrow_allocated_bytes=pa.total_allocated_bytes,
        )
    )
    lookups = Lookups(settings.lookups_dir, stores, budget, io_executor, max_line_bytes=settings.max_line)
    workshop = Workshop(
        runner=Runner(budget, book, observer(metrics), run_prefix),
        spool=spool,
        shelf=shelf,
        stores=stores,
        lookups=lookups,
        ledger=ledger,
        executor=executor,
        io_executor=io_executor,
        store_executor=store_executor,
        on_abort=lambda done: metrics.count("weir_s3_aborts_total", result="aborted" if done else "failed"),
        options=WorkOptions(
            build=build_options(settings, spool),
            high_water_bytes=settings.high_water_bytes,
            lanes=settings.lanes,
            max_body_bytes=settings.max_body,
            idle_s=settings.idle_timeout,
            socket_bytes=settings.socket_bytes if settings.wire == "pages" else 0,
            part_bytes=settings.s3_part_bytes,
            part_room_bytes=part_room_bytes(settings),
            parts_in_flight=settings.s3_parts_in_flight,
            results=settings.results,
        ),
    )
    desk = Desk(workshop, owner, at_a_time=max(1, settings.max_flows // 4), most_attempts=settings.run_attempts)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warm_up()
        await asyncio.get_running_loop().run_in_executor(state_executor, owner.beat)
        if run_prefix in ("", "00"):  # what stands there from before is counted once
            await _take_stock(shelf, book, io_executor)
        watches = [
            asyncio.create_task(_watch_lag(metrics)),
            asyncio.create_task(_every(_REFRESH_S, book.refresh)),
            asyncio.create_task(_every(BEAT_S, desk.beat)),
            asyncio.create_task(_every(BEAT_S, desk.look_round)),
            asyncio.create_task(_every(min(BEAT_S, settings.result_ttl / 4), book.sweep)),
            asyncio.create_task(_choose_way(wire.files, spool.directory, send_executor)),
        ]
        health.ready = True
        try:
            yield
        finally:
            health.ready = False
            for watch in watches:
                watch.cancel()
            await asyncio.wait(watches)
            await desk.close()
            await book.close()
            await asyncio.get_running_loop().run_in_executor(state_executor, owner.leave)
            for pool_of_threads in (executor, io_executor, send_executor, store_executor, state_executor):
                pool_of_threads.shutdown()
            stores.close()
            database.close()
            spool.close()

    app = FastAPI(
        title="Weir",
        version=version("weir"),
        summary="POST a file larger than memory, get it back transformed while it still uploads.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(transform_routes(workshop, desk, settings.pipelines_dir))
    app.include_router(run_routes(workshop, desk, settings.pipelines_dir))
    app.include_router(lookup_routes(lookups))
    app.include_router(operation_routes(metrics.registry, health))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_router)
    app.add_exception_handler(RequestValidationError, _refused_parameter)
    app.state.wire = wire
    return app


async def _watch_lag(metrics: Metrics) -> None:
    """Measure how late the loop wakes whoever is due."""
    while True:
        due = time.monotonic() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        metrics.observe("weir_event_loop_lag_seconds", max(0.0, time.monotonic() - due))


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do something now and again, for ever. What fails is tried the next time."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed; it is tried again", getattr(work, "__qualname__", work))
        await asyncio.sleep(seconds)


async def _take_stock(shelf: Shelf, book: Book, executor: Executor) -> None:
    known = await book.known_places()
    await asyncio.get_running_loop().run_in_executor(executor, shelf.take_stock, known)


async def _choose_way(files: FileSender, directory: Path, executor: Executor) -> None:
    """Measure which way files are best sent here; until that is known they are copied."""
    files.way = await asyncio.get_running_loop().run_in_executor(executor, fastest_way, directory, LIBRARY)
    log.info("files are sent by %s", files.way)


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return problem(refusal)


async def _refused_by_router(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_of_status(error.status_code, str(error.detail), error.headers)


async def _refused_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return problem(Refusal("bad_argument", f"{first['loc'][-1]}: {first['msg']}"))
