"""One request and its answer, as an ASGI application sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from app.core.errors import Refusal
from app.web.errors import problem
from app.web.protocol.body import Body
from app.web.protocol.file_sender import FileSender, Progress
from app.web.protocol.head import Head
from app.web.protocol.pace import Limits, Pace
from app.web.protocol.reply import Headers, ReplyHead, reply_head, trailer_block

log = logging.getLogger("weir.wire")

Message = MutableMapping[str, Any]


class ClientLeft(OSError):
    """The client is gone: nothing that is sent arrives any more. ASGI 2.4 asks for an ``OSError``.

    ``code`` says whether it left (``client_gone``) or was given up because it took nothing (``stalled``).
    """

    def __init__(self, code: str = "client_gone") -> None:
        super().__init__("the client left" if code == "client_gone" else "the client took nothing for too long")
        self.code = code


class Line(Protocol):
    """What an exchange needs of its connection."""

    def look_for_body(self, linger_s: float) -> None:
        """Somebody waits for the body: read on, and ``Exchange.wake`` when there is something to take."""
        ...

    def post(self, data: bytes) -> None:
        """Write something small without waiting."""
        ...

    async def write(self, pieces: list[bytes | memoryview]) -> None:
        """Hand pieces to the kernel; returns when it has all of them. Raises ``ClientLeft``."""
        ...

    def finished(self, *, close: bool) -> None:
        """The answer is complete."""
        ...

    def abort(self) -> None:
        """End the connection at once, so that nobody takes an answer for whole."""
        ...

    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        ...

    def duplicate(self) -> int:
        """See ``file_sender.Socket``."""
        ...


class Exchange:
    """Carries the messages of one request between the application and the connection.

    In ``scope["extensions"]["weir.wire"]`` it offers itself: ``next_page`` gives the body's pages without a copy,
    ``taken_at`` tells when the client last took something. An application that knows nothing of that uses ``receive``
    and ``send`` as ever. ``send`` returns once the kernel has all of the message, so that whoever waits for it holds
    no more than what he sends.
    """

    def __init__(
        self,
        head: Head,
        body: Body,
        line: Line,
        *,
        files: FileSender,
        limits: Limits,
        default_headers: Callable[[], Headers],
        keeps: Callable[[], bool],
    ) -> None:
        """``keeps`` tells whether the connection may be used again."""
        self.body = body
        self.head = head
        self.complete = False
        self._line = line
        self._files = files
        self._default_headers = default_headers
        self._keeps = keeps
        self._reply: ReplyHead | None = None
        self._unsent_head = b""
        self._left_bytes = 0
        self._trailers_follow = False
        self._awaits_trailers = False
        self._continues = head.expects_continue
        self._given_whole = False
        self._failure: Refusal | None = None
        self._gone = asyncio.Event()
        self.leaving = "client_gone"
        """Why there will be no client any more, once there is none."""
        self._waiter: asyncio.Future[None] | None = None
        self._file: Progress | None = None
        self._written_bytes = 0
        self._seen_bytes = -1
        self._taken_at = 0.0
        self._limits = limits
        self._inward, self._outward = Pace(limits), Pace(limits)
        self._looked_at_bytes = 0
        self._until = time.monotonic() + limits.request_s if limits.request_s else float("inf")

    # The body.

    @property
    def awaits_continue(self) -> bool:
        """The client waits to be told that its body is wanted, and was not told."""
        return self._continues

    @property
    def wants_body(self) -> bool:
        """Somebody waits for more of the body now."""
        return self._waiter is not None

    @property
    def more(self) -> bool:
        """There may be more of the body to come than what was taken."""
        return not self.body.ended or self.body.has_some

    async def next_page(self, linger_s: float) -> memoryview | None:
        """The next page of the body; None after the last. A page that is not full is given once nothing came for
        ``linger_s``. It stays what it is for as long as anything refers to it.

        Raises ``Refusal``: ``client_gone``, or ``too_slow`` when the client outlasted the operator's limits. A
        cancelled call has taken nothing.
        """
        while True:
            page = self.body.take_some() if linger_s == 0 else self.body.take()
            if page is not None:
                return page
            if self.body.ended:
                return None
            await self._wait_for_body(linger_s)
            if self._failure is None and not self._gone.is_set() and (some := self.body.take_some()) is not None:
                return some

    async def receive(self) -> Message:
        """ASGI's ``receive``: whatever is there of the body, then the client's leaving."""
        if not self._given_whole and not self.complete:
            try:
                page = await self.next_page(0.0)
            except Refusal:
                return {"type": "http.disconnect"}
            self._given_whole = not self.more
            return {"type": "http.request", "body": bytes(page or b""), "more_body": not self._given_whole}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def wake(self) -> None:
        """There is something to take, or the wait is over."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait_for_body(self, linger_s: float) -> None:
        if self._failure is not None:
            raise self._failure
        if self._gone.is_set():
            raise Refusal("client_gone", f"the client left after {self.body.received_bytes} bytes of its body")
        if self._continues and not self.started:
            self._line.post(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._continues = False
        self._waiter = asyncio.get_running_loop().create_future()
        self._line.look_for_body(linger_s)
        try:
            await self._waiter
        finally:
            self._waiter = None

    # The answer.

    @property
    def started(self) -> bool:
        """The head of the answer is out, or on its way."""
        return self._reply is not None

    def taken_at(self) -> float:
        """The loop's time at which the client was last seen to take something, or to have nothing to take."""
        now = asyncio.get_running_loop().time()
        unsent = self._unsent_bytes()
        left = self._written_bytes - unsent
        if left != self._seen_bytes or not unsent:
            self._seen_bytes, self._taken_at = left, now
        return self._taken_at

    async def send(self, message: Message) -> None:
        """ASGI's ``send``, with the extensions for trailers and for files.

        Raises ``ClientLeft`` when nobody is there to take it, and ``RuntimeError`` or ``ValueError`` for messages that
        make no answer.
        """
        if self._gone.is_set():
            raise ClientLeft(self.leaving)
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
        elif self._reply is None or self.complete:
            raise RuntimeError(f"{kind} cannot be sent {'before the start' if self._reply is None else 'any more'}")
        elif kind == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.trailers":
            await self._send_trailers(message)
        elif kind == "http.response.zerocopysend":
            more = message.get("more_body", False)
            await self._send_file(message["file"], message.get("offset"), message.get("count"), more=more)
        elif kind == "http.response.pathsend":
            fd = await self._files.open(message["path"])
            try:
                await self._send_file(fd, 0, None, more=False)
            finally:
                self._files.close(fd)
        else:
            raise RuntimeError(f"{kind} is no message of an answer")

    async def send_page(self, page: bytes | memoryview) -> None:
        """The same as a message with this part of the body, and more to come, past whoever wraps ``send``."""
        await self.send({"type": "http.response.body", "body": page, "more_body": True})

    def _start(self, message: Message) -> None:
        if self._reply is not None:
            raise RuntimeError("the answer was started already")
        self._awaits_trailers = bool(message.get("trailers")) and self.head.takes_trailers
        self._trailers_follow = bool(message.get("trailers"))
        early_error = message["status"] >= 400 and not self.body.ended
        reply = reply_head(
            message["status"],
            message.get("headers", ()),
            default_headers=self._default_headers(),
            method=self.head.method,
            http_version=self.head.http_version,
            keep_alive=self.head.keep_alive and not early_error and self._keeps(),
            trailers=self._awaits_trailers,
        )
        self._reply = reply
        self._left_bytes = reply.length_bytes or 0
        self._unsent_head = reply.data
        # One packet with what follows at once; but who follows later (server-sent events) is not waited for.
        asyncio.get_running_loop().call_soon(self._send_head)

    def _send_head(self) -> None:
        if self._unsent_head and not self._gone.is_set():
            self._written_bytes += len(self._unsent_head)
            self._line.post(self._unsent_head)
            self._unsent_head = b""

    async def _send_body(self, data: bytes | memoryview, *, more: bool) -> None:
        assert self._reply is not None
        nbytes = len(data)
        pieces = self._frame(nbytes)
        if nbytes and not self._reply.bare:
            pieces.append(data)
            if self._reply.chunked:
                pieces.append(b"\r\n")
        await self._end_part(pieces, more=more)

    async def _send_trailers(self, message: Message) -> None:
        if not self._trailers_follow:
            raise RuntimeError("the start said nothing of trailers")
        if message.get("more_trailers"):
            raise RuntimeError("trailers are sent in one message here")
        if self._awaits_trailers:
            await self._write([trailer_block(message.get("headers", ()))])
        self._finish()

    async def _send_file(self, file: Any, offset: int | None, nbytes: int | None, *, more: bool) -> None:
        assert self._reply is not None
        fd = file if isinstance(file, int) else file.fileno()
        offset, nbytes = self._files.extent(fd, offset, nbytes)
        pieces = self._frame(nbytes)
        if nbytes and not self._reply.bare:
            await self._write(pieces)
            self._written_bytes += nbytes
            self._file = Progress(nbytes)
            try:
                await self._files.send(fd, offset, self._file, self._line)
            except ConnectionError:
                raise ClientLeft(self.leaving) from None
            finally:
                self._file = None
            pieces = [b"\r\n"] if self._reply.chunked else []
        await self._end_part(pieces, more=more)

    async def _end_part(self, pieces: list[bytes | memoryview], *, more: bool) -> None:
        """Send what is left of a part of the body; behind the last one, its end as well."""
        assert self._reply is not None
        if not more:
            self._check_length()
            if self._reply.chunked and not self._awaits_trailers:
                pieces.append(b"0\r\n\r\n")
        await self._write(pieces)
        if not more and not self._trailers_follow:
            self._finish()

    def _unsent_bytes(self) -> int:
        return self._line.unsent_bytes() + (0 if self._file is None else self._file.left_bytes)

    def _frame(self, nbytes: int) -> list[bytes | memoryview]:
        """What goes out before ``nbytes`` of the body."""
        reply = self._reply
        assert reply is not None
        pieces: list[bytes | memoryview] = [self._unsent_head] if self._unsent_head else []
        self._unsent_head = b""
        if nbytes and not reply.bare:
            if reply.chunked:
                pieces.append(b"%x\r\n" % nbytes)
            elif reply.length_bytes is not None:
                self._left_bytes -= nbytes
                if self._left_bytes < 0:
                    raise RuntimeError("the answer is longer than its Content-Length")
        return pieces

    def _check_length(self) -> None:
        if self._left_bytes and self._reply is not None and not self._reply.bare:
            raise RuntimeError("the answer is shorter than its Content-Length")

    async def _write(self, pieces: list[bytes | memoryview]) -> None:
        if pieces:
            self._written_bytes += sum(map(len, pieces))
            try:
                await self._line.write(pieces)
            except ClientLeft:
                raise ClientLeft(self.leaving) from None

    def _finish(self) -> None:
        assert self._reply is not None
        self.complete = True
        self._gone.set()
        self._line.finished(close=self._reply.close)

    # Its ends.

    async def run(self, app: Any, scope: Message) -> None:
        """Let the application answer. However it ends, the answer is complete or the connection is broken off."""
        try:
            await self._run(app, scope)
        finally:
            self.body.forget()

    async def _run(self, app: Any, scope: Message) -> None:
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._line.abort()
            raise
        except ClientLeft:
            self._line.abort()  # where only a file's descriptor has told so, the connection does not know
            return
        except Exception:
            if not self._gone.is_set() and self._failure is None:
                log.exception("the application failed")
        if self.complete or self._gone.is_set():
            return
        if self.started:
            self._line.abort()
            return
        with contextlib.suppress(ClientLeft):
            await self._answer_for(self._failure or Refusal("server_failed", "the application gave no answer"))

    async def _answer_for(self, refusal: Refusal) -> None:
        """What the application did not say: that the body did not come, or that it failed itself."""
        reply = problem(refusal)
        headers = [*reply.raw_headers, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
        await self.send({"type": "http.response.body", "body": reply.body})

    def leave(self) -> None:
        """The connection is lost."""
        self._gone.set()
        if self._file is not None:
            self._file.stop()
        self.wake()

    def fail(self, refusal: Refusal) -> None:
        """Nothing more of the body comes; who waits for it gets ``refusal``."""
        self._failure = refusal
        self.wake()

    def look(self, now: float) -> None:
        """Hold the client to its limits; called a few times a second with a monotonic time.

        While its body still comes, it may leave the answer where it is: many clients read nothing until they have sent
        everything. Its time to read begins, in full, with the last byte that came.
        """
        if self._failure is not None or self._gone.is_set():
            return
        received, limits = self.body.received_bytes, self._limits
        wrong = self._inward.look(now, received, owed=self.wants_body and not self.body.has_some)
        if wrong == "idle":
            self.fail(Refusal("too_slow", f"nothing came for {limits.idle_s:g} s after byte {received}"))
        elif wrong == "slow":
            rate = f"{limits.min_bytes_per_s} bytes/s (MIN_RATE)"
            self.fail(Refusal("too_slow", f"the body comes at less than {rate}, byte {received} was the last"))
        elif now > self._until:
            self.fail(Refusal("too_slow", f"the request took longer than {limits.request_s:g} s (REQUEST_TIMEOUT)"))
            self._line.abort()
        else:
            if received != self._looked_at_bytes:
                self._looked_at_bytes, self._outward = received, Pace(limits)
            unsent = self._unsent_bytes()
            if self._outward.look(now, self._written_bytes - unsent, owed=unsent > 0) is not None:
                self.leaving = "stalled"
                self._line.abort()
