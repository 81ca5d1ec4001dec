"""The routes of the service and their place in the OpenAPI document."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, RedirectResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from app.core.errors import known
from app.orders.desk import Desk
from app.orders.workshop import Workshop
from app.plan import FORMATS, ON_ERROR, READABLE, STEPS
from app.web.asking import Asked, ask
from app.web.transform import TransformResponse


class Health:
    """Whether the server wants requests. It goes ready with its start and unready with its drain."""

    def __init__(self) -> None:
        self.ready = False
        self.started_at = time.time()


def transform_routes(workshop: Workshop, desk: Desk, pipelines_dir: Path | None) -> APIRouter:
    """``/v1/transform``. It takes no body parameter: the response reads the body itself, page by page."""
    router = APIRouter(tags=["transform"])

    def ask_of(request: Request) -> Callable[[], Awaitable[Asked]]:
        items = parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=200)
        return lambda: ask(tuple(items), pipelines_dir)

    async def transform(request: Request) -> Response:
        file_name = request.path_params.get("file_name", "")
        return TransformResponse(workshop, desk, ask_of(request), file_name=file_name)

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
    ("header", "csv, tsv: `false`: the first record is a row, and columns are called column0, column1, …"),
    ("delimiter", "csv, tsv: one ASCII character, `\\t` or `tab`"),
    ("quote", "csv, tsv: one ASCII character, or `none`"),
    ("null", "csv, tsv: unquoted texts that stand for null, with commas between them; else the empty one does"),
    ("encoding", "of csv, tsv, ndjson and lines, such as latin-1, windows-1252 or utf-16; else utf-8"),
    ("infer", "`full`: column types are those of all rows, found in a first pass, not those of the first page"),
    ("on_error", f"what becomes of bad rows: {known(ON_ERROR)}"),
    ("max_errors", "rows, or a percentage: more bad rows than this fail the run"),
    ("deliver", "`whole`: all or nothing, with Content-Length, Repr-Digest and ETag"),
    ("sink", "`s3://bucket/key` or `store:NAME/key`: the result goes there, the answer is 201 with a receipt"),
    ("overwrite", "`false`: an object that is there already makes the run fail (as does If-None-Match: *)"),
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
    201: {"description": "with `sink=`: the object's URL, bytes, rows, parts, ETag and digest"},
    202: {"description": "with `Prefer: respond-async`: the run goes on, Location tells where"},
    400: {"description": "the pipeline is wrong", **_PROBLEM},
    403: {"description": "the store may not be used, see S3_ALLOW", **_PROBLEM},
    412: {"description": "the object is there already", **_PROBLEM},
    413: {"description": "too large for a limit, which is named", **_PROBLEM},
    415: {"description": "unknown content type or coding", **_PROBLEM},
    422: {"description": "bad data: line, byte, column", **_PROBLEM},
    502: {"description": "the object store failed, also when tried again", **_PROBLEM},
    503: {"description": "the memory budget is taken; Retry-After tells when to come again", **_PROBLEM},
    507: {"description": "the disk spool is full", **_PROBLEM},
}
