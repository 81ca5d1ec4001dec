"""``/v1/transform``: the body comes in, the result goes out while it does.

The response is a sink and the body is a source; one task runs the flow between them and one watches for the client's
leaving. Nothing stands between the flow and the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.core.errors import Refusal
from app.core.interfaces import Receipt, Sink, Source
from app.pipeline import Flow, FlowOptions
from app.plan import FORMATS, BuildOptions, Built, Plan, build, sniff
from app.runs.book import Entry, Result
from app.runs.runner import Account, Runner
from app.sinks.overflow import Overflow
from app.sinks.rejects import RejectsLog
from app.sinks.response import ResponseSink
from app.sinks.spooled import SpooledSink
from app.sources.request import RequestBody, body_too_large
from app.sources.spooled import spooled_pages
from app.stores.spool import Spool
from app.web.errors import problem
from app.web.kept import kept_response
from app.web.negotiation import (
    accepted_coding,
    content_codings,
    ends_its_body_early,
    file_name_of,
    with_source,
    with_target,
)
from app.web.protocol.exchange import Exchange
from app.web.ranges import Answer, Slice

_LOOK_EVERY_S = 0.5
"""How often a run is looked at for a client that neither reads nor leaves."""


@dataclass(frozen=True, slots=True)
class TransformOptions:
    """What the operator set for every request."""

    build: BuildOptions
    high_water_bytes: int
    lanes: int
    max_body_bytes: int
    idle_s: float
    socket_bytes: int


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a request needs of the process."""

    runner: Runner
    spool: Spool
    executor: Executor
    io_executor: Executor
    options: TransformOptions


class TransformResponse(Response):
    """Runs one pipeline between the request's body and the response's.

    It is an ASGI callable like every response, and only it calls ``receive`` and ``send``. Whatever fails before the
    first byte of the result gets its own status; after it, the answer is left incomplete and the server breaks the
    framing, so that no client takes it for whole.
    """

    def __init__(self, workshop: Workshop, plan: Callable[[], Awaitable[Plan]], *, file_name: str) -> None:
        """``plan`` is called when the response runs, and may refuse. ``file_name`` is the URL's last segment."""
        super().__init__()
        self._workshop = workshop
        self._plan = plan
        self._file_name = file_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; see the class."""
        exchange = _Exchange(self._workshop, Headers(scope=scope), scope, receive, send)
        try:
            await exchange.run(self._plan, self._file_name)
        except Refusal as refusal:
            if exchange.answered:
                return  # incomplete on purpose
            await problem(refusal, run_id=exchange.run_id)(scope, receive, send)


class _Exchange:
    """One request and its response."""

    def __init__(self, workshop: Workshop, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        self._shop = workshop
        self._headers = headers
        self._scope = scope
        self._receive = receive
        self._send = send
        self._wire: Exchange | None = scope.get("extensions", {}).get("weir.wire")
        self._sink: ResponseSink | None = None
        self._whole_started = False
        self._entry: Entry | None = None

    @property
    def answered(self) -> bool:
        """The status line is out."""
        return self._whole_started or (self._sink is not None and self._sink.started)

    @property
    def run_id(self) -> str | None:
        """The run's id, once there is a run."""
        return None if self._entry is None else self._entry.run.id

    async def run(self, plan_of: Callable[[], Awaitable[Plan]], file_name: str) -> None:
        """Read the words, the head and, where they do not tell, the first bytes; then run the flow."""
        options = self._shop.options
        plan = await plan_of()
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > options.max_body_bytes:
            raise body_too_large(options.max_body_bytes)
        content_type = self._headers.get("content-type", "")
        body = RequestBody(
            self._receive,
            page_bytes=options.build.page_bytes,
            max_body_bytes=options.max_body_bytes,
            idle_s=options.idle_s,
            content_type=content_type,
            offer=self._wire,
        )
        try:
            codings = content_codings(self._headers.get("content-encoding", ""))
            if (head := await body.head()) is not None:
                content_type, file_name = head[0], head[1] or file_name
            file_name = file_name or file_name_of(self._headers.get("content-disposition", ""))
            plan = with_source(plan, content_type=content_type, file_name=file_name)
            plan = with_target(plan, accept=self._headers.get("accept", ""))
            if plan.source is None and plan.needs_rows and codings:
                raise Refusal("unknown_format", "say from=FORMAT: the body is encoded, so its first bytes do not tell")
            if plan.source is None:
                plan = replace(plan, source=sniff(await body.peek()) if plan.needs_rows else FORMATS["bytes"])
            plan = replace(plan, target=plan.target or plan.source)
            await self._flow(plan, body, codings)
        finally:
            body.close()

    async def _flow(self, plan: Plan, body: RequestBody, codings: Sequence[str]) -> None:
        shop, options = self._shop, self._shop.options
        rejects = RejectsLog(shop.spool)
        assert plan.source is not None
        assert plan.target is not None
        packs = any(planned.step.takes == "pack" for planned in plan.steps)
        coding = None if packs else accepted_coding(self._headers.get("accept-encoding", ""), plan.target)
        built = build(plan, options.build, decode=codings, encode=coding, keep=rejects.keep)
        kept = plan.whole
        whole = kept or self._scope.get("http_version") == "1.0"
        whole = whole or ends_its_body_early(
            self._headers.get("user-agent", ""), self._headers.get("content-length", "")
        )
        headers: list[tuple[bytes, bytes]] = []
        trailers = "http.response.trailers" in self._scope.get("extensions", {})
        if not whole:
            headers.append((b"content-type", built.media_type.encode()))
            length = self._headers.get("content-length", "")
            if length and built.keeps_length and not body.is_form and not trailers:
                headers.append((b"content-length", length.encode()))
        if coding is not None:
            headers.append((b"content-encoding", coding.encode()))
        if plan.target.text and plan.target.name != "bytes" and not packs:
            headers.append((b"vary", b"Accept-Encoding"))

        source: Source = body.pages()
        if built.read_file is not None:
            source = spooled_pages(source, shop.spool, built.read_file, shop.io_executor)
        overflow: Overflow | None = None
        sink: Sink
        if whole:
            spooled = sink = SpooledSink(shop.spool, shop.io_executor)
        else:
            response = sink = self._sink = ResponseSink(
                self._send,
                headers=lambda: headers,
                page_bytes=options.build.page_bytes,
                taker=self._wire,
                hasher=shop.io_executor if trailers else None,
            )
            overflow = Overflow(
                high_water_bytes=options.high_water_bytes,
                page_bytes=options.build.page_bytes,
                spool=shop.spool,
                executor=shop.io_executor,
                upload_open=lambda: body.open,
                progressed_at=lambda: response.progressed_at,
            )
        flow = Flow(
            source,
            built.stages,
            sink,
            shop.executor,
            FlowOptions(built.page_bytes, max(options.high_water_bytes, built.page_bytes), options.lanes),
            # The kernel doubles what it is asked for, to have room for its own headers; there is one buffer each way.
            outside_bytes=built.outside_bytes + 4 * options.socket_bytes,
            last_edge=overflow,
        )
        mode = "whole" if whole else "stream"
        entry = self._entry = shop.runner.accept(
            flow, mode=mode, pipeline=plan.describe(), source=plan.source.name, target=plan.target.name
        )
        entry.rejects = rejects if plan.on_error == "quarantine" else None
        headers.append((b"weir-run-id", entry.run.id.encode()))
        if kept:
            headers.append((b"content-location", f"/v1/runs/{entry.run.id}/result".encode()))
        account = _account(built, overflow)
        try:
            receipt = await self._watched(entry, body, shop.runner.execute(entry, flow, account))
            if whole:
                result = Result(spooled.file, built.media_type, coding, receipt.digest or "", time.time())
                if kept:
                    shop.runner.book.keep(entry, result)
                self._whole_started = True
                await self._deliver(result, headers)
        finally:
            if overflow is not None:
                overflow.drop()
            if whole and entry.result is None:
                spooled.file.close()
            if entry.rejects is None:
                rejects.close()

    async def _watched(self, entry: Entry, body: RequestBody, work: Awaitable[Receipt]) -> Receipt:
        """The result of ``work``, which is cancelled when the client leaves. Its end is always awaited."""
        run = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(body.wait_gone())
        try:
            while not run.done():
                await asyncio.wait((run, watch), timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                if watch.done() and not run.done():
                    code = "client_gone" if self._wire is None else self._wire.leaving
                    entry.reason = Refusal(code, "the client left before the result was whole")
                    run.cancel()
                    break
                if self._sink is not None and self._sink.stalled_s() > self._shop.options.idle_s:
                    entry.reason = Refusal("stalled", f"the client took nothing for {self._shop.options.idle_s:g} s")
                    run.cancel()
                    break
            return await run
        except asyncio.CancelledError:
            if run.cancelled():
                raise entry.reason or Refusal("cancelled", "the run was cancelled") from None
            entry.reason = entry.reason or Refusal("shutting_down", "the server stopped before the run ended")
            run.cancel()
            await asyncio.wait((run,))
            raise
        finally:
            watch.cancel()

    async def _deliver(self, result: Result, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a whole result, with its length and digest (RFC 9530)."""
        nbytes = result.file.nbytes
        whole = Answer(
            200,
            [
                (b"content-type", result.media_type.encode()),
                (b"content-length", str(nbytes).encode()),
                (b"etag", f'"{result.digest}"'.encode()),
            ],
            (Slice(0, nbytes),) if nbytes else (),
        )
        with result.file.held() as fd:
            kept = kept_response(result, self._shop.io_executor, headers)
            await kept.send_answer(fd, whole, self._scope, self._send_in_time)

    async def _send_in_time(self, message: Message) -> None:
        if self._wire is not None:
            await self._send(message)  # it keeps the time itself
            return
        try:
            async with asyncio.timeout(self._shop.options.idle_s):
                await self._send(message)
        except TimeoutError:
            raise Refusal("stalled", "the client stopped taking the result") from None


def _account(built: Built, overflow: Overflow | None) -> Account:
    tolerance = built.tolerance
    return Account(
        rows_in=built.rows_in,
        rows_out=built.rows_out,
        rejected=dict if tolerance is None else lambda: tolerance.rejected,
        spooled_bytes=(lambda: 0) if overflow is None else lambda: overflow.spooled_bytes,
    )
