"""The composition root: the only file that knows everybody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
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
from app.metrics import Metrics, Readings
from app.plan import BuildOptions
from app.runs.book import Book
from app.runs.record import Run
from app.runs.runner import Runner
from app.settings import Settings
from app.stages.sql import warm_up
from app.stores.spool import Spool
from app.web.errors import problem, problem_of_status
from app.web.protocol import FileSender, Limits, PagePool, Wire, fastest_way
from app.web.routes import Health, operation_routes, run_routes, transform_routes
from app.web.transform import TransformOptions, Workshop

log = logging.getLogger("weir")

_LAG_EVERY_S = 0.25
_SWEEP_EVERY_S = 5.0
_MOST_RECYCLED_BYTES = 4 << 30
_MOST_FREE_PAGES = 8
"""Pages that are kept for the next body. More, and memory lies idle; fewer, and a busy server touches fresh memory."""


def build_options(settings: Settings, temp_directory: str) -> BuildOptions:
    """The part of the settings that pipelines are built with."""
    return BuildOptions(
        page_bytes=settings.page_bytes,
        max_line_bytes=settings.max_line,
        max_expansion=settings.max_expansion,
        whole_bytes=settings.memory_budget // 4,
        threads=min(settings.worker_threads, 2),
        temp_directory=temp_directory,
    )


def create_app(settings: Settings, run_prefix: str = "") -> FastAPI:
    """The ASGI application, whose runs' ids begin with ``run_prefix``. It takes its place in the spool at once, and gives
    it back when its lifespan ends."""
    spool = Spool(
        settings.spool_dir,
        limit_bytes=settings.spool_limit,
        recycle_bytes=min(settings.spool_limit // 8, _MOST_RECYCLED_BYTES),
    )
    kept_bytes = min(settings.page_bytes * _MOST_FREE_PAGES, settings.memory_budget // 32)
    pool = PagePool(settings.page_bytes, keep_bytes=kept_bytes)
    budget = Budget(settings.memory_budget - kept_bytes, max_flows=settings.max_flows, wait_s=settings.admit_timeout)
    book = Book(ttl_s=settings.result_ttl)
    executor = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="weir-worker")
    io_executor = ThreadPoolExecutor(8, thread_name_prefix="weir-io")
    # Fewer than cores: a thread sends at memory speed, and the loop has to get its turn.
    send_executor = ThreadPoolExecutor(max(1, settings.worker_threads // 2), thread_name_prefix="weir-send")
    wire = Wire(
        pool,
        FileSender(send_executor),
        Limits(
            header_s=settings.header_timeout,
            keep_alive_s=settings.keep_alive_timeout,
            idle_s=settings.idle_timeout,
            min_bytes_per_s=settings.min_rate,
            request_s=settings.request_timeout,
        ),
        settings.socket_bytes,
    )
    health = Health()
    metrics = Metrics(
        Readings(
            budget=budget.statistics,
            spool=spool.statistics,
            edges=book.edge_bytes,
            in_flight=book.in_flight,
            kept=book.kept,
            pages=pool.statistics,
            arrow_allocated_bytes=pa.total_allocated_bytes,
        )
    )
    workshop = Workshop(
        runner=Runner(budget, book, _observer(metrics), run_prefix),
        spool=spool,
        executor=executor,
        io_executor=io_executor,
        options=TransformOptions(
            build=build_options(settings, str(spool.directory)),
            high_water_bytes=settings.high_water_bytes,
            lanes=2 * settings.worker_threads,
            max_body_bytes=settings.max_body,
            idle_s=settings.idle_timeout,
            socket_bytes=settings.socket_bytes if settings.wire == "pages" else 0,
        ),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warm_up()
        watches = [
            asyncio.create_task(_watch_lag(metrics)),
            asyncio.create_task(_sweep(book, min(_SWEEP_EVERY_S, settings.result_ttl / 4))),
            asyncio.create_task(_choose_way(wire.files, spool.directory, send_executor)),
        ]
        health.ready = True
        try:
            yield
        finally:
            health.ready = False
            for watch in watches:
                watch.cancel()
            book.close()
            executor.shutdown()
            io_executor.shutdown()
            send_executor.shutdown()
            spool.close()

    app = FastAPI(
        title="Weir",
        version=version("weir"),
        summary="POST a file larger than memory, get it back transformed while it still uploads.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(transform_routes(workshop, settings.pipelines_dir))
    app.include_router(run_routes(book, io_executor))
    app.include_router(operation_routes(metrics.registry, health))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_router)
    app.add_exception_handler(RequestValidationError, _refused_parameter)
    app.state.wire = wire
    return app


def _observer(metrics: Metrics) -> Callable[[Run], None]:
    """What is counted and logged at the end of every run."""

    def observe(run: Run) -> None:
        code = run.error.code if run.error is not None else None
        metrics.count("weir_runs_total", mode=run.mode, outcome=run.state)
        metrics.observe("weir_run_seconds", run.elapsed_s, mode=run.mode)
        if run.admission_wait_s is not None:
            metrics.observe("weir_admission_wait_seconds", run.admission_wait_s)
        if run.first_byte_s is not None:
            metrics.observe("weir_first_byte_seconds", run.first_byte_s)
        metrics.count("weir_input_bytes_total", run.input_bytes, format=run.source)
        metrics.count("weir_output_bytes_total", run.output_bytes, format=run.target, sink="response")
        rows = {"read": run.rows_in or 0, "written": run.rows_out or 0, "rejected": run.rows_rejected}
        for result, count in rows.items():
            metrics.count("weir_rows_total", count, result=result)
        for reject, count in run.rejected.items():
            metrics.count("weir_rejected_total", count, code=reject)
        for stage in run.stages:
            for state, seconds in (("busy", stage.busy_s), ("blocked", stage.blocked_s), ("idle", stage.idle_s)):
                metrics.count("weir_stage_seconds_total", max(0.0, seconds), stage=stage.name, state=state)
        level = logging.INFO if run.state == "succeeded" else logging.WARNING
        log.log(
            level,
            "run %s %s%s: %d bytes in, %d out, %.2f s",
            run.id,
            run.state,
            f" ({code})" if code else "",
            run.input_bytes,
            run.output_bytes,
            run.elapsed_s,
        )

    return observe


async def _watch_lag(metrics: Metrics) -> None:
    """Measure how late the loop wakes whoever is due."""
    while True:
        due = time.monotonic() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        metrics.observe("weir_event_loop_lag_seconds", max(0.0, time.monotonic() - due))


async def _sweep(book: Book, every_s: float) -> None:
    """Drop what runs left once it is old, whether anybody asks or not."""
    while True:
        await asyncio.sleep(every_s)
        book.sweep()


async def _choose_way(files: FileSender, directory: Path, executor: Executor) -> None:
    """Measure which way files are best sent here; until that is known they are copied."""
    files.way = await asyncio.get_running_loop().run_in_executor(executor, fastest_way, directory)
    log.info("files are sent by %s", files.way)


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return problem(refusal)


async def _refused_by_router(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_of_status(error.status_code, str(error.detail))


async def _refused_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return problem(Refusal("bad_argument", f"{first['loc'][-1]}: {first['msg']}"))
