"""The body of an HTTP request, as pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size
from app.framing.multipart import FilePart

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_LINGER_S = 0.005
"""How long a page that is not full waits for more. Longer, and a slow sender's results come late; shorter, and a
sender in a hurry makes small pages."""


class RequestBody:
    """The one reader of ``receive()`` of a request: it pumps the body, and after its end it sees the client leave.

    ``max_body_bytes`` bounds the body as it comes over the wire; ``idle_s`` how long the client may send nothing while
    it is asked to. Both are raised as refusals from ``pages``. Of a multipart form it gives the file part; ``head``
    reads until that part's own headers are known.
    """

    def __init__(
        self, receive: Receive, *, page_bytes: int, max_body_bytes: int, idle_s: float, content_type: str = ""
    ) -> None:
        self._receive = receive
        self._page_bytes = page_bytes
        self._max_body_bytes = max_body_bytes
        self._idle_s = idle_s
        is_form = content_type.partition(";")[0].strip().lower() == "multipart/form-data"
        self._part = FilePart(content_type) if is_form else None
        self._ahead: list[bytes] = []
        self._pending: asyncio.Task[MutableMapping[str, Any]] | None = None
        self._ended = asyncio.Event()
        self.received_bytes = 0

    @property
    def open(self) -> bool:
        """There may be more of the body to come."""
        return not self._ended.is_set()

    async def peek(self) -> bytes:
        """The first bytes of the file, without taking them; empty only if the file is. They are what the server has
        received already or receives next, a fraction of a page."""
        while not self._ahead and self.open:
            await self._read(None)
        return self._ahead[0] if self._ahead else b""

    async def head(self) -> tuple[str, str] | None:
        """The content type and file name of the file part, of a multipart form; None for a plain body."""
        if self._part is None:
            return None
        while not self._part.head_seen and self.open:
            await self._read(None)
        return self._part.content_type or "", self._part.filename or ""

    async def pages(self) -> AsyncIterator[Page]:
        """The file in pages of ``page_bytes``; smaller ones at the end, and when the sender pauses."""
        offset = 0
        while True:
            held = sum(map(len, self._ahead))
            while self.open and held < self._page_bytes and await self._read(_LINGER_S if held else None):
                held = sum(map(len, self._ahead))
            if held == 0 and not self.open:
                return
            for data in self._cut():
                yield Page(data, len(data), byte=offset, first=offset == 0)
                offset += len(data)

    async def wait_gone(self) -> None:
        """Return once the client has left. It looks only after the body's end, so that nobody else's bytes are lost."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def close(self) -> None:
        """Forget a receive that is under way."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _cut(self) -> list[bytes]:
        data = self._ahead[0] if len(self._ahead) == 1 else b"".join(self._ahead)
        whole = len(data) // self._page_bytes * self._page_bytes or len(data)
        self._ahead = [data[whole:]] if whole < len(data) else []
        if whole == len(data) <= self._page_bytes:
            return [data]
        return [data[start : start + self._page_bytes] for start in range(0, whole, self._page_bytes)]

    async def _read(self, linger_s: float | None) -> bool:
        """Take one message; False if none came within ``linger_s``."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        done, _ = await asyncio.wait((self._pending,), timeout=self._idle_s if linger_s is None else linger_s)
        if not done:
            if linger_s is not None:
                return False
            raise Refusal("too_slow", f"nothing came for {self._idle_s:g} s after byte {self.received_bytes}")
        message, self._pending = self._pending.result(), None
        if message["type"] == "http.disconnect":
            raise Refusal("client_gone", f"the client left after {self.received_bytes} bytes of its body")
        data: bytes = message.get("body", b"")
        self.received_bytes += len(data)
        if self.received_bytes > self._max_body_bytes:
            raise body_too_large(self._max_body_bytes)
        pieces = [data] if self._part is None else self._part.feed(data)
        self._ahead.extend(piece for piece in pieces if piece)
        if not message.get("more_body", False):
            if self._part is not None:
                self._part.finish()
            self._ended.set()
        return True


def body_too_large(max_body_bytes: int) -> Refusal:
    """The refusal of a body that is, or says it is, over the limit."""
    return Refusal("body_too_large", f"the body is larger than MAX_BODY={as_size(max_body_bytes)}")
