"""The body of an HTTP response, while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from app.core.interfaces import Receipt
from app.core.page import Page

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_SLICE_BYTES = 256 * 1024
"""What is sent at a time. Smaller costs calls; larger, and a slow reader looks like one that does not read."""


class ResponseSink:
    """Writes pages with ``send``. The status line goes out with the first page, so that whatever fails before it still
    gets a status of its own. ``abort`` does nothing: an answer that is never completed is how its receiver learns.

    ``progressed_at`` is the loop's time at which the client last took something.
    """

    def __init__(self, send: Send, *, headers: Callable[[], Headers], page_bytes: int) -> None:
        self._send = send
        self._headers = headers
        self._sent_bytes = 0
        self._sending = False
        self.started = False
        self.progressed_at = asyncio.get_running_loop().time()
        self.holds = page_bytes
        """A slice is copied by the server as it adds its framing, and may wait in its transport."""

    async def write(self, page: Page) -> None:
        """Send a page; returns once all of it but the server's low-water mark has gone to the kernel."""
        if page.nbytes == 0:
            return
        await self._start()
        payload = memoryview(page.payload)
        for start in range(0, payload.nbytes, _SLICE_BYTES):
            await self._body(payload[start : start + _SLICE_BYTES], more=True)
            # The server waits for its transport at the beginning of a send, not at its end: one more, of nothing.
            await self._body(b"", more=True)

    async def commit(self) -> Receipt:
        """Complete the answer."""
        await self._start()
        await self._body(b"", more=False)
        return Receipt(self._sent_bytes)

    async def abort(self) -> None:
        """Leave the answer incomplete; its framing says so once the connection is closed."""

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(self._headers())})

    def stalled_s(self) -> float:
        """For how long the client has taken nothing of what is there for it, in seconds."""
        return asyncio.get_running_loop().time() - self.progressed_at if self._sending else 0.0

    async def _body(self, body: bytes | memoryview, *, more: bool) -> None:
        if not self._sending:
            self._sending, self.progressed_at = True, asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = False
        self._sent_bytes += len(body)
        self.progressed_at = asyncio.get_running_loop().time()
