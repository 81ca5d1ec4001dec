"""Runs that go on without their client: taken, watched, fetched, cancelled, and asked for twice."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.stored import stored
from tests.object_store.server import ObjectStoreServer
from tests.server import Server, eventually, serving

ASYNC = {"Prefer": "respond-async"}
TEXT = b"".join(b"%08d line\n" % number for number in range(200_000))


def take(server: Server, query: str = "upper", content: bytes = TEXT, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.transform}?{query}", content=content, headers=ASYNC | headers, timeout=60)


def ended(server: Server, run_id: str) -> dict[str, Any]:
    while (record := server.run(run_id))["state"] in ("accepted", "running"):
        pass
    return record


def test_the_body_is_taken_and_the_result_fetched(server: Server) -> None:
    reply = take(server)
    run_id = reply.headers["weir-run-id"]
    assert (reply.status_code, reply.headers["location"]) == (202, f"/v1/runs/{run_id}")
    assert reply.headers["preference-applied"] == "respond-async"
    assert reply.json()["state"] in ("accepted", "running")
    record = ended(server, run_id)
    assert (record["state"], record["mode"], record["input_bytes"]) == ("succeeded", "async", len(TEXT))
    url = f"{server.url}/v1/runs/{run_id}/result"
    result = httpx.get(url)
    assert result.content == TEXT.upper()
    assert result.headers["etag"] == f'"{record["digest"]}"'
    part = httpx.get(url, headers={"Range": "bytes=100-199", "If-Range": result.headers["etag"]})
    assert (part.status_code, part.content) == (206, TEXT.upper()[100:200])
    head = httpx.head(url)
    assert (head.headers["content-length"], head.content) == (str(len(TEXT)), b"")
    assert head.headers["repr-digest"] == result.headers["repr-digest"]
    assert httpx.delete(f"{server.url}/v1/runs/{run_id}").status_code == 204
    assert httpx.get(url).status_code == 404


def test_formats_codings_and_forms_are_kept_with_the_order(server: Server) -> None:

    packed = take(
        server,
        "limit=1",
        gzip.compress(b"a,b\n1,2\n3,4\n"),
        **{"Content-Encoding": "gzip", "Content-Type": "text/csv", "Accept": "application/x-ndjson"},
    )
    assert server_result(server, packed) == b'{"a":1,"b":2}\n'
    named = httpx.post(f"{server.url}/v1/transform/x.tsv?to=csv&limit=1", content=b"a\tb\n1\t2\n3\t4\n", headers=ASYNC)
    assert server_result(server, named) == b"a,b\n1,2\n"
    form = httpx.post(f"{server.transform}?to=ndjson", files={"file": ("x.csv", b"a\n1\n")}, headers=ASYNC)
    assert server_result(server, form) == b'{"a":1}\n'
    table = take(server, "select=a&to=parquet", b"a,b\n1,2\n", **{"Content-Type": "text/csv"})
    ended(server, table.headers["weir-run-id"])
    parquet = server.get(f"/v1/runs/{table.headers['weir-run-id']}/result")
    again = take(server, "from=parquet&to=json", parquet)
    assert json.loads(server_result(server, again)) == [{"a": 1}]


def server_result(server: Server, reply: httpx.Response) -> bytes:
    assert reply.status_code == 202, reply.text
    record = ended(server, reply.headers["weir-run-id"])
    assert record["state"] == "succeeded", record["error"]
    return httpx.get(f"{server.url}/v1/runs/{record['id']}/result").content


def test_what_is_wrong_is_said_before_the_body_is_taken(server: Server) -> None:
    for query, status, code in (
        ("nosuch=1", 400, "unknown_parameter"),
        ("from=csv&where=a>", 400, "bad_sql"),
        ("sink=s3://x/y", 403, "forbidden"),
        ("deliver=whole&sink=store:x/y", 400, "bad_pipeline"),
    ):
        with socket.create_connection((server.host, server.port), timeout=10) as raw:
            head = f"POST /v1/transform?{query} HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\n"
            raw.sendall(head.encode() + b"Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
            assert raw.recv(100).split()[1] == str(status).encode(), (query, code)
    bad = take(server, "from=csv&types=a:bigint&to=ndjson", b"a\n1\nx\n")
    record = ended(server, bad.headers["weir-run-id"])
    assert (record["state"], record["error"]["code"], record["error"]["line"]) == ("failed", "bad_value", 3)
    result = httpx.get(f"{server.url}/v1/runs/{record['id']}/result")
    assert (result.status_code, result.json()["code"]) == (409, "conflict")


def test_a_client_that_leaves_its_body_unfinished(server: Server) -> None:
    with socket.create_connection((server.host, server.port)) as raw:
        raw.sendall(
            b"POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\nContent-Length: 9000000\r\n\r\n"
        )
        raw.sendall(TEXT)
        eventually(lambda: server.runs()[0]["mode"] == "async" and server.runs()[0]["state"] == "accepted")
    eventually(lambda: server.runs()[0]["state"] == "cancelled")
    assert server.runs()[0]["error"]["code"] == "client_gone"


def test_who_still_uploads_to_a_run_that_is_cancelled_is_told(server: Server) -> None:
    before = {run["id"] for run in server.runs()}
    command = [
        "curl",
        "-sS",
        "-T",
        "-",
        "-H",
        "Prefer: respond-async",
        "-w",
        "%{http_code}",
        f"{server.transform}?upper",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as uploading:
        assert uploading.stdin is not None
        assert uploading.stdout is not None
        uploading.stdin.write("some\n")
        uploading.stdin.flush()
        eventually(lambda: [run["state"] for run in server.runs() if run["id"] not in before] == ["accepted"])
        run_id = server.runs()[0]["id"]
        assert httpx.delete(f"{server.url}/v1/runs/{run_id}").status_code == 204
        uploading.stdin.write("more\n")
        uploading.stdin.close()
        answer = uploading.stdout.read()
    assert answer.endswith("503")
    assert json.loads(answer[:-3])["code"] == "cancelled"
    server.assert_at_rest()


def test_bad_orders(server: Server) -> None:
    for document, status, code in (
        ("nonsense", 400, "bad_argument"),
        ("[]", 400, "bad_argument"),
        ("{}", 400, "bad_argument"),
        ('{"source": 1}', 400, "bad_argument"),
        ('{"source": "upload:1"}', 400, "bad_argument"),
        ('{"source": "s3://x/y", "sink": "store:x/\\ud800"}', 400, "bad_argument"),
        ('{"source": "s3://x/y"}', 403, "forbidden"),
        ('{"source": "store:x/y"}', 400, "bad_argument"),
        ('{"source": "s3://x/y", "nosuch": 1}', 400, "unknown_parameter"),
        ('{"source": "s3://x/y", "steps": [{"nosuch": 1}]}', 400, "unknown_step"),
        ('{"source": "s3://x/y", "deliver": "whole"}', 400, "bad_argument"),
    ):
        reply = httpx.post(f"{server.url}/v1/runs", content=document)
        assert (reply.status_code, reply.json()["code"]) == (status, code), document


def test_events_until_the_end(server: Server) -> None:
    slow = subprocess.Popen(
        ["curl", "-sS", "-T", "-", "-o", "/dev/null", f"{server.transform}?upper"], stdin=subprocess.PIPE
    )
    assert slow.stdin is not None
    slow.stdin.write(b"x" * 100)
    slow.stdin.flush()
    eventually(lambda: [run["input_bytes"] for run in server.runs()[:1]] == [100])
    run_id = server.runs()[0]["id"]
    watching = subprocess.Popen(
        ["curl", "-sSN", f"{server.url}/v1/runs/{run_id}/events"], stdout=subprocess.PIPE, text=True
    )
    events: list[tuple[str, int, dict[str, Any]]] = []
    with watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            kind, _, value = line.strip().partition(": ")
            if kind == "event":
                name = value
            elif kind == "id":
                number = int(value)
            elif kind == "data":
                events.append((name, number, json.loads(value)))
                if len(events) == 2:
                    slow.stdin.close()
    assert watching.returncode == 0
    assert slow.wait(10) == 0
    assert [name for name, _, _ in events][-1] == "end"
    assert {name for name, _, _ in events[:-1]} == {"progress"}
    assert events[0][2]["input_bytes"] == 100
    assert events[-1][2]["state"] == "succeeded"
    numbers = [number for _, number, _ in events]
    assert numbers == sorted(numbers)
    # Who comes back is told what he does not know: of a run that is over, its end.
    late = httpx.get(f"{server.url}/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(numbers[0])}).text
    assert late.startswith("event: end\n")
    assert late.count("event:") == 1
    assert httpx.get(f"{server.url}/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(numbers[-1])}).text == ""
    assert httpx.get(f"{server.url}/v1/runs/0000000000000000/events").status_code == 404


def test_delete_at_any_time(tmp_path: Path) -> None:
    # There is room for one table at a time, with the smallest of pages, and an upload has it.
    with serving(tmp_path / "spool", memory_budget="30MiB", page_bytes="64KiB", worker_threads=1) as server:
        holding = subprocess.Popen(
            ["curl", "-sS", "-T", "-", "-o", "/dev/null", f"{server.transform}?from=ndjson&to=parquet"],
            stdin=subprocess.PIPE,
        )
        eventually(lambda: server.metrics()["weir_memory_reserved_bytes"] > 0)
        waiting = [take(server, "from=ndjson&to=parquet", b'{"a":1}\n').headers["weir-run-id"] for _ in range(3)]
        time.sleep(0.5)
        assert {server.run(run_id, wait_s=0)["state"] for run_id in waiting} == {"accepted"}
        for run_id in (*waiting, server.runs()[-1]["id"]):
            assert httpx.delete(f"{server.url}/v1/runs/{run_id}").status_code == 204
        eventually(lambda: server.runs() == [])
        assert holding.stdin is not None
        holding.stdin.close()
        holding.wait(10)
        server.assert_at_rest()
        assert not list((tmp_path / "spool" / "kept").iterdir())


def test_a_key_makes_two_requests_one_run(server: Server) -> None:
    for query, headers in (("upper", ASYNC), ("upper&deliver=whole", {})):
        key = {"Idempotency-Key": f"key {query}"}

        def post(_: int, query: str = query, headers: dict[str, str] = headers | key) -> httpx.Response:
            return httpx.post(f"{server.transform}?{query}", content=TEXT, headers=headers, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(post, range(12)))
        good = [reply for reply in replies if reply.status_code != 409]
        assert len({reply.headers["weir-run-id"] for reply in good}) == 1
        ended(server, good[0].headers["weir-run-id"])
        again = post(0)
        assert again.headers["weir-run-id"] == good[0].headers["weir-run-id"]
        assert again.status_code == good[0].status_code
        if not headers:
            assert again.content == TEXT.upper()
        other = httpx.post(f"{server.transform}?{query.replace('upper', 'lower')}", content=TEXT, headers=headers | key)
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    streamed = httpx.post(f"{server.transform}?upper", content=b"x", headers={"Idempotency-Key": "k"})
    assert (streamed.status_code, streamed.json()["code"]) == (400, "bad_argument")


def test_what_failed_may_be_tried_again_with_its_key(server: Server) -> None:
    key = {"Idempotency-Key": "again"} | ASYNC
    url = f"{server.transform}?from=csv&types=a:bigint&to=ndjson"
    first = httpx.post(url, content=b"a\nx\n", headers=key)
    assert ended(server, first.headers["weir-run-id"])["state"] == "failed"
    second = httpx.post(url, content=b"a\n1\n", headers=key)
    assert server_result(server, second) == b'{"a":1}\n'


def test_results_are_gone_after_their_time(tmp_path: Path) -> None:
    with serving(tmp_path / "spool", result_ttl="1s") as server:
        run_id = take(server).headers["weir-run-id"]
        ended(server, run_id)
        url = f"{server.url}/v1/runs/{run_id}/result"
        eventually(lambda: httpx.get(url).status_code == 410)
        eventually(lambda: httpx.get(url).status_code == 404)
        assert not list((tmp_path / "spool" / "kept").iterdir())


def test_every_worker_answers_for_every_run(tmp_path: Path) -> None:
    with serving(tmp_path / "spool", workers=2) as server:
        ids: list[str] = []
        while len({run_id[:2] for run_id in ids}) < 2:  # which worker has a connection is the kernel's to say
            assert len(ids) < 64
            ids.append(take(server, "upper", TEXT[: 10 * (len(ids) + 1)]).headers["weir-run-id"])
        for number, run_id in enumerate(ids, 1):
            for _ in range(4):  # another connection, perhaps another worker
                assert ended(server, run_id)["state"] == "succeeded"
                assert httpx.get(f"{server.url}/v1/runs/{run_id}/result").content == TEXT[: 10 * number].upper()
        assert {run["id"] for run in server.runs()} >= set(ids)


def test_results_may_be_kept_in_a_store(
    tmp_path: Path, swift: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = swift.fresh_bucket()
    with stored(
        tmp_path / "spool", swift, monkeypatch, bucket=bucket, results=f"s3://{bucket}/results", s3_allow=""
    ) as s3:
        run_id = take(s3.server).headers["weir-run-id"]
        assert s3.ended(run_id)["state"] == "succeeded"
        assert s3.get(f"results/{run_id}.result") == TEXT.upper()
        url = f"{s3.server.url}/v1/runs/{run_id}/result"
        assert httpx.get(url).content == TEXT.upper()
        part = httpx.get(url, headers={"Range": "bytes=1000-1999,5000-5009"})
        assert part.status_code == 206
        assert TEXT.upper()[5000:5010] in part.content
        whole = httpx.post(f"{s3.server.transform}?lower&deliver=whole", content=TEXT, timeout=60)
        assert whole.content == TEXT.lower()
        bad = httpx.post(
            f"{s3.server.transform}?from=csv&types=a:bigint&to=ndjson&on_error=quarantine", content=b"a\n1\nx\n"
        )
        assert httpx.get(f"{s3.server.url}/v1/runs/{bad.headers['weir-run-id']}/rejects").json()["line"] == 3
        for reply in (run_id, whole.headers["weir-run-id"], bad.headers["weir-run-id"]):
            assert httpx.delete(f"{s3.server.url}/v1/runs/{reply}").status_code == 204
        assert s3.objects() == set()
        s3.assert_nothing_open()
        assert not list((tmp_path / "spool" / "kept").iterdir())
