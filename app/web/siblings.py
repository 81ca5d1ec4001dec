"""Several workers seen as one: whoever gets a request about runs or metrics asks the others, over UNIX sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import Refusal
from app.web.errors import problem

_OF_A_RUN = re.compile(r"/v1/runs/([0-9a-f]{2})[0-9a-f]{14}(?:/|$)")
_ASK_S = 2.0
_RELAY_S = 90.0
"""Longer than a worker lets anybody wait (``?wait=``) before it answers."""
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)


class Siblings:
    """ASGI around the application of worker ``number``; ``sockets`` are where all workers answer, itself among them.

    The first two digits of a run's id are its worker. What is about a run goes to that worker and is streamed back; a
    broken answer stays broken. The list of runs is merged, metrics are summed, and ready is only who is ready with all
    others. What came from a sibling is answered by the application itself, so nothing goes in circles.
    """

    def __init__(self, app: ASGIApp, number: int, sockets: Sequence[Path]) -> None:
        self._app = app
        self._number = number
        self._clients = [
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://sibling")
            for path in sockets
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have a sibling answer."""
        if scope["type"] != "http" or not scope.get("client"):  # a UNIX socket has no address
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        owner = self._owner_of(path)
        if owner is not None and owner != self._number:
            await self._relay(owner, scope, send, receive)
        elif path == "/v1/runs" and method == "GET":
            await self._answer(self._runs(scope), scope, receive, send)
        elif path == "/metrics" and method == "GET":
            await self._answer(self._metrics(scope), scope, receive, send)
        elif path == "/readyz" and method == "GET":
            await self._answer(self._ready(scope), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _owner_of(self, path: str) -> int | None:
        """The worker whose run ``path`` is about, if there is one."""
        match = _OF_A_RUN.match(path)
        number = int(match[1], 16) if match is not None else len(self._clients)
        return number if number < len(self._clients) else None

    async def _answer(self, making: Awaitable[Response], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await making
        except Refusal as refusal:
            reply = problem(refusal)
        await reply(scope, receive, send)

    async def _relay(self, owner: int, scope: Scope, send: Send, receive: Receive) -> None:
        client = self._clients[owner]
        headers = [(name, value) for name, value in scope["headers"] if name not in (*_HOP_BY_HOP, b"host")]
        request = client.build_request(scope["method"], _target(scope), headers=[*headers, (b"host", b"sibling")])
        request.extensions["timeout"] = httpx.Timeout(_RELAY_S, connect=_ASK_S).as_dict()
        try:
            reply = await client.send(request, stream=True)
        except httpx.HTTPError:
            gone = Refusal("budget_full", f"worker {owner}, whose run this is, does not answer", retry_after_s=1)
            await problem(gone)(scope, receive, send)
            return
        try:
            kept = [(name.lower(), value) for name, value in reply.headers.raw if name.lower() not in _HOP_BY_HOP]
            kept = [(name, value) for name, value in kept if name != b"date"]
            await send({"type": "http.response.start", "status": reply.status_code, "headers": kept})
            # An answer that breaks off raises here, and so is broken off there.
            async for piece in reply.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await reply.aclose()

    async def _runs(self, scope: Scope) -> Response:
        replies = await self._ask_all(_target(scope), {})
        for reply in replies:
            if reply.status_code != 200:  # a bad parameter is bad everywhere
                return Response(reply.content, reply.status_code, media_type=reply.headers["content-type"])
        runs = [run for reply in replies for run in reply.json()["runs"]]
        runs.sort(key=lambda run: -run["created_at"])
        limit = int(parse_qs(scope["query_string"].decode("latin-1")).get("limit", ["100"])[0])
        return JSONResponse({"runs": runs[:limit]})

    async def _metrics(self, scope: Scope) -> Response:
        replies = await self._ask_all("/metrics", {"accept": "text/plain"})
        registry = CollectorRegistry()
        registry.register(_Summed([reply.text for reply in replies]))
        encode, media_type = choose_encoder(Headers(scope=scope).get("accept", ""))
        return Response(encode(registry), media_type=media_type)

    async def _ready(self, scope: Scope) -> Response:
        with contextlib.suppress(Refusal):
            if all(reply.status_code == 200 for reply in await self._ask_all("/readyz", {})):
                return PlainTextResponse("ready\n")
        return PlainTextResponse("not every worker is ready\n", 503)

    async def _ask_all(self, target: str, headers: dict[str, str]) -> list[httpx.Response]:
        """Every worker's answer, our own among them. One that is late would make counters go down: then there is none,
        and ``budget_full`` says when to ask again."""
        asks = [client.get(target, headers=headers, timeout=_ASK_S) for client in self._clients]
        replies = await asyncio.gather(*asks, return_exceptions=True)
        good = [reply for reply in replies if isinstance(reply, httpx.Response)]
        if len(good) < len(asks):
            silent = [number for number, reply in enumerate(replies) if not isinstance(reply, httpx.Response)]
            raise Refusal("budget_full", f"workers {silent} do not answer within {_ASK_S:g} s", retry_after_s=1)
        return good


class _Summed(Collector):
    """The metrics of several processes as those of one: all are added, but the start, which is the first one's."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, family)
                values = sums.setdefault(family.name, {})
                for sample in family.samples:
                    key = sample.name, tuple(sample.labels.items())
                    if key not in values:
                        values[key] = sample.value
                    elif sample.name == "process_start_time_seconds":
                        values[key] = min(values[key], sample.value)
                    else:
                        values[key] += sample.value
        for name, values in sums.items():
            summed = Metric(name, families[name].documentation, families[name].type)
            for (sample_name, labels), value in values.items():
                summed.add_sample(sample_name, dict(labels), value)
            yield summed


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return str(scope["path"]) + (f"?{query}" if query else "")
