"""After the first byte a failure never looks like success; limits; and kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests

from tests.server import Server, eventually, serving


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    spool = tmp_path_factory.mktemp("faulty") / "spool"
    with serving(spool, module="tests.flows.faulty", max_body="40MiB", idle_timeout="2s") as server:
        yield server
        server.assert_at_rest()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(b"some text\n" * (2 << 20))
    return path


def verdict(server: Server) -> tuple[str, str]:
    eventually(lambda: server.runs()[0]["state"] not in ("accepted", "running"))
    record = server.runs()[0]
    return record["state"], record["error"]["code"]


def test_a_stage_that_raises_after_the_first_page(faulty: Server, text: Path) -> None:
    url = f"{faulty.transform}?boom=3"
    curl = subprocess.run(["curl", "-sS", "-T", text, "-o", "/dev/null", url], capture_output=True, check=False)
    # "partial file" or, where more of the upload was on its way, a reset.
    assert curl.returncode in (18, 55, 56), curl.stderr
    assert verdict(faulty) == ("failed", "stage_failed")
    with text.open("rb") as body, pytest.raises(requests.exceptions.RequestException):
        _ = requests.post(url, data=body, timeout=60).content
    assert verdict(faulty) == ("failed", "stage_failed")
    with text.open("rb") as body, pytest.raises(httpx.TransportError):
        httpx.post(url, content=body, timeout=60)
    faulty.assert_at_rest()


def test_a_stage_that_raises_before_the_first_page_has_a_status(faulty: Server, text: Path) -> None:
    reply = httpx.post(f"{faulty.transform}?boom=0", content=text.read_bytes(), timeout=60)
    assert (reply.status_code, reply.json()["code"]) == (500, "stage_failed")
    assert "boom" in reply.json()["detail"]


def test_whole_results_fail_as_a_whole(faulty: Server, text: Path) -> None:
    for version, url in (("1.1", "?boom=3&deliver=whole"), ("1.0", "?boom=3")):
        command = ["curl", "-sS", f"--http{version}", "-T", text, "-w", "%{http_code}", "-o", "/dev/null"]
        curl = subprocess.run([*command, faulty.transform + url], capture_output=True, check=True)
        assert curl.stdout == b"500"
    faulty.assert_at_rest()


def test_a_body_over_the_limit_is_refused_while_it_uploads(faulty: Server) -> None:
    announced = httpx.post(faulty.transform, headers={"content-length": str(50 << 20)}, content=b"x" * (50 << 20))
    assert (announced.status_code, announced.json()["code"]) == (413, "body_too_large")
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(400):
            sent += 1 << 20
            yield b"x" * (1 << 20)

    reply = httpx.post(f"{faulty.transform}?deliver=whole", content=body(), timeout=60)
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")
    faulty.assert_at_rest()


def test_a_client_that_sends_nothing_is_given_up(faulty: Server) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        time.sleep(3)
        yield b"y"

    reply = httpx.post(f"{faulty.transform}?deliver=whole", content=body(), timeout=60)
    assert (reply.status_code, reply.json()["code"]) == (408, "too_slow")


def test_what_can_never_fit_and_what_does_not_fit_now(spool: Path) -> None:
    with serving(spool, memory_budget="14MiB", page_bytes="1MiB", worker_threads=1, admit_timeout="300ms") as server:
        reply = httpx.post(f"{server.transform}?from=csv&where=a>1&to=parquet", content=b"a\n1\n")
        assert (reply.status_code, reply.json()["code"]) == (413, "never_fits")
        assert "more than MEMORY_BUDGET" in reply.json()["detail"]
        waiting = subprocess.Popen(
            ["curl", "-sS", "-T", "-", "-o", "/dev/null", f"{server.transform}?upper"], stdin=subprocess.PIPE
        )
        try:
            eventually(lambda: server.metrics()["weir_memory_reserved_bytes"] > 0)
            replies = [httpx.post(f"{server.transform}?upper", content=b"a") for _ in range(2)]
            full = [reply for reply in replies if reply.status_code == 503]
            assert full, [reply.status_code for reply in replies]
            assert full[0].json()["code"] == "budget_full"
            assert int(full[0].headers["retry-after"]) >= 1
        finally:
            assert waiting.stdin is not None
            waiting.stdin.close()
            assert waiting.wait(10) == 0
        server.assert_at_rest()


def test_a_table_fits_into_128_mib(spool: Path) -> None:
    """What a pod with 512 MiB can give; pages, buffers of sockets and kept pages are all counted in it."""
    with serving(spool, memory_budget="128MiB", worker_threads=2) as server:
        reply = httpx.post(f"{server.transform}?from=csv&to=parquet", content=b"a\n1\n", timeout=60)
        assert (reply.status_code, reply.content[:4]) == (200, b"PAR1")


def test_a_full_spool_is_told(spool: Path, text: Path) -> None:
    with serving(spool, spool_limit="1MiB") as server:
        reply = httpx.post(f"{server.transform}?deliver=whole", content=text.read_bytes(), timeout=60)
        assert (reply.status_code, reply.json()["code"]) == (507, "spool_full")
        server.assert_at_rest()


QUERIES = (
    "upper",
    "upper&deliver=whole",
    "from=lines&grep=e",
    "from=csv&where=length(a)>0&to=parquet",
    "from=csv&to=ndjson",
)


def send(server: Server, number: int, text: Path) -> subprocess.Popen[bytes]:
    url = f"{server.transform}?{QUERIES[number % len(QUERIES)]}"
    rate = ["--limit-rate", "30M"] if number % 2 else []
    return subprocess.Popen(
        ["curl", "-sS", "-T", text, "-o", "/dev/null", *rate, url], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


KILLS = [5, pytest.param(20, marks=pytest.mark.slow)]


@pytest.mark.parametrize("kills", KILLS)
def test_kills_of_the_client(spool: Path, tmp_path: Path, kills: int) -> None:
    text = tmp_path / "rows"
    text.write_bytes(b"a\n" + b"some words here\n" * (2 << 20))
    chance = random.Random(1)
    with serving(spool) as server:
        for number in range(kills):
            client = send(server, number, text)
            time.sleep(chance.uniform(0.0, 0.4))
            client.send_signal(signal.SIGKILL)
            client.wait(10)
        server.assert_at_rest()
        assert all(run["state"] in ("succeeded", "failed", "cancelled") for run in server.runs())
        tasks = len(os.listdir(f"/proc/{server.pid}/task"))
        assert tasks < 40, f"{tasks} threads are left"


@pytest.mark.parametrize("kills", KILLS)
def test_kills_of_the_server(spool: Path, tmp_path: Path, kills: int) -> None:
    text = tmp_path / "rows"
    text.write_bytes(b"a\n" + b"some words here\n" * (1 << 20))
    chance = random.Random(2)
    for number in range(kills):
        server = Server(spool)
        try:
            clients = [send(server, number + n, text) for n in range(2)]
            time.sleep(chance.uniform(0.0, 0.3))
        finally:
            server.kill()
            server.stop()
        assert [client.wait(10) for client in clients if client.wait(10) == 0] in ([], [0], [0, 0])
    with serving(spool) as server:
        assert [path for path in spool.iterdir() if path.name.startswith("weir-")] == [
            path.parent for path in spool.rglob("owner.lock")
        ]
        assert len(list(spool.rglob("owner.lock"))) == 1
        server.assert_at_rest()


def test_sigterm_lets_a_running_request_finish(spool: Path) -> None:
    server = Server(spool, fresh=True)
    client = subprocess.Popen(
        ["curl", "-sS", "-T", "-", f"{server.transform}?upper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdin is not None
    client.stdin.write(b"before ")
    client.stdin.flush()
    eventually(lambda: bool(server.runs()) and server.runs()[0]["input_bytes"] > 0)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    output, _ = client.communicate(b"and after", timeout=20)
    assert (output, client.returncode) == (b"BEFORE AND AFTER", 0)
    assert server.process.wait(20) == 0
    server.stop()
    assert sorted(path.name for path in spool.rglob("*")) == ["kept", "state.db"]


def test_settings_that_cannot_be_are_named() -> None:
    environment = os.environ | {"WEIR_MEMORY_BUDGET": "plenty"}
    command = [sys.executable, "-m", "app.cli", "serve"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert started.returncode == 2
    assert "WEIR_MEMORY_BUDGET" in started.stderr
    assert "256MiB" in started.stderr
