"""What our own HTTP protocol does that uvicorn's does not: limits of time, trailers, half-closed clients, drain."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import WIRE, Server, eventually, serving

pytestmark = pytest.mark.skipif(WIRE == "stock", reason="these are what WIRE=stock lacks")

HEAD = "POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("hasty") / "spool",
        header_timeout="700ms",
        keep_alive_timeout="700ms",
        idle_timeout="1s",
        min_rate="64KiB",
        request_timeout="3s",
        max_body="1MiB",
    ) as server:
        yield server
        server.assert_at_rest()


def connect(server: Server) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=15)


def rest(raw: socket.socket) -> bytes:
    """All until the end, however it comes."""
    data = b""
    try:
        while piece := raw.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def sockets(server: Server) -> int:
    """How many sockets the server has open."""
    count = 0
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(link).startswith("socket:")
    return count


def sockets_at_rest(server: Server) -> int:
    """How many there are once those of earlier requests are gone."""
    counts = [-1, sockets(server)]
    while counts[-1] != counts[-2]:
        time.sleep(0.2)
        counts.append(sockets(server))
    return counts[-1]


def test_a_head_that_does_not_come(hasty: Server) -> None:
    with connect(hasty) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert rest(raw).startswith(b"HTTP/1.1 408 ")
    with connect(hasty) as raw:  # byte by byte is no excuse
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x":
            raw.sendall(bytes([byte]))
            time.sleep(0.04)
        assert rest(raw).startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_rests_too_long(hasty: Server) -> None:
    with connect(hasty) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert raw.recv(1000) == b""


def test_a_body_that_stops_and_one_that_trickles(hasty: Server) -> None:
    with connect(hasty) as raw:
        raw.sendall(f"{HEAD}Content-Length: 1000\r\n\r\nabc".encode())
        answer = rest(raw)
    # The first bytes had their answer: it is broken off.
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"ABC")
    assert hasty.runs()[0]["error"]["code"] == "too_slow"
    with connect(hasty) as raw:
        raw.sendall(b"POST /v1/transform?upper&deliver=whole HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(40):
            try:
                raw.sendall(b"x" * 100)
            except OSError:
                break
            if select.select([raw], [], [], 0.1)[0]:
                break
        assert rest(raw).startswith(b"HTTP/1.1 408 ")
    assert "MIN_RATE" in hasty.runs()[0]["error"]["detail"]


def test_a_client_that_takes_nothing(spool: Path) -> None:
    with serving(spool, idle_timeout="1s") as server:
        quiet = sockets_at_rest(server)
        with connect(server) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(b"POST /v1/transform?deliver=whole HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n")
            raw.sendall(bytes(33554432))
            eventually(lambda: server.runs()[0]["state"] == "succeeded")
            assert sockets(server) > quiet
            # The result was whole; its delivery is given up, and it is there to be fetched again.
            eventually(lambda: sockets(server) <= quiet)
        run_id = server.runs()[0]["id"]
        assert len(server.get(f"/v1/runs/{run_id}/result")) == 33554432


def test_a_stream_that_nobody_takes_is_given_up(spool: Path) -> None:
    with serving(spool, idle_timeout="1s") as server, connect(server) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(f"{HEAD}Content-Length: 33554432\r\n\r\n".encode())
        raw.sendall(bytes(33554432))
        eventually(lambda: server.runs()[0]["state"] == "failed")
        assert server.runs()[0]["error"]["code"] == "stalled"
        server.assert_at_rest()


def test_a_request_that_takes_too_long(hasty: Server) -> None:
    with connect(hasty) as raw:
        raw.sendall(b"POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        began = time.monotonic()
        while time.monotonic() - began < 10:
            try:
                raw.sendall(b"2000\r\n" + bytes(8192) + b"\r\n")
            except OSError:
                break
            time.sleep(0.08)
        answer = rest(raw)
        assert 2.5 < time.monotonic() - began < 7
    assert not answer.endswith(b"0\r\n\r\n")


def test_continue_is_said_when_the_body_is_wanted_and_not_before(hasty: Server) -> None:
    expect = "Expect: 100-continue\r\n"
    with connect(hasty) as raw:
        raw.sendall(f"{HEAD}{expect}Content-Length: 3\r\n\r\n".encode())
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"abc")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
    for line, status in (("Content-Length: 2000000", b"413"), ("Content-Length: 3\r\nContent-Type: no/such", b"415")):
        with connect(hasty) as raw:
            raw.sendall(f"{HEAD}{expect}{line}\r\n\r\n".encode())
            answer = rest(raw)
            assert answer.startswith(b"HTTP/1.1 %b " % status)
            assert b"connection: close" in answer


def test_trailers_for_those_who_take_them(server: Server) -> None:
    body = b"some text " * 300_000
    with connect(server) as raw:
        raw.sendall(f"{HEAD}TE: trailers\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        raw.sendall(body)
        answer = rest(raw)
    head, _, framed = answer.partition(b"\r\n\r\n")
    assert b"trailer: Repr-Digest, Weir-Status" in head
    digest = base64.b64encode(hashlib.sha256(body.upper()).digest())
    assert framed.endswith(b"\r\n0\r\nrepr-digest: sha-256=:" + digest + b":\r\nweir-status: succeeded\r\n\r\n")


def test_the_length_is_told_where_it_is_known(server: Server) -> None:
    for query, told in (("upper", True), ("", True), ("from=lines&grep=a", False)):
        with connect(server) as raw:
            head = f"POST /v1/transform?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
            raw.sendall(f"{head}abc\n".encode())
            answer = rest(raw)
            assert (b"content-length: 4" in answer) == told
            assert (b"transfer-encoding: chunked" in answer) != told


def test_a_client_that_only_closed_its_own_half_gets_its_answer(server: Server) -> None:
    with connect(server) as raw:
        raw.sendall(f"{HEAD}Content-Length: 3\r\n\r\nabc".encode())
        raw.shutdown(socket.SHUT_WR)
        assert rest(raw).endswith(b"ABC")
    with connect(server) as raw:
        raw.sendall(f"{HEAD}Content-Length: 4\r\n\r\nabc".encode())
        raw.shutdown(socket.SHUT_WR)
        assert not rest(raw).endswith(b"ABC\n")
    eventually(lambda: server.runs()[0]["state"] == "cancelled")


def test_an_offer_of_another_protocol_is_passed_over(server: Server) -> None:
    with connect(server) as raw:
        raw.sendall(
            f"{HEAD}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc".encode()
        )
        assert raw.recv(1000).endswith(b"ABC")


def test_drain_finishes_what_ends_in_time_and_breaks_off_the_rest(spool: Path) -> None:
    server = Server(spool, drain_timeout="2s")
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n7\r\nbefore \r\n".encode()
    finishes, hangs, resting = connect(server), connect(server), connect(server)
    with finishes, hangs, resting:
        for raw in (finishes, hangs):
            raw.sendall(head)
        eventually(lambda: [run["input_bytes"] for run in server.runs()] == [7, 7])
        resting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert resting.recv(1000).startswith(b"HTTP/1.1 200 ")
        server.process.send_signal(signal.SIGTERM)
        # A connection without a request ends at once, one with a request may come to its end.
        assert resting.recv(1000) == b""
        finishes.sendall(b"5\r\nafter\r\n0\r\n\r\n")
        assert rest(finishes).endswith(b"\r\nAFTER\r\n0\r\n\r\n")
        broken = rest(hangs)
        assert b"BEFORE " in broken
        assert not broken.endswith(b"0\r\n\r\n")
    assert server.process.wait(20) == 0
    server.stop()


def test_many_slow_clients_hold_no_more_than_was_promised(spool: Path) -> None:
    """128 clients that trickle: all are served, and what they hold is counted."""
    with serving(spool, fresh=True, memory_budget="64MiB", admit_timeout="60s") as server:
        idle = server.memory_kib("VmRSS")
        clients = [connect(server) for _ in range(128)]
        for raw in clients:
            raw.sendall(f"{HEAD}Connection: close\r\nContent-Length: 300000\r\n\r\n".encode() + b"x" * 1000)
        for _ in range(10):
            for raw in clients:
                raw.sendall(b"x" * 29_900)
        answers = [rest(raw) for raw in clients]
        for raw in clients:
            raw.close()
        assert all(answer.endswith(b"X" * 300_000) for answer in answers)
        assert server.memory_kib("VmHWM") - idle < 64 * 1024
        server.assert_at_rest()


def test_the_server_is_itself_after_a_reset_of_every_kind(server: Server) -> None:
    for number in range(40):
        raw = connect(server)
        raw.sendall(f"{HEAD}Content-Length: 1000000\r\n\r\n".encode() + b"x" * (number * 20_000))
        if number % 2:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        raw.close()
    server.assert_at_rest()
