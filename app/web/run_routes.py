"""``/v1/runs``: what goes on, what was, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from app.core.errors import Refusal
from app.orders.desk import Desk
from app.orders.order import Order
from app.orders.workshop import Workshop, object_name
from app.plan import FORMATS, format_of_file_name, items_of_document
from app.runs.book import Entry
from app.runs.record import FINAL, Run
from app.web.asking import Asked, ask
from app.web.idempotency import MOST_CHARACTERS, opened
from app.web.kept import KeptResponse
from app.web.negotiation import wants_sha256
from app.web.receipts import accepted_response

_WAIT_S = 60.0
_SETTLE_S = 2.0
"""A client that has its whole answer may ask for the rejects while they are being put away."""
_PIECE_BYTES = 256 * 1024
_EVENTS_EVERY_S = 1.0
_MOST_DOCUMENT_BYTES = 1 << 20


def run_routes(workshop: Workshop, desk: Desk, pipelines_dir: Path | None) -> APIRouter:
    """All of ``/v1/runs``."""
    router = APIRouter(prefix="/v1/runs", tags=["runs"])
    book, io_executor = workshop.runner.book, workshop.io_executor

    @router.get("", summary="The latest runs, newest first")
    async def list_runs(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JSONResponse:
        return JSONResponse({"runs": [run.document() for run in await book.newest(limit)]})

    @router.post(
        "",
        status_code=202,
        summary="Run a pipeline over an object of a store",
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _ORDER}}}},
    )
    async def post_run(
        request: Request,
        idempotency_key: Annotated[str, Header(max_length=MOST_CHARACTERS)] = "",
        want_repr_digest: Annotated[str, Header()] = "",
    ) -> Response:
        document = await _document(request)
        source = document.pop("source", None)
        if not isinstance(source, str):
            raise Refusal("bad_argument", "source is missing: s3://BUCKET/KEY or store:NAME/KEY")
        items = tuple(items_of_document(document))
        hashed = wants_sha256(want_repr_digest)
        return await _order(workshop, desk, await ask(items, pipelines_dir), source, idempotency_key, hashed)

    @router.get("/{run_id}", summary="One run; wait=SECONDS waits for its end, that long at most")
    async def get_run(run_id: str, wait: Annotated[float, Query(ge=0, le=_WAIT_S)] = 0.0) -> JSONResponse:
        entry = await book.wait(run_id, wait)
        return JSONResponse(entry.now().document(), headers={"Weir-Run-Id": run_id})

    @router.get("/{run_id}/events", summary="Server-sent events: progress every second, then the end")
    async def get_events(run_id: str, last_event_id: Annotated[str, Header()] = "") -> Response:
        entry = await book.find(run_id)
        after = int(last_event_id) if last_event_id.isdecimal() else -1
        return StreamingResponse(
            _events(lambda: book.wait(run_id, _EVENTS_EVERY_S), entry, after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "Weir-Run-Id": run_id, "X-Accel-Buffering": "no"},
        )

    @router.get("/{run_id}/rejects", summary="Quarantined rows as NDJSON: line, byte, column, code, detail, text")
    async def get_rejects(run_id: str) -> Response:
        entry = await book.wait(run_id, _SETTLE_S)
        if entry.rejects is None:
            if not entry.ended.is_set():
                raise Refusal("conflict", f"run {run_id} is {entry.run.state}: come again", retry_after_s=1)
            if entry.expired:
                raise Refusal("gone", f"what run {run_id} left is older than RESULT_TTL and was dropped")
            raise Refusal("not_found", f"run {run_id} keeps no rejects: it did not run with on_error=quarantine")
        place = entry.rejects
        loop = asyncio.get_running_loop()
        kept = await workshop.open_kept(place) if place else None

        async def pieces() -> AsyncIterator[bytes]:
            if kept is None:
                return
            try:
                read = kept.pieces(0, kept.nbytes, _PIECE_BYTES)
                while (piece := await loop.run_in_executor(io_executor, next, read, None)) is not None:
                    yield piece
            finally:
                kept.close()

        return StreamingResponse(pieces(), media_type="application/x-ndjson", headers={"Weir-Run-Id": run_id})

    @router.head("/{run_id}/result", include_in_schema=False)
    @router.get(
        "/{run_id}/result",
        summary="The kept result of a run: ranges, ETag, Repr-Digest, HEAD",
        response_class=Response,
    )
    async def get_result(run_id: str) -> Response:
        entry = await book.find(run_id)
        result = entry.result
        if result is None:
            raise _no_result(entry)
        headers = [(b"weir-run-id", run_id.encode())]
        if result.coding is not None:
            headers.append((b"content-encoding", result.coding.encode()))
        return KeptResponse(result, workshop.open_kept, io_executor, workshop.runner.budget, headers)

    @router.delete("/{run_id}", status_code=204, summary="Cancel a run and forget it")
    async def delete_run(run_id: str) -> Response:
        await book.forget(await book.find(run_id))
        return Response(status_code=204)

    return router


async def _order(workshop: Workshop, desk: Desk, asked: Asked, source: str, key: str, hashed: bool) -> Response:
    plan = asked.plan
    if plan.whole:
        raise Refusal("bad_argument", "deliver= is for answers: a run's result is kept, or goes to its sink")
    book, stop = workshop.runner.book, threading.Event()
    place = workshop.stores.find(source, stop)
    found = plan.source or format_of_file_name(place.key)
    if found is None and plan.needs_rows:
        raise Refusal("unknown_format", f"say from: the name of {source[:200]} does not tell the format")
    source_format = found or FORMATS["bytes"]
    target = plan.target or (format_of_file_name(plan.sink) if plan.sink else None) or source_format
    order = Order(
        asked.items,
        asked.stored,
        None,
        source,
        source_format.name,
        target.name,
        overwrite=plan.overwrite,
        hashed=hashed,
    )
    async with workshop.built(order.plan()):
        pass  # what is wrong with it is said now
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(workshop.store_executor, place.store.head, place.key)
    run = Run(
        id=workshop.runner.new_id(),
        mode="async",
        pipeline=order.plan().describe(),
        source=source_format.name,
        target=target.name,
        created_at=time.time(),
        input=place.url,
    )
    if plan.sink is not None:
        named = workshop.stores.find(plan.sink, stop).named(object_name(run.id, order.plan()))
        run = replace(run, sink=named.url)
    entry = await opened(book, run, key, "/v1/runs", order.text(), asked=order.text())
    if entry.run.id == run.id:
        if not key:
            await book.save(entry)
        desk.take(entry, order)
    return accepted_response(entry.run, preferred=False)


def _no_result(entry: Entry) -> Refusal:
    run = entry.now()
    if not entry.ended.is_set():
        return Refusal("conflict", f"run {run.id} is {run.state}: its result is not whole yet", retry_after_s=1)
    if run.state != "succeeded":
        return Refusal("conflict", f"run {run.id} has {run.state}, it has no result")
    if run.sink is not None:
        return Refusal("not_found", f"the result of run {run.id} is at {run.sink}")
    if entry.expired and run.mode in ("whole", "async"):
        return Refusal("gone", f"the result of run {run.id} is older than RESULT_TTL and was dropped")
    return Refusal("not_found", f"run {run.id} kept no result: it ran neither with deliver=whole nor asynchronously")


async def _events(look: Callable[[], Awaitable[Entry]], entry: Entry, after: int) -> AsyncIterator[bytes]:
    """The record whenever it was looked at, as ``progress``, and the final one as ``end``. An event's id is the run's age
    in milliseconds, so that whoever comes back is not told what he knows."""
    while True:
        run = entry.now()
        final = run.state in FINAL
        number = round((run.elapsed_s if final else time.time() - run.created_at) * 1000)
        if number > after or (final and number != after):
            name = "end" if final else "progress"
            yield f"event: {name}\nid: {number}\ndata: {json.dumps(run.document())}\n\n".encode()
        if final:
            return
        try:
            entry = await look()
        except Refusal:  # it was deleted
            return


async def _document(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _MOST_DOCUMENT_BYTES:
            raise Refusal("body_too_large", "the description of a run may have 1 MiB")
    try:
        document = orjson.loads(data)  # it refuses half of a surrogate pair, which no record could hold
    except ValueError as error:
        raise Refusal("bad_argument", f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refusal("bad_argument", "the body is an object: source, and from, steps, to, sink as needed")
    return document


_ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["source"],
    "properties": {
        "source": {"type": "string", "description": "`s3://bucket/key` or `store:NAME/key`"},
        "from": {"type": "string", "description": "its format; else the name tells"},
        "steps": {"type": "array", "description": "`{step: argument}` or the step's name, in order", "items": {}},
        "to": {"type": "string", "description": "the result's format; else the sink's name tells, or it stays"},
        "sink": {"type": "string", "description": "where the result goes; without it, it is kept with the run"},
        "overwrite": {"type": "boolean", "default": True},
        "pipeline": {"type": "string", "description": "a stored pipeline, instead of steps"},
        "types": {"type": "object", "description": "columns whose type is set"},
        "header": {"type": "boolean", "default": True},
        "delimiter": {"type": "string"},
        "quote": {"type": "string"},
        "null": {"type": "array", "description": "texts that stand for null", "items": {"type": "string"}},
        "encoding": {"type": "string", "default": "utf-8"},
        "infer": {"type": "string", "enum": ["first", "full"], "default": "first"},
        "on_error": {"type": "string", "enum": ["fail", "skip", "quarantine"]},
        "max_errors": {"type": "string"},
    },
}
