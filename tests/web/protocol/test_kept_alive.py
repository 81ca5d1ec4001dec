"""Many requests on connections that are kept alive: each has its answer, in order, and the server does not grow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.web.protocol.corpus import chunked, get, post
from tests.web.protocol.echo_server import EchoServer, echoing
from tests.web.protocol.raw_client import RawClient

CONNECTIONS = 8
PIPELINED = 32


def requests_and_bodies() -> Iterator[tuple[bytes, bytes]]:
    """What is sent together: bodies with a length, in chunks, with an extension and a trailer, empty ones, and none."""
    for number in range(PIPELINED):
        body = b"body %d " % number * number
        half = len(body) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
        match number % 5:
            case 0:
                yield post(f"Content-Length: {len(body)}", body=body), body
            case 1:
                yield chunked(chunks + b"0\r\n\r\n"), body
            case 2:
                yield chunked(chunks + b"0;last\r\nX: y\r\n\r\n"), body
            case 3:
                yield post("Content-Length: 0"), b""
            case _:
                yield get(target=f"/{number}"), b""


class KeptAlive:
    """One connection: the answers are looked at the first time, and have to be the same bytes every other time."""

    def __init__(self, client: RawClient) -> None:
        self._socket = client.socket
        self._sent_together = b"".join(request for request, _ in requests_and_bodies())
        client.send_all(self._sent_together)
        for _, body in requests_and_bodies():
            answer = client.next_answer()
            assert answer is not None
            assert answer.seen()["sha256"] == sha256(body).hexdigest()
        self._expected = client.transcript
        self._received = bytearray(len(self._expected))

    def send(self) -> None:
        self._socket.sendall(self._sent_together)

    def read(self) -> None:
        view, nbytes = memoryview(self._received), 0
        while nbytes < len(view):
            received = self._socket.recv_into(view[nbytes:])
            assert received, "the server has ended the connection"
            nbytes += received
        assert self._received == self._expected


def send_many(connections: list[KeptAlive], requests: int) -> None:
    for _ in range(requests // (PIPELINED * len(connections))):
        for connection in connections:
            connection.send()
        for connection in connections:
            connection.read()


def assert_does_not_grow(server: EchoServer, *, warm_up: int, requests: int, most_kib: int) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(CONNECTIONS)]
        connections = [KeptAlive(client) for client in clients]
        send_many(connections, warm_up)
        before = server.resident_kib()
        send_many(connections, requests - warm_up)
        growth = server.resident_kib() - before
    print(f"{server.protocol}: {before} KiB after {warm_up} requests, {growth:+} KiB after {requests}")
    assert growth < most_kib
    assert not server.errors()


@pytest.mark.parametrize("protocol", ["stock", "ours"])
def test_10_000_requests(protocol: str, tmp_path: Path) -> None:
    with echoing(protocol, tmp_path) as server:
        assert_does_not_grow(server, warm_up=2_500, requests=10_000, most_kib=4096)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("protocol", ["stock", "ours"])
def test_a_million_requests(protocol: str, tmp_path: Path) -> None:
    with echoing(protocol, tmp_path) as server:
        assert_does_not_grow(server, warm_up=100_000, requests=1_000_000, most_kib=8192)
