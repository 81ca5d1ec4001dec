"""What a run left, as an answer: whole, in ranges, or only its head."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import AsyncExitStack

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.budget import Budget
from app.core.errors import Refusal
from app.runs.book import Result
from app.stores.kept import KeptBytes
from app.web.errors import problem
from app.web.ranges import Answer, Slice, decide

_PIECE_BYTES = 1 << 20


class KeptResponse(Response):
    """Answers with a run's result, which never changes: HEAD, ranges and preconditions as RFC 9110 has them. Its SHA-256
    is its ETag and its Repr-Digest (RFC 9530).

    It stays open while it is sent, so a DELETE, or the end of its time, takes nothing from under a client. What it lacks
    breaks the framing.
    """

    def __init__(
        self,
        result: Result,
        open_place: Callable[[str], Awaitable[KeptBytes]],
        executor: Executor,
        budget: Budget,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        """``open_place`` blocks, and is called on ``executor``. What is not sent by the server's own way for files is
        paid for in ``budget``."""
        super().__init__()
        self._budget = budget
        self._result = result
        self._open = open_place
        self._executor = executor
        self._more_headers = [(b"repr-digest", _repr_digest(result.digest)), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        result = self._result
        answer = decide(
            scope["method"],
            Headers(scope=scope),
            nbytes=result.nbytes,
            etag=f'"{result.digest}"',
            modified_at=result.made_at,
            media_type=result.media_type,
        )
        if answer.status in (412, 416):
            await self._refuse(answer)(scope, receive, send)
            return
        async with AsyncExitStack() as held:
            try:
                kept = await self._open(result.place)
                held.callback(kept.close)
                if not _by_server(kept, scope):
                    await held.enter_async_context(self._budget.admit(2 * _PIECE_BYTES))
            except Refusal as refusal:
                await problem(refusal)(scope, receive, send)
                return
            await _send_answer(kept, answer, self._more_headers, self._executor, scope, send)

    def _refuse(self, answer: Answer) -> Response:
        if answer.status == 412:
            reply = problem(Refusal("precondition_failed", "the result is not the one that the request is about"))
        else:
            reply = problem(Refusal("range_not_satisfiable", f"the result has {self._result.nbytes} bytes"))
        reply.raw_headers += [(name, value) for name, value in answer.headers if name != b"content-length"]
        return reply


async def send_whole(
    kept: KeptBytes,
    media_type: str,
    digest: str,
    headers: Iterable[tuple[bytes, bytes]],
    executor: Executor,
    *,
    scope: Scope,
    send: Send,
) -> None:
    """Send all of it, whoever asked for what, with its length and digest (RFC 9530)."""
    said = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(kept.nbytes).encode()),
        (b"etag", f'"{digest}"'.encode()),
        (b"repr-digest", _repr_digest(digest)),
    ]
    pieces = (Slice(0, kept.nbytes),) if kept.nbytes else ()
    await _send_answer(kept, Answer(200, said, pieces), headers, executor, scope, send)


async def _send_answer(
    kept: KeptBytes,
    answer: Answer,
    headers: Iterable[tuple[bytes, bytes]],
    executor: Executor,
    scope: Scope,
    send: Send,
) -> None:
    """Send what was decided; a file by the server's own way for files, where it has one."""
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, *headers]})
    by_server = _by_server(kept, scope)
    for piece in answer.pieces:
        if not isinstance(piece, Slice):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif by_server:
            place = {"file": kept.fd, "offset": piece.offset, "count": piece.nbytes}
            await send({"type": "http.response.zerocopysend", **place, "more_body": True})
        else:
            await _send_read(kept, piece, executor, send)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _repr_digest(digest: str) -> bytes:
    """A SHA-256 in hex as the value of ``Repr-Digest``."""
    return b"sha-256=:" + base64.b64encode(bytes.fromhex(digest)) + b":"


def _by_server(kept: KeptBytes, scope: Scope) -> bool:
    return kept.fd is not None and "http.response.zerocopysend" in scope.get("extensions", {})


async def _send_read(kept: KeptBytes, piece: Slice, executor: Executor, send: Send) -> None:
    loop = asyncio.get_running_loop()
    pieces = kept.pieces(piece.offset, piece.nbytes, _PIECE_BYTES)
    while (data := await loop.run_in_executor(executor, next, pieces, None)) is not None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
