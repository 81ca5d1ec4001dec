"""The app under test: one answer per request, which tells what the app saw of it.

``python -m tests.web.protocol.echo_app stock`` serves it by uvicorn's own protocol class, ``ours`` by Weir's. The port is
the first line of standard output. ``GET /-/seen`` tells which requests the app has seen since it was last asked: what a
client was answered and what the app was given are two things, and a smuggled request need not be answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]
MOST_REMEMBERED = 4096
FRONT_FIELD = b"x-front-request-number"
seen: deque[dict[str, Any]] = deque(maxlen=MOST_REMEMBERED)


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    if target == b"/-/seen":
        document = json.dumps(list(seen)).encode()
        seen.clear()
        await answer(send, scope["method"], b"", document)
        return
    record = {
        "method": scope["method"],
        "target": target.decode("latin-1"),
        "http_version": scope["http_version"],
        "fields": hashlib.sha256(b"\n".join(b": ".join(field) for field in scope["headers"])).hexdigest(),
        "front": [value.decode("latin-1") for name, value in scope["headers"] if name == FRONT_FIELD],
        "client_port": scope["client"][1],
        "complete": False,
    }
    seen.append(record)
    digest, length, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body = message.get("body", b"")
        digest.update(body)
        length += len(body)
        more = message.get("more_body", False)
    record |= {"complete": True, "length": length, "sha256": digest.hexdigest()}
    document = json.dumps(record).encode()
    await answer(send, scope["method"], document, document)


async def answer(send: Callable[[Message], Awaitable[None]], method: str, told: bytes, document: bytes) -> None:
    """``told`` stands in a field too, for the answers that have no body."""
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(document)).encode()),
        (b"answers", method.encode()),
        (b"seen", told),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else document})


def protocol_class(name: str) -> type[asyncio.Protocol]:
    if name == "stock":
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        return HttpToolsProtocol
    from app.web.protocol import WireProtocol

    return WireProtocol


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol_class(sys.argv[1]),
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=60,
    )
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
