"""One connection: a protocol class for uvicorn that receives bodies into pages and writes pages as they are.

The way in: the kernel's bytes go into one small buffer that all connections share while heads are read, and straight
into a page once a body has begun (``Body.room``). Reading stops whenever nobody wants more. The way out: pieces go to
the kernel together, unjoined, and whoever wrote them waits until it has them all.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any, Literal, cast

from app.core.errors import Refusal
from app.web.errors import problem_of_status
from app.web.protocol.body import Body
from app.web.protocol.chunked import BadFraming
from app.web.protocol.exchange import ClientLeft, Exchange
from app.web.protocol.gathering import Gathering
from app.web.protocol.head import BadHead, Head, HeadReader
from app.web.protocol.reply import reply_head
from app.web.protocol.wire import Wire, default_wire

_MOST_BEHIND_BYTES = 64 * 1024
"""Requests that were sent ahead, as far as they are read before their turn."""
_SILENCE_S = 5.0
"""A body that nobody wants is dropped as long as it comes; after so much silence it is not waited for."""


class WireProtocol(asyncio.BufferedProtocol):
    """A connection of one client, for uvicorn's ``http=``; it is an ASGI server for any application.

    Its phases: ``head`` (a request is awaited or its head comes), ``body`` (its body comes), ``answer`` (its body is
    here, its answer is not complete), ``drop`` (its answer is complete, its body is not), ``closed``. Pipelined
    requests wait, unparsed, for the answer before theirs.
    """

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None, *, wire: Wire | None = None
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop: asyncio.AbstractEventLoop = _loop or asyncio.get_running_loop()
        self._wire = wire or default_wire()
        self._phase: Literal["head", "body", "answer", "drop", "closed"] = "head"
        self._heads = HeadReader()
        self._exchange: Exchange | None = None
        self._body: Body | None = None
        self._behind = b""
        self._wants = self._asks = False
        self.is_reading = True
        """See ``gathering.Incoming``."""
        self._keeps = True
        self._ended = False
        self._since = time.monotonic()
        self._dropped_at = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._came = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self._socket = transport.get_extra_info("socket")
        self._is_tcp = self._socket is not None and self._socket.family in (socket.AF_INET, socket.AF_INET6)
        self._gathering = Gathering(self._loop, self, self._socket if self._is_tcp else None)
        self._server = _address(transport.get_extra_info("sockname"))
        self._client = _address(transport.get_extra_info("peername"))
        if self._wire.socket_bytes and self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._wire.socket_bytes)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._wire.socket_bytes)
        self._wire.join(self)
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._phase = "closed"
        self._wire.part(self)
        self._state.connections.discard(self)
        self._gathering.stop()
        self.resume_writing()
        if self._exchange is not None:
            self._exchange.leave()
        self._body = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        body = self._receiving()
        return self._wire.scratch if body is None else body.room()

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were put there."""
        self._came = True
        body = self._receiving()
        if body is None:
            self._take(bytes(self._wire.scratch[:nbytes]))
            return
        try:
            body.add(nbytes)
        except BadFraming as error:
            self._break_body(error)
            return
        if self._phase != "drop":
            self._after_read(body, nbytes)
        elif body.ended:
            self._next(body.rest)

    def eof_received(self) -> bool:
        """The client sends no more. A whole request still gets its answer (RFC 9112, section 9.6)."""
        self._ended = True
        if self._phase == "answer":
            self._keeps = False
            return True
        if self._exchange is not None:
            self._exchange.leave()
        return False

    def pause_writing(self) -> None:
        """The kernel did not take all of it."""
        self._paused = True

    def resume_writing(self) -> None:
        """The kernel has all that was written."""
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What uvicorn calls.

    def shutdown(self) -> None:
        """The server stops: a connection without a request ends now, another with its answer."""
        self._keeps = False
        if self._phase == "head" and not self._heads.begun:
            self._transport.close()

    def _receiving(self) -> Body | None:
        """The body that the next bytes belong to."""
        return None if self._body is None or self._body.ended else self._body

    # Heads.

    def _take(self, data: bytes) -> None:
        """Bytes that belong to no body that is under way."""
        if self._phase == "head":
            try:
                found = self._heads.feed(data)
            except BadHead as bad:
                self._refuse(bad)
                return
            if not self._heads.begun or found is not None:
                self._since = time.monotonic()
            if found is not None:
                self._begin(*found)
        elif self._phase in ("body", "answer"):
            self._behind += data
            self._set_reading()

    def _begin(self, head: Head, rest: bytes) -> None:
        try:
            self._body = Body(head.length_bytes, self._wire.pool, rest, library=self._wire.library)
        except BadFraming as error:
            self._refuse(BadHead(400, str(error)), head.method)
            return
        self._gathering.begin()
        self._wants = False
        self._exchange = Exchange(
            head,
            self._body,
            self,
            files=self._wire.files,
            limits=self._wire.limits,
            default_headers=lambda: self._state.default_headers,
            keeps=lambda: self._keeps,
        )
        self._phase = "body"
        if self._body.ended:
            self._phase, self._behind = "answer", self._body.rest
        self._set_reading()
        task = self._loop.create_task(self._exchange.run(self._config.loaded_app, self._scope(head)))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def _scope(self, head: Head) -> dict[str, Any]:
        extensions: dict[str, Any] = {
            "weir.wire": self._exchange,
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
        }
        if head.takes_trailers:
            extensions["http.response.trailers"] = {}
        return {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": head.http_version,
            "server": self._server,
            "client": self._client,
            "scheme": "https" if self._transport.get_extra_info("sslcontext") else "http",
            "method": head.method,
            "root_path": self._config.root_path,
            "path": self._config.root_path + head.path,
            "raw_path": self._config.root_path.encode("ascii") + head.raw_path,
            "query_string": head.query_string,
            "headers": head.headers,
            "state": self._app_state.copy(),
            "extensions": extensions,
        }

    def _refuse(self, bad: BadHead, method: str = "") -> None:
        """Answer what is no request, and end the connection: nothing behind it is read as one. ``method``, where it is
        known, tells whether the answer has a body."""
        reply = problem_of_status(bad.status, bad.detail)
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(reply.body))]
        head = reply_head(
            bad.status,
            headers,
            default_headers=self._state.default_headers,
            method=method,
            http_version="1.1",
            keep_alive=False,
        )
        self._transport.writelines([head.data, b"" if head.bare else reply.body])
        self._body = None
        self._close_gently()

    # The body.

    def look_for_body(self, linger_s: float) -> None:
        """See ``exchange.Line``."""
        self._wants = True
        self._gathering.wait(linger_s)
        if self._body is not None and self._body.has_some:
            self._gathering.some()
        self._set_reading()

    @property
    def keeps_waiting(self) -> bool:
        """See ``gathering.Incoming``."""
        body, exchange = self._body, self._exchange
        if body is None or exchange is None or self._phase != "body":
            return False
        return exchange.wants_body and body.has_some

    def wake(self) -> None:
        """See ``gathering.Incoming``."""
        assert self._exchange is not None
        self._exchange.wake()

    def _after_read(self, body: Body, nbytes: int) -> None:
        exchange = self._exchange
        assert exchange is not None
        if body.ended:
            self._phase, self._behind = "answer", body.rest
            self._gathering.end()
            self._set_reading()
            exchange.wake()
            return
        self._gathering.hold_back(nbytes, body.left_bytes)
        if body.is_ready:
            exchange.wake()
            self._set_reading()
        elif self.keeps_waiting:
            self._gathering.some()

    def _break_body(self, error: BadFraming) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._body = None
        self._keeps = False
        if exchange.started or self._phase == "drop":
            self._transport.abort()
            return
        exchange.fail(Refusal("bad_framing", f"the body is not framed as HTTP/1.1 says: {error}"))
        self._phase = "answer"
        self._set_reading()

    def _set_reading(self, *, in_turn: bool = False) -> None:
        """Read if, and only if, somebody wants what may come; a body, once it is its turn."""
        if self._phase == "body":
            assert self._body is not None
            # Once it is full it is read again when it is empty: each change costs a system call.
            wanted = self._wants and not (self._body.is_full if self.is_reading else self._body.is_ready)
        elif self._phase == "answer":
            wanted = len(self._behind) < _MOST_BEHIND_BYTES
        else:
            wanted = True
        if wanted != self.is_reading and not self._transport.is_closing():
            if wanted and self._phase == "body" and not in_turn:
                self._ask_for_turn()
                return
            self.is_reading = wanted
            if wanted:
                self._transport.resume_reading()
                self._gathering.resume()
            else:
                self._transport.pause_reading()

    def _ask_for_turn(self) -> None:
        assert self._body is not None
        if not self._asks:
            self._asks = True
            self._wire.turns.ask(self._take_turn, self._body.wanted_bytes)

    def _take_turn(self) -> None:
        self._asks = False
        self._set_reading(in_turn=True)

    # The answer.

    def post(self, data: bytes) -> None:
        """See ``exchange.Line``."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def write(self, pieces: list[bytes | memoryview]) -> None:
        """See ``exchange.Line``."""
        transport = self._transport
        if self._paused:
            await self._drained()
        if transport.is_closing():
            raise ClientLeft
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)
        if self._paused:
            await self._drained()

    async def _drained(self) -> None:
        while self._paused:
            self._writable = self._loop.create_future()
            await self._writable
        if self._phase == "closed":
            raise ClientLeft

    def unsent_bytes(self) -> int:
        """See ``exchange.Line``."""
        return 0 if self._phase == "closed" else self._transport.get_write_buffer_size()

    def duplicate(self) -> int:
        """See ``file_sender.Socket``."""
        if self._phase == "closed" or self._transport.is_closing():
            raise ClientLeft
        return os.dup(self._socket.fileno())

    def abort(self) -> None:
        """See ``exchange.Line``."""
        self._transport.abort()

    def finished(self, *, close: bool) -> None:
        """See ``exchange.Line``."""
        self._state.total_requests += 1
        exchange, body = self._exchange, self._body
        if self._transport.is_closing():
            return
        self._keeps = self._keeps and not close
        if body is None or body.ended:
            self._next(self._behind)
            return
        assert exchange is not None
        self._gathering.end()
        if close or exchange.awaits_continue:
            self._body = None
            self._close_gently()
            return
        body.drop(self._wire.scratch)
        self._start_dropping()

    def _next(self, data: bytes) -> None:
        """The request is over; ``data`` came behind it."""
        self._exchange = self._body = None
        self._behind = b""
        if not self._keeps:
            self._close_gently()
            return
        self._phase, self._since = "head", time.monotonic()
        self._set_reading()
        if data:
            self._take(data)

    def _close_gently(self) -> None:
        """Send what is written, say that nothing follows, and drop what the client still sends for a while: a
        connection that is closed over unread bytes is reset, and the client may lose the answer."""
        if self._is_tcp and not self._ended:
            self._transport.write_eof()
            self._start_dropping()
        else:
            self._phase = "drop"
            self._transport.close()

    def _start_dropping(self) -> None:
        self._phase = "drop"
        self._since = self._dropped_at = time.monotonic()
        self._set_reading()

    # The clock.

    def look(self, now: float) -> None:
        """Hold the client to the limits; called about four times a second."""
        if self._transport.is_closing():
            return
        limits = self._wire.limits
        if self._phase == "head":
            most_s = limits.header_s if self._heads.begun else limits.keep_alive_s
            if most_s and now - self._since > most_s:
                if self._heads.begun:
                    self._refuse(BadHead(408, f"the head of the request did not come within {most_s:g} s"))
                else:
                    self._transport.close()
        elif self._phase == "drop":
            if self._came:
                self._since, self._came = now, False
            if now - self._since > _SILENCE_S or now - self._dropped_at > limits.linger_s:
                self._transport.abort()
        elif self._exchange is not None:
            self._exchange.look(now)


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None
