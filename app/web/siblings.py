"""Several workers seen as one: whoever is asked for metrics, or whether all are ready, asks the others, over UNIX sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import Refusal
from app.web.errors import problem

_ASK_S = 2.0


class Siblings:
    """ASGI around the application of a worker; ``sockets`` are where all workers answer, itself among them.

    Metrics are summed, and ready is only who is ready with all others. Runs need no asking: all workers write them into
    one database. What came from a sibling is answered by the application itself, so nothing goes in circles.
    """

    def __init__(self, app: ASGIApp, sockets: Sequence[Path]) -> None:
        self._app = app
        self._clients = [
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://sibling")
            for path in sockets
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http" or not scope.get("client"):  # a UNIX socket has no address
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if path == "/metrics" and method == "GET":
            await self._answer(self._metrics(scope), scope, receive, send)
        elif path == "/readyz" and method == "GET":
            await self._answer(self._ready(scope), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, making: Awaitable[Response], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await making
        except Refusal as refusal:
            reply = problem(refusal)
        await reply(scope, receive, send)

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
