"""The body of an HTTP response, while it is made."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Executor
from typing import Any, Protocol

from app.core.errors import Refusal
from app.core.interfaces import Receipt, Stretch
from app.core.page import Page

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_SLICE_BYTES = 256 * 1024
"""What is sent at a time to a server that does not tell how far it is. Smaller costs calls; larger, and a slow reader
looks like one that does not read."""


class PageTaker(Protocol):
    """A server that takes pages, as our own wire does."""

    async def send_page(self, page: bytes | memoryview) -> None:
        """Send a part of the body; returns once the kernel has it. Raises ``OSError`` when nobody takes it."""
        ...

    def taken_at(self) -> float:
        """The loop's time at which the client last took something."""
        ...


class ResponseSink:
    """Writes pages with ``send``. The status line goes out with the first page, so that whatever fails before it still
    gets a status of its own. ``abort`` does nothing: an answer that is never completed is how its receiver learns.

    ``taker`` is the server, where it takes pages. ``hasher``, where the client takes trailers, is where the digest is
    made that follows the body, with the verdict. ``sends_files``: the server knows ``http.response.zerocopysend``.
    """

    def __init__(
        self,
        send: Send,
        *,
        headers: Callable[[], Headers],
        page_bytes: int,
        taker: PageTaker | None = None,
        hasher: Executor | None = None,
        sends_files: bool = False,
    ) -> None:
        self._send = send
        self._headers = headers
        self._taker = taker
        self._hasher = hasher
        self._sha256 = hashlib.sha256()
        self._sent_bytes = 0
        self._sending = False
        self._loop = asyncio.get_running_loop()
        self._progressed_at = self._loop.time()
        self.started = False
        self.takes_stretches = sends_files and hasher is None
        """See ``TakesStretches``; what is hashed has to be seen."""
        self.holds = 0 if taker else page_bytes
        """Stock uvicorn copies a slice as it adds its framing, and it may wait in its transport."""

    @property
    def progressed_at(self) -> float:
        """The loop's time at which the client last took something."""
        return self._progressed_at if self._taker is None or not self._sending else self._taker.taken_at()

    async def write(self, page: Page) -> None:
        """Send a page; returns once the kernel has it, or all of it but the server's low-water mark."""
        if page.nbytes == 0:
            return
        await self._start()
        if self._hasher is not None:
            await self._loop.run_in_executor(self._hasher, self._sha256.update, page.payload)
        if self._taker is not None:
            await self._body(page.payload, page.nbytes)
            return
        payload = memoryview(page.payload)
        for start in range(0, payload.nbytes, _SLICE_BYTES):
            piece = payload[start : start + _SLICE_BYTES]
            await self._body(piece, piece.nbytes)
            # The server waits for its transport at the beginning of a send, not at its end: one more, of nothing.
            await self._body(b"", 0)

    async def write_stretch(self, stretch: Stretch) -> None:
        """Have the server send a part of a file; returns once the kernel has it."""
        await self._start()
        self._sending, self._progressed_at = True, self._loop.time()
        with stretch.file.held() as fd:
            place = {"file": fd, "offset": stretch.offset, "count": stretch.nbytes}
            await self._send_message({"type": "http.response.zerocopysend", **place, "more_body": True})
        self._end_send(stretch.nbytes)

    async def commit(self) -> Receipt:
        """Complete the answer."""
        await self._start()
        await self._send_message({"type": "http.response.body", "body": b"", "more_body": False})
        if self._hasher is None:
            return Receipt(self._sent_bytes)
        digest = self._sha256.digest()
        trailers = [
            (b"repr-digest", b"sha-256=:" + base64.b64encode(digest) + b":"),
            (b"weir-status", b"succeeded"),
        ]
        await self._send_message({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})
        return Receipt(self._sent_bytes, digest.hex())

    async def abort(self) -> None:
        """Leave the answer incomplete; its framing says so once the connection is closed."""

    def stalled_s(self) -> float:
        """For how long the client has taken nothing of what is there for it, in seconds."""
        return self._loop.time() - self.progressed_at if self._sending else 0.0

    async def _start(self) -> None:
        if self.started:
            return
        self.started = True
        headers = list(self._headers())
        message = {"type": "http.response.start", "status": 200, "headers": headers}
        if self._hasher is not None:
            headers.append((b"trailer", b"Repr-Digest, Weir-Status"))
            message["trailers"] = True
        await self._send_message(message)

    async def _body(self, body: bytes | memoryview, nbytes: int) -> None:
        if not self._sending:
            self._sending, self._progressed_at = True, self._loop.time()
        if self._taker is not None:
            await self._or_left(self._taker.send_page(body))
        else:
            await self._send_message({"type": "http.response.body", "body": body, "more_body": True})
        self._end_send(nbytes)

    def _end_send(self, nbytes: int) -> None:
        self._sending = False
        self._sent_bytes += nbytes
        self._progressed_at = self._loop.time()

    async def _send_message(self, message: MutableMapping[str, Any]) -> None:
        await self._or_left(self._send(message))

    async def _or_left(self, sending: Awaitable[None]) -> None:
        """ASGI 2.4: ``OSError`` says that the client is gone, or was given up."""
        try:
            await sending
        except OSError as error:
            code = getattr(error, "code", "client_gone")
            raise Refusal(code, f"{error}, after {self._sent_bytes} bytes") from error
