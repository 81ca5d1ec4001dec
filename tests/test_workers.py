"""Several worker processes, seen as one server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import Server, eventually, serving

BODY = b"some text\n" * 100_000


def assert_left_clean(spool: Path) -> None:
    assert sorted(path.name for path in spool.iterdir()) == ["kept", "state.db"]


def worker_pids(server: Server) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.pid)], capture_output=True, check=False).stdout
    return [int(pid) for pid in listed.split()]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    spool = tmp_path_factory.mktemp("workers") / "spool"
    with serving(spool, fresh=True, workers=2, worker_threads=2) as server:
        yield server
    assert_left_clean(spool)


def post(server: Server, query: str, times: int) -> list[httpx.Response]:
    """Each by a connection of its own: the kernel spreads connections, not requests."""
    replies = [httpx.post(f"{server.transform}?{query}", content=BODY, timeout=60) for _ in range(times)]
    assert [reply.status_code for reply in replies] == [200] * times
    return replies


def test_any_worker_answers_for_any_run(pair: Server) -> None:
    replies = post(pair, "upper&deliver=whole", 24)
    ids = [reply.headers["weir-run-id"] for reply in replies]
    assert {run_id[:2] for run_id in ids} == {"00", "01"}, "the kernel gave one worker all of them"
    assert {run["id"] for run in pair.runs()} >= set(ids)
    for run_id in ids:
        url = f"{pair.url}/v1/runs/{run_id}"
        for _ in range(2):
            record = httpx.get(url, params={"wait": 1}).json()
            assert (record["id"], record["state"]) == (run_id, "succeeded")
        whole = httpx.get(f"{url}/result")
        assert (whole.content, whole.headers["weir-run-id"]) == (BODY.upper(), run_id)
        part = httpx.get(f"{url}/result", headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, BODY.upper()[5:10])
        assert httpx.head(f"{url}/result").headers["content-length"] == str(len(BODY))
        assert httpx.get(f"{url}/result", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
        assert httpx.delete(url).status_code == 204
        assert httpx.get(url).status_code == 404
    assert not {run["id"] for run in pair.runs()} & set(ids)


def test_rejects_are_found_too(pair: Server) -> None:
    replies = [
        httpx.post(f"{pair.transform}?from=csv&to=ndjson&types=a:bigint&on_error=quarantine", content=b"a\n1\nx\n")
        for _ in range(8)
    ]
    for reply in replies:
        url = f"{pair.url}/v1/runs/{reply.headers['weir-run-id']}/rejects"
        assert [httpx.get(url).json()["line"] for _ in range(3)] == [3, 3, 3]


def test_runs_and_metrics_add_up(pair: Server) -> None:
    before = pair.metrics()
    post(pair, "upper", 12)
    after = pair.metrics()
    name = 'weir_runs_total{mode="stream",outcome="succeeded"}'
    assert after[name] - before.get(name, 0) == 12
    total = 'weir_input_bytes_total{format="bytes"}'
    assert after[total] - before.get(total, 0) == 12 * len(BODY)
    # Both halves of the budget, less the pages that are kept.
    assert 200 << 20 < after["weir_memory_budget_bytes"] <= 256 << 20
    assert after["process_resident_memory_bytes"] > 200 << 20
    assert len(httpx.get(f"{pair.url}/v1/runs?limit=5").json()["runs"]) == 5
    assert httpx.get(f"{pair.url}/v1/runs?limit=0").status_code == 400
    created = [run["created_at"] for run in pair.runs()]
    assert created == sorted(created, reverse=True)


def test_a_worker_that_is_killed_is_replaced(pair: Server) -> None:
    ids = [reply.headers["weir-run-id"] for reply in post(pair, "upper&deliver=whole", 16)]
    first, second = worker_pids(pair)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(worker_pids(pair)) == 2 and first not in worker_pids(pair))
    assert second in worker_pids(pair)
    eventually(lambda: pair.get("/readyz") == b"ready\n")
    # What it had finished is still there.
    assert {httpx.get(f"{pair.url}/v1/runs/{run_id}/result").content for run_id in ids} == {BODY.upper()}
    post(pair, "upper", 8)


def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    server = Server(tmp_path / "spool", workers=2)
    pids = worker_pids(server)
    assert len(pids) == 2
    server.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=15)
    server.stop()
    # The next start clears what was left.
    with serving(tmp_path / "spool") as again:
        assert again.get("/readyz") == b"ready\n"
    assert_left_clean(tmp_path / "spool")


def test_sigterm_lets_every_worker_finish(tmp_path: Path) -> None:
    server = Server(tmp_path / "spool", workers=2)
    command = ["curl", "-sS", "-T", "-", f"{server.transform}?upper"]
    clients = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(6)]
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(b"before ")
        client.stdin.flush()
    eventually(lambda: sum(run["input_bytes"] for run in server.runs()) == 6 * 7)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    for client in clients:
        assert client.communicate(b"and after", timeout=20)[0] == b"BEFORE AND AFTER"
        assert client.returncode == 0
    assert server.process.wait(20) == 0
    server.stop()
