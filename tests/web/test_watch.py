"""A run and its client: which of them ends with the other, and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, MutableMapping
from typing import Any

import pytest

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.core.page import Page
from app.runs.book import Entry
from app.runs.record import Run
from app.sinks.response import ResponseSink
from app.sources.request import RequestBody
from app.web.watch import watched


class Client:
    """Has sent an empty body. Takes the head of an answer and nothing of its body; leaves when it is told to."""

    def __init__(self) -> None:
        self.sent = False
        self.leaves = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        if self.sent:
            await self.leaves.wait()
            return {"type": "http.disconnect"}
        self.sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()


class Work:
    """Goes on until it is told to end, and takes a while to be cancelled."""

    def __init__(self) -> None:
        self.ends = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> Receipt:
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.cancelled = True
            raise
        return Receipt(7)


async def watch(
    client: Client, work: Awaitable[Receipt], entry: Entry, *, response: ResponseSink | None = None, idle_s: float = 60
) -> Receipt:
    body = RequestBody(client.receive, page_bytes=10, max_body_bytes=10, idle_s=5)
    async for _ in body.pages():
        pass
    return await watched(work, entry, body, wire=None, response=response, idle_s=idle_s)


@pytest.fixture
def entry() -> Entry:
    return Entry(Run("r", "stream", "", "bytes", "bytes", time.time()))


async def test_a_run_whose_client_stays_gives_its_receipt(entry: Entry) -> None:
    work = Work()
    work.ends.set()
    assert await watch(Client(), work(), entry) == Receipt(7)
    assert entry.reason is None


async def test_a_run_ends_when_its_client_leaves_and_is_waited_for(entry: Entry) -> None:
    client, work = Client(), Work()
    client.leaves.set()
    with pytest.raises(Refusal) as refused:
        await watch(client, work(), entry)
    assert refused.value.code == "client_gone"
    assert refused.value is entry.reason
    assert work.cancelled


async def test_a_client_that_takes_nothing_is_given_up(entry: Entry) -> None:
    client = Client()
    response = ResponseSink(client.send, headers=list, page_bytes=10)

    async def answer() -> Receipt:
        await response.write(Page(b"page", 4))
        return await response.commit()

    with pytest.raises(Refusal) as refused:
        await watch(client, answer(), entry, response=response, idle_s=0.1)
    assert refused.value.code == "stalled"


async def test_a_run_that_has_its_result_outlives_its_client(entry: Entry) -> None:
    client, work = Client(), Work()
    entry.settling = True
    client.leaves.set()
    watching = asyncio.ensure_future(watch(client, work(), entry))
    done, _ = await asyncio.wait((watching,), timeout=0.05)
    assert not done
    work.ends.set()
    assert await watching == Receipt(7)


async def test_a_server_that_stops_waits_for_the_run_to_end(entry: Entry) -> None:
    work = Work()
    watching = asyncio.ensure_future(watch(Client(), work(), entry))
    await asyncio.wait((watching,), timeout=0.05)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert entry.reason is not None
    assert entry.reason.code == "shutting_down"
    assert work.cancelled
