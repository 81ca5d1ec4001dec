"""The Python peer: stock Starlette on stock uvicorn with uvloop and httptools, by the idioms of their documentation.

``StreamingResponse`` listens for the client's leaving by calling ``receive`` itself, beside the endpoint that reads the
body by it (below ASGI 2.4, which uvicorn does not announce), and so takes pieces of the body away. With ``--only-send``
the response only sends; that is what it could do if its answers were right.

    starlette_stock.py FILES-FOLDER [--only-send]
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


class OnlySends(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


folder = Path(sys.argv[1])
streaming = OnlySends if "--only-send" in sys.argv else StreamingResponse


async def sink(request: Request) -> Response:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
    return PlainTextResponse(f"{total}\n")


async def echo(request: Request) -> Response:
    return streaming(request.stream(), media_type="application/octet-stream")


async def upper(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk.upper()

    return streaming(pieces(), media_type="application/octet-stream")


async def disk(request: Request) -> Response:
    total = 0
    with (folder / "disk-starlette").open("wb") as file:
        async for chunk in request.stream():
            total += len(chunk)
            await run_in_threadpool(file.write, chunk)
    return PlainTextResponse(f"{total}\n")


async def file(request: Request) -> Response:
    return FileResponse(folder / Path(request.path_params["name"]).name)


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def main() -> None:
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/sink", sink, methods=["POST"]),
            Route("/echo", echo, methods=["POST"]),
            Route("/upper", upper, methods=["POST"]),
            Route("/disk", disk, methods=["POST"]),
            Route("/file/{name}", file),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
