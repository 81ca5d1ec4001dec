"""The routes of the service and their place in the OpenAPI document."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from app.core.errors import Refusal, known
from app.plan import FORMATS, ON_ERROR, READABLE, STEPS, Plan, plan_of_query, plan_of_text, with_pipeline
from app.runs.book import Book
from app.stores.pipelines import stored_pipeline
from app.web.kept import kept_response
from app.web.transform import TransformResponse, Workshop

_PIECE_BYTES = 256 * 1024
_WAIT_S = 60.0


class Health:
    """Whether the server wants requests. It goes ready with its start and unready with its drain."""

    def __init__(self) -> None:
        self.ready = False
        self.started_at = time.time()


def transform_routes(workshop: Workshop, pipelines_dir: Path | None) -> APIRouter:
    """``/v1/transform``. It takes no body parameter: the response reads the body itself, page by page."""
    router = APIRouter(tags=["transform"])

    def plan_of(request: Request) -> Callable[[], Awaitable[Plan]]:
        async def plan() -> Plan:
            asked = plan_of_query(parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=200))
            if asked.pipeline is None:
                return asked
            text = await stored_pipeline(pipelines_dir, asked.pipeline)
            return with_pipeline(asked, plan_of_text(text, asked.pipeline))

        return plan

    async def transform(request: Request) -> Response:
        file_name = request.path_params.get("file_name", "")
        return TransformResponse(workshop, plan_of(request), file_name=file_name)

    for path, shown in (("/v1/transform", True), ("/v1/transform/{file_name}", False)):
        for method in ("POST", "PUT"):
            router.add_api_route(
                path,
                transform,
                methods=[method],
                response_class=Response,
                include_in_schema=shown,
                operation_id=f"transform_{method.lower()}",
                summary="Transform a file while it uploads",
                description=_DESCRIPTION,
                openapi_extra=_OPENAPI,
                responses=_RESPONSES,
            )
    return router


def run_routes(book: Book, io_executor: Executor) -> APIRouter:
    """``/v1/runs``. Files are read on ``io_executor``."""
    router = APIRouter(prefix="/v1/runs", tags=["runs"])

    @router.get("", summary="The latest runs, newest first")
    async def list_runs(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JSONResponse:
        return JSONResponse({"runs": [run.document() for run in book.newest(limit)]})

    @router.get("/{run_id}", summary="One run; wait=SECONDS waits for its end, that long at most")
    async def get_run(run_id: str, wait: Annotated[float, Query(ge=0, le=_WAIT_S)] = 0.0) -> JSONResponse:
        entry = book.find(run_id)
        if wait and not entry.ended.is_set():
            await asyncio.wait((asyncio.ensure_future(entry.ended.wait()),), timeout=wait)
        return JSONResponse(entry.now().document(), headers={"Weir-Run-Id": run_id})

    @router.get("/{run_id}/rejects", summary="Quarantined rows as NDJSON: line, byte, column, code, detail, text")
    async def get_rejects(run_id: str) -> Response:
        entry = book.find(run_id)
        kept = entry.rejects
        if kept is None:
            raise Refusal("not_found", f"run {run_id} keeps no rejects: it did not run with on_error=quarantine")

        async def pieces() -> AsyncIterator[bytes]:
            loop = asyncio.get_running_loop()
            for offset in range(0, kept.nbytes, _PIECE_BYTES):
                yield await loop.run_in_executor(io_executor, kept.read, offset, _PIECE_BYTES)

        return StreamingResponse(pieces(), media_type="application/x-ndjson", headers={"Weir-Run-Id": run_id})

    @router.head("/{run_id}/result", include_in_schema=False)
    @router.get(
        "/{run_id}/result",
        summary="The kept result of a run with deliver=whole: ranges, ETag, Repr-Digest, HEAD",
        response_class=Response,
    )
    async def get_result(run_id: str) -> Response:
        entry = book.find(run_id)
        run, result = entry.now(), entry.result
        if result is not None:
            headers = [(b"weir-run-id", run_id.encode())]
            if result.coding is not None:
                headers.append((b"content-encoding", result.coding.encode()))
            return kept_response(result, io_executor, headers)
        if not entry.ended.is_set():
            raise Refusal("conflict", f"run {run_id} is {run.state}: its result is not whole yet", retry_after_s=1)
        if run.state != "succeeded":
            raise Refusal("conflict", f"run {run_id} has {run.state}, it has no result")
        if entry.expired and run.mode == "whole":
            raise Refusal("gone", f"the result of run {run_id} is older than RESULT_TTL and was dropped")
        raise Refusal("not_found", f"run {run_id} kept no result: it did not run with deliver=whole")

    @router.delete("/{run_id}", status_code=204, summary="Cancel a run and forget it")
    async def delete_run(run_id: str) -> Response:
        book.forget(book.find(run_id))
        return Response(status_code=204)

    return router


def operation_routes(registry: CollectorRegistry, health: Health) -> APIRouter:
    """``/metrics``, ``/healthz``, ``/readyz``, ``/version`` and the front door."""
    router = APIRouter(tags=["operations"])

    @router.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    @router.get("/healthz", response_class=PlainTextResponse, summary="The event loop answers")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @router.get("/readyz", response_class=PlainTextResponse, summary="The server wants requests")
    async def readyz() -> PlainTextResponse:
        return PlainTextResponse("ready\n") if health.ready else PlainTextResponse("draining\n", 503)

    @router.get("/version", summary="Versions of the server and of what it stands on")
    async def versions() -> dict[str, Any]:
        parts = ("pyarrow", "duckdb", "uvicorn", "uvloop", "fastapi")
        return {
            "weir": version("weir"),
            "python": platform.python_version(),
            "started_at": health.started_at,
            **{part: version(part) for part in parts},
        }

    @router.get("/", include_in_schema=False)
    async def front_door() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router


_DESCRIPTION = (
    "The body is the file, raw or as the `file` part of a form; the result streams back while the upload is still"
    " going. Query parameters that bear a step's name are steps, **in the order written**, repeated as needed. After"
    " the first byte a failure breaks the framing: an answer that ends cleanly is whole."
)
_PARAMETERS = [
    ("from", f"format of the body: {known(READABLE)}; else Content-Type, the file name, or the data itself tell"),
    ("to", f"format of the result: {known(FORMATS)}; else Accept tells, or it stays as it is"),
    ("pipeline", "name of a stored pipeline, instead of steps"),
    ("types", "columns whose type is set: `col:type,…`"),
    ("on_error", f"what becomes of bad rows: {known(ON_ERROR)}"),
    ("max_errors", "rows, or a percentage: more bad rows than this fail the run"),
    ("deliver", "`whole`: all or nothing, with Content-Length, Repr-Digest and ETag"),
    *((step.name, f"step: {step.does}" + (f" ({step.argument})" if step.argument else "")) for step in STEPS.values()),
]
_OPENAPI: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in _PARAMETERS
    ],
    "requestBody": {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}
_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "the result, as a stream", "content": {"application/octet-stream": {}}},
    400: {"description": "the pipeline is wrong", **_PROBLEM},
    413: {"description": "too large for a limit, which is named", **_PROBLEM},
    415: {"description": "unknown content type or coding", **_PROBLEM},
    422: {"description": "bad data: line, byte, column", **_PROBLEM},
    503: {"description": "the memory budget is taken; Retry-After tells when to come again", **_PROBLEM},
    507: {"description": "the disk spool is full", **_PROBLEM},
}
