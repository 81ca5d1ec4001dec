"""What a run left on disk, as an answer: whole, in ranges, or only its head."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from concurrent.futures import Executor

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.errors import Refusal
from app.runs.book import KeptFile, Result
from app.web.errors import problem
from app.web.ranges import Answer, Slice, decide

_PIECE_BYTES = 1 << 20


class KeptResponse(Response):
    """Answers with a file that never changes: HEAD, ranges and preconditions as RFC 9110 has them.

    The file is sent by the server's own way for files where it has one. It is held while it is sent, so a DELETE, or
    the end of its time, takes nothing from under a client. What the file lacks breaks the framing.
    """

    def __init__(
        self,
        file: KeptFile,
        executor: Executor,
        *,
        media_type: str,
        etag: str,
        modified_at: float,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        """``etag`` without its quotes."""
        super().__init__()
        self._file = file
        self._executor = executor
        self._etag = etag
        self._modified_at = modified_at
        self._type = media_type
        self._more_headers = list(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        answer = decide(
            scope["method"],
            Headers(scope=scope),
            nbytes=self._file.nbytes,
            etag=f'"{self._etag}"',
            modified_at=self._modified_at,
            media_type=self._type,
        )
        if answer.status in (412, 416):
            await self._refuse(answer)(scope, receive, send)
            return
        with self._file.held() as fd:
            await self.send_answer(fd, answer, scope, send)

    def _refuse(self, answer: Answer) -> Response:
        if answer.status == 412:
            reply = problem(Refusal("precondition_failed", "the result is not the one that the request is about"))
        else:
            reply = problem(Refusal("range_not_satisfiable", f"the result has {self._file.nbytes} bytes"))
        reply.raw_headers += [(name, value) for name, value in answer.headers if name != b"content-length"]
        return reply

    async def send_answer(self, fd: int, answer: Answer, scope: Scope, send: Send) -> None:
        """Send what was decided, from the descriptor ``fd``."""
        headers = [*answer.headers, *self._more_headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        by_server = "http.response.zerocopysend" in scope.get("extensions", {})
        for piece in answer.pieces:
            if not isinstance(piece, Slice):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            elif by_server:
                place = {"file": fd, "offset": piece.offset, "count": piece.nbytes}
                await send({"type": "http.response.zerocopysend", **place, "more_body": True})
            else:
                await self._send_read(piece, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_read(self, piece: Slice, send: Send) -> None:
        loop = asyncio.get_running_loop()
        for offset in range(piece.offset, piece.offset + piece.nbytes, _PIECE_BYTES):
            nbytes = min(_PIECE_BYTES, piece.offset + piece.nbytes - offset)
            data = await loop.run_in_executor(self._executor, self._file.read, offset, nbytes)
            if len(data) < nbytes:
                raise Refusal("source_failed", f"the kept file ends at byte {offset + len(data)}")
            await send({"type": "http.response.body", "body": data, "more_body": True})


def kept_response(result: Result, executor: Executor, headers: Iterable[tuple[bytes, bytes]]) -> KeptResponse:
    """The answer with a run's result: its SHA-256 is its ETag and its Repr-Digest (RFC 9530)."""
    digest = base64.b64encode(bytes.fromhex(result.digest))
    more = [(b"repr-digest", b"sha-256=:" + digest + b":"), *headers]
    return KeptResponse(
        result.file,
        executor,
        media_type=result.media_type,
        etag=result.digest,
        modified_at=result.made_at,
        headers=more,
    )
