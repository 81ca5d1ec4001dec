"""A proxy between a client and an S3 server that does to each request what a plan says, over real sockets.

Every byte is passed on as it came, and so is Host: clients sign the address that they connect to, which is the
proxy's, and the server checks the signature against the Host that it is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.object_store.faults import Asked, Fault, Plan, no_faults
from tests.object_store.http_message import Head, Piece, read_body, read_head
from tests.object_store.operation import operation_of
from tests.object_store.server import HOST

BROKEN = (ConnectionError, asyncio.IncompleteReadError)
SENT_S = 0.05
"""A server that answers has mostly read everything; if not, the connection cannot be used again."""
NOT_FORWARDED = {
    Fault.SLOW_DOWN: ("503 Slow Down", "SlowDown"),
    Fault.INTERNAL_ERROR: ("500 Internal Server Error", "InternalError"),
    Fault.ERROR_IN_200_NOT_DONE: ("200 OK", "InternalError"),
}


class FaultProxy:
    """Runs in a thread of its own between ``with`` and its end. ``plan`` may be another one at any time."""

    def __init__(self, endpoint_url: str, plan: Plan = no_faults, *, delay_s: float = 1.0) -> None:
        self.plan = plan
        self.delay_s = delay_s
        self.counts: Counter[str] = Counter()
        """By operation, by fault, and by both: ``UploadPart``, ``slow_down``, ``UploadPart slow_down``."""
        self.endpoint_url = ""
        address = urlsplit(endpoint_url)
        self._server = (address.hostname or HOST, address.port or 80)
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._conversations: set[asyncio.Task[None] | None] = set()
        """Referred to here: asyncio forgets the task of a connection that is lost, and it would be collected while it waits."""
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            listener = runner.run(asyncio.start_server(self._converse, HOST, 0))
            self.endpoint_url = "http://{}:{}".format(*listener.sockets[0].getsockname())
            self._is_up.set()
            self._loop.run_forever()
            listener.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, request by request, until one side or a fault ends it."""
        task = asyncio.current_task()
        self._conversations.add(task)
        try:
            with contextlib.suppress(*BROKEN):
                while (head := await read_head(reader)) and await self._handle(head, reader, writer):
                    pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            self._conversations.discard(task)

    async def _handle(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether another request may follow on the connection."""
        method, target, _ = head.first_line
        operation = operation_of(method, target)
        fault = self.plan(Asked(operation, self.counts[operation], self._attempts[method, target]))
        self._attempts[method, target] += 1
        self.counts.update((operation, fault.value, f"{operation} {fault.value}"))
        if fault is Fault.DROP_REQUEST:
            writer.transport.abort()
            return False
        if fault in NOT_FORWARDED:
            await swallow(head, reader, writer)
            return await refuse(writer, *NOT_FORWARDED[fault])
        if fault is Fault.DELAY_REQUEST:
            await asyncio.sleep(self.delay_s)
        return await self._forward(head, reader, writer, fault)

    async def _forward(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> bool:
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        sending = asyncio.create_task(send(head, reader, server_writer, corrupt=fault is Fault.CORRUPT_BODY))
        try:
            reply = await read_head(server_reader)
            while reply and reply.first_line[1].startswith("1"):
                writer.write(reply.raw)
                reply = await read_head(server_reader)
            if not reply:
                writer.transport.abort()
                return False
            has_body = head.first_line[0] != "HEAD" and reply.first_line[1] not in ("204", "304")
            body = read_body(server_reader, reply, until_end=True) if has_body else pieces_of()
            goes_on = await self._answer(reply, body, writer, fault)
            has_end = not has_body or reply.is_chunked() or reply.length_bytes() is not None
            await asyncio.wait((sending,), timeout=SENT_S)
            return goes_on and has_end and sending.done() and not reply.is_last()
        finally:
            sending.cancel()
            with contextlib.suppress(*BROKEN, asyncio.CancelledError):
                await sending
            server_writer.close()

    async def _answer(
        self, reply: Head, body: AsyncIterator[Piece], writer: asyncio.StreamWriter, fault: Fault
    ) -> bool:
        match fault:
            case Fault.LOSE_REPLY | Fault.ERROR_IN_200_DONE:
                async for _ in body:
                    pass
                if fault is Fault.ERROR_IN_200_DONE:
                    return await refuse(writer, *NOT_FORWARDED[Fault.ERROR_IN_200_NOT_DONE])
                writer.transport.abort()
                return False
            case Fault.CUT_REPLY:
                await cut(reply, body, writer)
                return False
            case Fault.DELAY_REPLY:
                await asyncio.sleep(self.delay_s)
        writer.write(reply.raw)
        async for piece in body:
            writer.write(piece.raw)
            await writer.drain()
        return True


async def send(head: Head, reader: asyncio.StreamReader, server: asyncio.StreamWriter, *, corrupt: bool) -> None:
    """Pass the request on as it comes. If the client leaves in its middle, the server is left in its middle too."""
    try:
        server.write(head.raw)
        pieces = read_body(reader, head)
        async for piece in corrupted(head, pieces) if corrupt else pieces:
            server.write(piece.raw)
            await server.drain()
    except BROKEN:
        server.transport.abort()
        raise


async def corrupted(head: Head, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """The same, but for one bit of the first byte of what is uploaded."""
    in_size_line = "aws-chunked" in head.fields.get("content-encoding", "")
    is_done = False
    async for piece in pieces:
        raw = piece.raw
        at = 0
        if piece.is_data and in_size_line:
            at = raw.find(b"\n") + 1
            in_size_line = not at
            at = at or len(raw)
        if piece.is_data and not is_done and at < len(raw):
            raw = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
            is_done = True
        yield Piece(raw, piece.is_data)


async def swallow(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if "expect" in head.fields:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for _ in read_body(reader, head):
        pass


async def refuse(writer: asyncio.StreamWriter, status: str, code: str) -> bool:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>a fault</Message></Error>'
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    await writer.drain()
    return True


async def cut(reply: Head, body: AsyncIterator[Piece], writer: asyncio.StreamWriter) -> None:
    """Half of the answer. What is chunked is short enough to be held whole."""
    length_bytes = reply.length_bytes()
    if length_bytes is None:
        whole = b"".join([piece.raw async for piece in body])
        length_bytes, body = len(whole), pieces_of(whole)
    if not length_bytes or (first := await anext(body, None)) is None:
        writer.write(reply.raw.partition(b"\r\n")[0] + b"\r\n")
        return
    writer.write(reply.raw + first.raw[: length_bytes // 2])
    left_bytes = length_bytes // 2 - len(first.raw)
    while left_bytes > 0:
        raw = (await anext(body)).raw[:left_bytes]
        writer.write(raw)
        await writer.drain()
        left_bytes -= len(raw)


async def pieces_of(*raws: bytes) -> AsyncIterator[Piece]:
    for raw in raws:
        yield Piece(raw)
