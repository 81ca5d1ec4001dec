"""The body of an HTTP request, as pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size
from app.framing.multipart import FilePart

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_LINGER_S = 0.005
"""How long a page that is not full waits for more. Longer, and a slow sender's results come late; shorter, and a
sender in a hurry makes small pages."""


class PageOffer(Protocol):
    """A body in pages, as our own wire offers it."""

    @property
    def more(self) -> bool:
        """There may be more of the body to come than what was taken."""
        ...

    async def next_page(self, linger_s: float) -> bytes | memoryview | None:
        """The next page; None after the last. One that is not full is given once nothing came for ``linger_s``; with 0
        whatever is there. Raises ``Refusal`` when the client leaves, or takes too long."""
        ...


class MessagePages:
    """``PageOffer`` over ASGI messages, for servers that offer no pages: each byte is copied into its page."""

    def __init__(self, receive: Receive, *, page_bytes: int, idle_s: float) -> None:
        self._receive = receive
        self._page_bytes = page_bytes
        self._idle_s = idle_s
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._received_bytes = 0
        self._came_at = time.monotonic()
        self._ended = False
        self._pending: asyncio.Task[MutableMapping[str, Any]] | None = None

    @property
    def more(self) -> bool:
        """See ``PageOffer``."""
        return not self._ended or self._held_bytes > 0

    async def next_page(self, linger_s: float) -> bytes | None:
        """See ``PageOffer``."""
        while not self._ended and self._held_bytes < self._page_bytes:
            if not await self._read(linger_s if self._held_bytes else None):
                break
        if not self._held_bytes:
            return None
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = [data[self._page_bytes :]] if len(data) > self._page_bytes else []
        self._held_bytes = sum(map(len, self._pieces))
        return data[: self._page_bytes]

    def quiet_s(self) -> float:
        """For how long no message has brought anything, in seconds."""
        return time.monotonic() - self._came_at

    def close(self) -> None:
        """Forget a receive that is under way."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    async def _read(self, linger_s: float | None) -> bool:
        """Take one message; False if none came within ``linger_s``."""
        if linger_s == 0:
            return False
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        done, _ = await asyncio.wait((self._pending,), timeout=self._idle_s if linger_s is None else linger_s)
        if not done:
            if linger_s is not None:
                return False
            raise Refusal("too_slow", f"nothing came for {self._idle_s:g} s after byte {self._received_bytes}")
        message, self._pending = self._pending.result(), None
        if message["type"] == "http.disconnect":
            raise Refusal("client_gone", f"the client left after {self._received_bytes} bytes of its body")
        data: bytes = message.get("body", b"")
        self._received_bytes += len(data)
        if data:
            self._pieces.append(data)
            self._held_bytes += len(data)
            self._came_at = time.monotonic()
        self._ended = not message.get("more_body", False)
        return True


class RequestBody:
    """The one reader of a request: it pumps the body, and after its end it sees the client leave.

    It takes pages where the server offers them, and makes them of ``receive()``'s messages elsewhere.
    ``max_body_bytes`` bounds the body as it comes over the wire, and is raised as a refusal from ``pages``. Of a
    multipart form it gives the file part; ``head`` reads until that part's own headers are known.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        page_bytes: int,
        max_body_bytes: int,
        idle_s: float,
        content_type: str = "",
        offer: PageOffer | None = None,
    ) -> None:
        self._receive = receive
        self._messages = MessagePages(receive, page_bytes=page_bytes, idle_s=idle_s)
        self._offer: PageOffer = offer or self._messages
        self._max_body_bytes = max_body_bytes
        self.is_form = content_type.partition(";")[0].strip().lower() == "multipart/form-data"
        self._part = FilePart(content_type) if self.is_form else None
        self._ahead: list[bytes | memoryview] = []
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
            await self._read(0.0)
        return bytes(self._ahead[0]) if self._ahead else b""

    async def head(self) -> tuple[str, str] | None:
        """The content type and file name of the file part, of a multipart form; None for a plain body."""
        if self._part is None:
            return None
        while not self._part.head_seen and self.open:
            await self._read(0.0)
        return self._part.content_type or "", self._part.filename or ""

    async def pages(self) -> AsyncIterator[Page]:
        """The file in pages of the server's size; smaller ones at its ends, and when the sender pauses."""
        offset = 0
        while self._ahead or self.open:
            ahead, self._ahead = self._ahead, []
            for data in ahead:
                yield Page(data, len(data), byte=offset, first=offset == 0)
                offset += len(data)
            # A page is let go before the next is asked for: it is the one that the next can be received into.
            ahead = data = None  # type: ignore[assignment]
            if self.open:
                await self._read(_LINGER_S)

    async def wait_gone(self) -> None:
        """Return once the client has left. It looks only after the body's end, so that nobody else's bytes are lost."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def quiet_s(self) -> float:
        """For how long nothing of the body has come, in seconds, where it comes in ``receive()``'s messages; a server
        that offers pages keeps the time itself."""
        return self._messages.quiet_s()

    def close(self) -> None:
        """Forget a receive that is under way."""
        self._messages.close()

    async def _read(self, linger_s: float) -> None:
        data = await self._offer.next_page(linger_s) or b""
        self.received_bytes += len(data)
        if self.received_bytes > self._max_body_bytes:
            raise body_too_large(self._max_body_bytes)
        pieces = [data] if self._part is None else self._part.feed(bytes(data))
        self._ahead.extend(piece for piece in pieces if len(piece))
        if not self._offer.more:
            if self._part is not None:
                self._part.finish()
            self._ended.set()


def body_too_large(max_body_bytes: int) -> Refusal:
    """The refusal of a body that is, or says it is, over the limit."""
    return Refusal("body_too_large", f"the body is larger than MAX_BODY={as_size(max_body_bytes)}")
