"""How long a client may take over an answer, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from app.web.protocol.body import Body
from app.web.protocol.exchange import ClientLeft, Exchange
from app.web.protocol.file_sender import FileSender
from app.web.protocol.head import Head
from app.web.protocol.pace import Limits
from app.web.protocol.pages import PagePool

BODY_BYTES = 1 << 20


class StuckLine:
    """A connection whose client takes nothing."""

    def __init__(self) -> None:
        self.unsent = 0
        self.waits = asyncio.Event()
        self.aborted = asyncio.Event()

    def look_for_body(self, linger_s: float) -> None:
        pass

    def post(self, data: bytes) -> None:
        self.unsent += len(data)

    async def write(self, pieces: list[bytes | memoryview]) -> None:
        self.unsent += sum(map(len, pieces))
        self.waits.set()
        await self.aborted.wait()
        raise ClientLeft

    def finished(self, *, close: bool) -> None:
        raise AssertionError("nobody took the answer")

    def abort(self) -> None:
        self.aborted.set()

    def unsent_bytes(self) -> int:
        return self.unsent

    def duplicate(self) -> int:
        raise ClientLeft


class Client:
    """Sends a body, and takes nothing of the answer that is there from the beginning."""

    def __init__(self, limits: Limits) -> None:
        self.line = StuckLine()
        self.body = Body(BODY_BYTES, PagePool(64 << 10, keep_bytes=0))
        self.exchange = Exchange(
            Head("POST", "1.1", "/", b"/", b"", [], BODY_BYTES, True, False, False),
            self.body,
            self.line,
            files=FileSender(ThreadPoolExecutor(1)),
            limits=limits,
            default_headers=list,
            keeps=lambda: True,
        )
        self.now_s = 1000.0

    async def answer(self) -> None:
        await self.exchange.send({"type": "http.response.start", "status": 200})
        with suppress(ClientLeft):
            await self.exchange.send_page(b"x" * 1000)

    def send(self, nbytes: int) -> None:
        while nbytes:
            room = self.body.room()[:nbytes]
            self.body.add(len(room))
            nbytes -= len(room)
            self.body.take_some()

    def is_kept_for(self, seconds: float) -> bool:
        """Look at it for so long, four times a second."""
        until_s = self.now_s + seconds
        while self.now_s < until_s and not self.line.aborted.is_set():
            self.now_s += 0.25
            self.exchange.look(self.now_s)
        return not self.line.aborted.is_set()


@pytest.mark.parametrize("min_bytes_per_s", [0, 1000])
@pytest.mark.parametrize("sends_all", [True, False])
async def test_who_sends_may_read_later_and_has_its_whole_time_then(min_bytes_per_s: int, sends_all: bool) -> None:
    client = Client(Limits(idle_s=60.0, min_bytes_per_s=min_bytes_per_s))
    answering = asyncio.create_task(client.answer())
    await client.line.waits.wait()
    for _ in range(10):
        client.send(1000)
        assert client.is_kept_for(50)
    if sends_all:
        client.send(BODY_BYTES - client.body.received_bytes)
        assert client.body.ended
    else:
        client.send(1)
    assert client.is_kept_for(60)
    assert not client.is_kept_for(1)
    assert client.exchange.leaving == "stalled"
    await answering
