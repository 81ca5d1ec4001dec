"""Whole results that are kept: served again, in ranges, until they are deleted or too old."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import Server, eventually, serving

TEXT = b"".join(b"%08x line\n" % n for n in range(400_000))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("results") / "spool", result_ttl="600s") as server:
        yield server
        for run in server.runs():
            httpx.delete(f"{server.url}/v1/runs/{run['id']}")
        server.assert_at_rest()


@pytest.fixture(scope="module")
def kept(server: Server) -> str:
    reply = httpx.post(f"{server.transform}?upper&deliver=whole", content=TEXT, timeout=60)
    assert reply.content == TEXT.upper()
    assert reply.headers["etag"] == f'"{hashlib.sha256(TEXT.upper()).hexdigest()}"'
    assert reply.headers["content-location"] == f"/v1/runs/{reply.headers['weir-run-id']}/result"
    return f"{server.url}{reply.headers['content-location']}"


def test_it_is_served_again_with_its_head(kept: str) -> None:
    reply = httpx.get(kept)
    digest = base64.b64encode(hashlib.sha256(TEXT.upper()).digest()).decode()
    assert (reply.status_code, reply.content) == (200, TEXT.upper())
    assert reply.headers["repr-digest"] == f"sha-256=:{digest}:"
    head = httpx.head(kept)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type", "repr-digest", "last-modified", "accept-ranges"):
        assert head.headers[name] == reply.headers[name]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-0", 0, 1), ("100-199", 100, 200), ("3000000-", 3_000_000, None), ("-7", -7, None), ("5-99999999", 5, None)],
)
def test_a_range(kept: str, asked: str, start: int, stop: int | None) -> None:
    reply = httpx.get(kept, headers={"Range": f"bytes={asked}"})
    assert (reply.status_code, reply.content) == (206, TEXT.upper()[start:stop])


def test_several_ranges_and_none_that_fits(kept: str) -> None:
    reply = httpx.get(kept, headers={"Range": "bytes=0-4,1000000-1000009"})
    assert reply.status_code == 206
    boundary = reply.headers["content-type"].partition("boundary=")[2].encode()
    parts = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in reply.content.split(b"--" + boundary)[1:-1]]
    assert parts == [TEXT.upper()[:5], TEXT.upper()[1_000_000:1_000_010]]
    beyond = httpx.get(kept, headers={"Range": "bytes=99999999-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(TEXT)}"


def test_preconditions(kept: str) -> None:
    etag = httpx.head(kept).headers["etag"]
    assert httpx.get(kept, headers={"If-None-Match": etag}).status_code == 304
    assert httpx.get(kept, headers={"If-None-Match": '"other"'}).status_code == 200
    assert httpx.get(kept, headers={"If-Match": '"other"'}).json()["code"] == "precondition_failed"
    assert httpx.get(kept, headers={"Range": "bytes=0-9", "If-Range": etag}).status_code == 206
    assert httpx.get(kept, headers={"Range": "bytes=0-9", "If-Range": '"other"'}).status_code == 200


def test_curl_goes_on_where_it_was_broken_off(kept: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(TEXT.upper()[:1_234_567])
    subprocess.run(["curl", "-sSf", "-C", "-", "-o", out, kept], check=True)
    assert out.read_bytes() == TEXT.upper()


def test_clients_that_leave_midway_cost_nothing(server: Server, kept: str) -> None:
    path = kept.removeprefix(server.url)
    files = len(os.listdir(f"/proc/{server.pid}/fd"))
    for _ in range(20):
        with socket.create_connection((server.host, server.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    eventually(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= files)
    assert httpx.get(kept).content == TEXT.upper()


def test_a_delete_takes_nothing_from_under_a_client(server: Server) -> None:
    reply = httpx.post(f"{server.transform}?deliver=whole", content=TEXT * 4, timeout=60)
    url = f"{server.url}/v1/runs/{reply.headers['weir-run-id']}"
    with httpx.stream("GET", f"{url}/result") as result:
        pieces = result.iter_raw(1000)
        begun = next(pieces)
        assert httpx.delete(url).status_code == 204
        # Its file would be written over by this one, if it were free already.
        other = httpx.post(f"{server.transform}?upper&deliver=whole", content=TEXT * 4, timeout=60)
        assert begun + b"".join(pieces) == TEXT * 4
    assert other.content == TEXT.upper() * 4
    assert httpx.get(f"{url}/result").status_code == 404


def test_what_has_no_result_says_why(server: Server) -> None:
    streamed = httpx.post(f"{server.transform}?upper", content=b"a")
    failed = httpx.post(f"{server.transform}?from=csv&to=parquet&deliver=whole", content=b"")
    running = subprocess.Popen(
        ["curl", "-sS", "-T", "-", "-o", "/dev/null", f"{server.transform}?upper&deliver=whole"], stdin=subprocess.PIPE
    )
    try:
        eventually(lambda: server.runs()[0]["state"] == "running")
        found = [
            httpx.get(f"{server.url}/v1/runs/{run_id}/result")
            for run_id in (streamed.headers["weir-run-id"], failed.headers["weir-run-id"], server.runs()[0]["id"], "no")
        ]
    finally:
        running.communicate(b"x")
    assert [reply.status_code for reply in found] == [404, 409, 409, 404]
    assert [reply.json()["code"] for reply in found] == ["not_found", "conflict", "conflict", "not_found"]


def test_a_result_is_gone_after_its_time(tmp_path: Path) -> None:
    with serving(tmp_path / "spool", result_ttl="600ms") as server:
        reply = httpx.post(f"{server.transform}?deliver=whole", content=b"abc")
        url = f"{server.url}{reply.headers['content-location']}"
        assert httpx.get(url).content == b"abc"
        assert server.metrics()["weir_kept_bytes"] == 3
        # It is dropped by itself: nobody asks for it.
        eventually(lambda: server.metrics()["weir_kept_files"] == 0)
        assert server.metrics()["weir_spool_bytes"] == 0
        gone = httpx.get(url)
        assert (gone.status_code, gone.json()["code"]) in ((410, "gone"), (404, "not_found"))


def test_a_compressed_result_says_so(server: Server) -> None:
    reply = httpx.post(
        f"{server.transform}?from=csv&to=ndjson&deliver=whole",
        content=b"a\n1\n",
        headers={"Accept-Encoding": "gzip"},
    )
    again = httpx.get(f"{server.url}{reply.headers['content-location']}")
    assert again.headers["content-encoding"] == "gzip"
    assert again.json() == {"a": 1} == reply.json()
