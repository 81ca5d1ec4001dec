"""Weir's wire alone: uploads dropped and uploads to the disk, without runs, budget and pipelines around them.

weir_wire.py SPOOL-FOLDER
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.allocator import tune_allocator
from app.framing.native import LIBRARY
from app.settings import Settings
from app.sources.request import RequestBody
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile
from app.web.protocol import FileSender, PagePool, Wire, WireProtocol

_FREE_PAGES = 8
_MOST_RECYCLED_BYTES = 4 << 30

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Uploads:
    """An ASGI application: ``POST /sink``, ``POST /disk``, and ``GET /disk`` for what was uploaded last. An upload is kept
    until the next one begins."""

    def __init__(self, spool: Spool, settings: Settings) -> None:
        self._spool = spool
        self._settings = settings
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._kept: SpoolFile | None = None

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        body = RequestBody(
            receive,
            page_bytes=self._settings.page_bytes,
            max_body_bytes=self._settings.max_body,
            idle_s=self._settings.idle_timeout,
            offer=scope["extensions"].get("weir.wire"),
        )
        match scope["method"], scope["path"]:
            case "GET", "/healthz":
                await _answer(send, b"ok\n")
            case "POST", "/sink":
                await _answer(send, b"%d\n" % await self._drop(body))
            case "POST", "/disk":
                await _answer(send, b"%d\n" % await self._store(body))
            case "GET", "/disk":
                await self._give(send)
            case _:
                await _answer(send, b"not here\n", status=404)

    async def _drop(self, body: RequestBody) -> int:
        total = 0
        async for page in body.pages():
            total += page.nbytes
            del page  # it is the one that the next can be received into
        return total

    async def _store(self, body: RequestBody) -> int:
        loop = asyncio.get_running_loop()
        self._forget()
        file = await loop.run_in_executor(self._executor, self._spool.open)
        async for page in body.pages():
            await loop.run_in_executor(self._executor, file.append, page.payload)
            del page
        self._forget()  # another upload may have ended meanwhile
        self._kept = file
        return file.nbytes

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    async def _give(self, send: Send) -> None:
        file, loop = self._kept, asyncio.get_running_loop()
        assert file is not None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for offset in range(0, file.nbytes, self._settings.page_bytes):
            read = partial(file.read_at, offset, self._settings.page_bytes)
            piece = await loop.run_in_executor(self._executor, read)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


async def _answer(send: Send, text: bytes, *, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def main() -> None:
    settings = Settings()
    tune_allocator()
    recycle_bytes = min(settings.spool_limit // 8, _MOST_RECYCLED_BYTES)
    spool = Spool(Path(sys.argv[1]), limit_bytes=settings.spool_limit, recycle_bytes=recycle_bytes)
    wire = Wire(
        PagePool(settings.page_bytes, keep_bytes=_FREE_PAGES * settings.page_bytes),
        FileSender(ThreadPoolExecutor(1), library=LIBRARY),
        library=LIBRARY,
    )
    config = uvicorn.Config(
        Uploads(spool, settings),
        loop="uvloop",
        http=partial(WireProtocol, wire=wire),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        spool.close()


if __name__ == "__main__":
    main()
