"""``/v1/transform``: the body comes in, the result goes out while it does, or to a store, or is kept until it is fetched.

The response is a sink and the body is a source; one task runs the flow between them and one watches for the client's
leaving. Nothing stands between the flow and the server.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.orders.desk import Desk
from app.orders.intake import take_in
from app.orders.order import Order
from app.orders.result import ResultSink
from app.orders.workshop import Workshop, account_of, object_name
from app.plan import FORMATS, Plan, sniff
from app.runs.book import Entry
from app.runs.ledger import token_of_run
from app.runs.record import Run
from app.runs.runner import Settle
from app.sinks.overflow import Overflow
from app.sinks.rejects import RejectsLog
from app.sinks.response import ResponseSink
from app.sinks.spooled import SpooledSink
from app.sources.request import RequestBody, body_too_large
from app.stores.kept import KeptBytes, SpooledBytes
from app.stores.objects import Writing
from app.web.asking import Asked
from app.web.errors import problem
from app.web.idempotency import opened
from app.web.kept import send_whole
from app.web.negotiation import (
    accepted_coding,
    content_codings,
    ends_its_body_early,
    file_name_of,
    preferred,
    wants_sha256,
    with_source,
    with_target,
)
from app.web.protocol.exchange import Exchange
from app.web.receipts import accepted_response, receipt_response
from app.web.watch import watched


class TransformResponse(Response):
    """Runs one pipeline between the request's body and the response's.

    It is an ASGI callable like every response, and only it calls ``receive`` and ``send``. Whatever fails before the
    first byte of the result gets its own status; after it, the answer is left incomplete and the server breaks the
    framing, so that no client takes it for whole.
    """

    def __init__(self, workshop: Workshop, desk: Desk, ask: Callable[[], Awaitable[Asked]], *, file_name: str) -> None:
        """``ask`` is called when the response runs, and may refuse. ``file_name`` is the URL's last segment."""
        super().__init__()
        self._workshop = workshop
        self._desk = desk
        self._ask = ask
        self._file_name = file_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; see the class."""
        exchange = _Exchange(self._workshop, self._desk, Headers(scope=scope), scope, receive, send)
        try:
            await exchange.run(self._ask, self._file_name)
        except Refusal as refusal:
            if exchange.answered:
                return  # incomplete on purpose
            await problem(refusal, run_id=exchange.run_id)(scope, receive, send)


class _Exchange:
    """One request and its response."""

    def __init__(
        self, workshop: Workshop, desk: Desk, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._shop = workshop
        self._desk = desk
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

    async def run(self, ask: Callable[[], Awaitable[Asked]], file_name: str) -> None:
        """Read the words, the head and, where they do not tell, the first bytes; then run the flow."""
        options = self._shop.options
        asked = await ask()
        plan = asked.plan
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
                plan = replace(
                    plan, source=sniff(await body.peek(), plan.charset) if plan.needs_rows else FORMATS["bytes"]
                )
            plan = replace(plan, target=plan.target or plan.source)
            if self._headers.get("if-none-match", "").strip() == "*":
                plan = replace(plan, overwrite=False)
            if "respond-async" in preferred(self._headers.get("prefer", "")):
                await self._take(replace(asked, plan=plan), body, codings)
            elif plan.sink is not None:
                await self._to_store(plan, plan.sink, body, codings)
            elif plan.whole:
                await self._keep(plan, body, codings)
            else:
                await self._stream(plan, body, codings)
        finally:
            body.close()

    async def _stream(self, plan: Plan, body: RequestBody, codings: Sequence[str]) -> None:
        """The result goes out while it is made; or once it is whole, to clients that could not bear it otherwise."""
        if "idempotency-key" in self._headers:
            raise Refusal(
                "bad_argument",
                "Idempotency-Key is for results that are kept: with Prefer: respond-async, deliver=whole or sink=",
            )
        shop, options = self._shop, self._shop.options
        coding = self._coding(plan)
        async with (
            self._rejects(plan) as rejects,
            shop.built(plan, decode=codings, encode=coding, keep=rejects.keep) as built,
        ):
            whole = self._scope.get("http_version") == "1.0" or ends_its_body_early(
                self._headers.get("user-agent", ""), self._headers.get("content-length", "")
            )
            headers = self._result_headers(plan, coding)
            source = shop.from_its_end(built, body.pages())
            if whole:
                spooled = SpooledSink(shop.spool, shop.io_executor)
                flow = shop.flow(built, source, spooled, outside_bytes=self._socket_bytes)
                entry = await self._open(self._record(plan, "whole"), headers)
                try:
                    settle = self._settling(entry, plan, rejects)
                    work = shop.runner.execute(entry, flow, account_of(built), settle)
                    receipt = await self._watched(entry, body, work)
                    with SpooledBytes(spooled.file) as bytes_of:
                        await self._deliver(bytes_of, built.media_type, receipt.digest or "", headers)
                finally:
                    spooled.file.close()
                return
            trailers = "http.response.trailers" in self._scope.get("extensions", {})
            headers.append((b"content-type", built.media_type.encode()))
            length = self._headers.get("content-length", "")
            if length and built.keeps_length and not body.is_form and not trailers:
                headers.append((b"content-length", length.encode()))
            response = self._sink = ResponseSink(
                self._send,
                headers=lambda: headers,
                page_bytes=options.build.page_bytes,
                taker=self._wire,
                hasher=shop.io_executor if trailers else None,
                sends_files="http.response.zerocopysend" in self._scope.get("extensions", {}),
            )
            overflow = Overflow(
                high_water_bytes=options.high_water_bytes,
                page_bytes=options.build.page_bytes,
                spool=shop.spool,
                executor=shop.io_executor,
                upload_open=lambda: body.open,
                progressed_at=lambda: response.progressed_at,
            )
            flow = shop.flow(built, source, response, outside_bytes=self._socket_bytes, last_edge=overflow)
            entry = await self._open(self._record(plan, "stream"), headers)
            account = account_of(built, lambda: overflow.spooled_bytes)
            try:
                work = shop.runner.execute(entry, flow, account, self._settling(entry, plan, rejects))
                await self._watched(entry, body, work)
            finally:
                overflow.drop()

    async def _keep(self, plan: Plan, body: RequestBody, codings: Sequence[str]) -> None:
        """All or nothing: the result is kept with the run, and sent once it is whole."""
        shop = self._shop
        coding = self._coding(plan)
        async with (
            self._rejects(plan) as rejects,
            shop.built(plan, decode=codings, encode=coding, keep=rejects.keep) as built,
        ):
            run = self._record(plan, "whole")
            entry = await self._open(run, [])
            if entry.run.id == run.id:
                writing = Writing(token_of_run(run.id, run.attempt), built.media_type, coding)
                sink = shop.result_sink(run.id, writing, built, self._length(body))
                source = shop.from_its_end(built, body.pages())
                flow = shop.flow(built, source, sink, outside_bytes=self._socket_bytes)
                settle = self._settling(entry, plan, rejects, sink, built.media_type, coding)
                work = shop.runner.execute(entry, flow, account_of(built), settle)
                await self._watched(entry, body, work)
            result = entry.result
            if result is None:
                raise Refusal("gone", f"the result of run {entry.run.id} is no longer kept")
            headers = self._result_headers(plan, result.coding)
            headers.append((b"weir-run-id", entry.run.id.encode()))
            headers.append((b"content-location", f"/v1/runs/{entry.run.id}/result".encode()))
            kept = await shop.open_kept(result.place)
            try:
                await self._deliver(kept, result.media_type, result.digest, headers)
            finally:
                kept.close()

    async def _to_store(self, plan: Plan, url: str, body: RequestBody, codings: Sequence[str]) -> None:
        """The result goes to a store; the answer is its receipt."""
        shop = self._shop
        async with self._rejects(plan) as rejects, shop.built(plan, decode=codings, keep=rejects.keep) as built:
            run = self._record(plan, "sink")
            writing = Writing(token_of_run(run.id, run.attempt), built.media_type, None, plan.overwrite)
            sink = shop.object_sink(
                url, object_name(run.id, plan), writing, built, self._length(body), hashed=self._hashed
            )
            source = shop.from_its_end(built, body.pages())
            flow = shop.flow(built, source, sink, outside_bytes=self._socket_bytes)
            entry = await self._open(replace(run, sink=sink.url), [])
            if entry.run.id == run.id:
                work = shop.runner.execute(entry, flow, account_of(built), self._settling(entry, plan, rejects))
                await self._watched(entry, body, work)
            await receipt_response(entry.run)(self._scope, self._receive, self._send)

    async def _take(self, asked: Asked, body: RequestBody, codings: Sequence[str]) -> None:
        """The body is taken to disk; the run goes on without its client."""
        shop, plan = self._shop, asked.plan
        assert plan.source is not None
        assert plan.target is not None
        async with shop.built(plan, decode=codings):
            pass  # what is wrong with it is said before the body is taken
        run = self._record(plan, "async")
        if plan.sink is not None:
            run = replace(run, sink=shop.stores.find(plan.sink, threading.Event()).named(object_name(run.id, plan)).url)
        entry = await self._open(run, [])
        if entry.run.id == run.id:
            order = Order(
                items=asked.items,
                stored=asked.stored,
                body=None,
                input=None,
                source=plan.source.name,
                target=plan.target.name,
                codings=tuple(codings),
                coding=None if plan.sink is not None else self._coding(plan),
                overwrite=plan.overwrite,
                hashed=self._hashed,
                reading=plan.reading,
            )
            try:
                order = replace(order, body=await take_in(shop, body.pages(), entry, outside_bytes=self._socket_bytes))
                if entry.reason is not None:
                    raise entry.reason
                entry.asked = order.text()
                await shop.runner.book.save(entry)
            except BaseException as error:
                gone = Refusal("client_gone", "the client left before its body was whole")
                await shop.runner.refuse(entry, error if isinstance(error, Refusal) else gone)
                if order.body is not None:
                    await asyncio.get_running_loop().run_in_executor(shop.io_executor, shop.shelf.drop, order.body)
                raise
            self._desk.take(entry, order)
        await accepted_response(entry.run)(self._scope, self._receive, self._send)

    async def _open(self, run: Run, headers: list[tuple[bytes, bytes]]) -> Entry:
        """An entry for ``run``; or the first run that had its Idempotency-Key, which has succeeded, or is asynchronous."""
        key = self._headers.get("idempotency-key", "")
        query = self._scope["query_string"].decode("latin-1")
        entry = await opened(self._shop.runner.book, run, key, self._scope["path"], query, run.mode, run.source)
        if entry.run.id != run.id and run.mode != "async" and not entry.ended.is_set():
            raise Refusal("conflict", f"run {entry.run.id} has this Idempotency-Key and is not over", retry_after_s=1)
        self._entry = entry
        headers.append((b"weir-run-id", entry.run.id.encode()))
        return entry

    @asynccontextmanager
    async def _rejects(self, plan: Plan) -> AsyncIterator[RejectsLog]:
        rejects = RejectsLog(self._shop.spool)
        try:
            yield rejects
        finally:
            rejects.close()

    def _settling(
        self,
        entry: Entry,
        plan: Plan,
        rejects: RejectsLog,
        sink: ResultSink | None = None,
        media_type: str = "",
        coding: str | None = None,
    ) -> Settle:
        async def settle(receipt: Receipt | None) -> None:
            if sink is not None and receipt is not None:
                entry.result = sink.result(receipt, media_type, coding)
            if plan.on_error == "quarantine":
                entry.rejects = await self._shop.keep_rejects(entry.run.id, rejects)

        return settle

    def _record(self, plan: Plan, mode: str) -> Run:
        assert plan.source is not None
        assert plan.target is not None
        return Run(
            id=self._shop.runner.new_id(),
            mode=mode,
            pipeline=plan.describe(),
            source=plan.source.name,
            target=plan.target.name,
            created_at=time.time(),
        )

    def _coding(self, plan: Plan) -> str | None:
        assert plan.target is not None
        return None if plan.packs else accepted_coding(self._headers.get("accept-encoding", ""), plan.target)

    def _result_headers(self, plan: Plan, coding: str | None) -> list[tuple[bytes, bytes]]:
        assert plan.target is not None
        headers: list[tuple[bytes, bytes]] = []
        if coding is not None:
            headers.append((b"content-encoding", coding.encode()))
        if plan.target.text and plan.target.name != "bytes" and not plan.packs:
            headers.append((b"vary", b"Accept-Encoding"))
        return headers

    def _length(self, body: RequestBody) -> int | None:
        length = self._headers.get("content-length", "")
        encoded = self._headers.get("content-encoding", "")
        return int(length) if length.isdecimal() and not body.is_form and not encoded else None

    @property
    def _hashed(self) -> bool:
        return wants_sha256(self._headers.get("want-repr-digest", ""))

    @property
    def _socket_bytes(self) -> int:
        """The kernel doubles what it is asked for, to have room for its own headers; there is one buffer each way."""
        return 4 * self._shop.options.socket_bytes

    async def _watched(self, entry: Entry, body: RequestBody, work: Awaitable[Receipt]) -> Receipt:
        idle_s = self._shop.options.idle_s
        return await watched(work, entry, body, wire=self._wire, response=self._sink, idle_s=idle_s)

    async def _deliver(self, kept: KeptBytes, media_type: str, digest: str, headers: list[tuple[bytes, bytes]]) -> None:
        self._whole_started = True
        await send_whole(
            kept, media_type, digest, headers, self._shop.io_executor, scope=self._scope, send=self._send_in_time
        )

    async def _send_in_time(self, message: Message) -> None:
        if self._wire is not None:
            await self._send(message)  # it keeps the time itself
            return
        try:
            async with asyncio.timeout(self._shop.options.idle_s):
                await self._send(message)
        except TimeoutError:
            raise Refusal("stalled", "the client stopped taking the result") from None
