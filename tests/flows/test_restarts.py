"""A server that is killed, and the next one: what was finished is there, what can be done again is, the rest is told."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app.runs.database import Database, sqlite_url, writes
from tests.flows.stored import Stored, stored
from tests.object_store.fault_proxy import FaultProxy
from tests.object_store.faults import Always, Fault
from tests.object_store.postgres import fresh_database
from tests.object_store.server import ObjectStoreServer
from tests.server import eventually, serving

MIB = 1 << 20
BIG = random.Random(2).randbytes(40 * MIB)
HASTY = "tests.flows.hasty"


@pytest.fixture
def bucket(swift: ObjectStoreServer) -> Iterator[str]:
    bucket = swift.fresh_bucket()
    swift.client().put_object(Bucket=bucket, Key="in", Body=BIG)
    yield bucket
    assert swift.open_uploads(bucket) == []


def order(s3: Stored, **document: object) -> str:
    reply = httpx.post(f"{s3.server.url}/v1/runs", json={"source": f"{s3.url}/in"} | document)
    run_id: str = reply.headers["weir-run-id"]
    return run_id


def unfinished(s3: Stored, query: str) -> tuple[socket.socket, str]:
    """An upload that stands still in its middle; its run is at work."""
    raw = socket.create_connection((s3.server.host, s3.server.port))
    raw.sendall(f"POST /v1/transform?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BIG)}\r\n\r\n".encode())
    raw.sendall(BIG[: 20 * MIB])
    eventually(lambda: s3.server.runs()[0]["input_bytes"] >= 18 * MIB)
    return raw, s3.server.runs()[0]["id"]


def begun(s3: Stored, run_id: str) -> int:
    """Which attempt goes on, and is written down as one: before that nothing is read. 0 for none."""
    record = s3.server.run(run_id, wait_s=0)
    return int(record["attempt"]) if record["input_bytes"] else 0


def test_after_a_kill(tmp_path: Path, swift: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored(tmp_path / "spool", swift, monkeypatch, bucket=bucket, run_attempts=2) as s3:
        done = httpx.post(f"{s3.server.transform}?deliver=whole", content=BIG[:MIB], timeout=60).headers["weir-run-id"]
        fetched = httpx.post(f"{s3.server.transform}", content=BIG, headers={"Prefer": "respond-async"}, timeout=60)
        streaming, streamed = unfinished(s3, "upper")
        sinking, sunk = unfinished(s3, f"sink=s3://{bucket}/sunk")
        eventually(lambda: bool(swift.open_uploads(bucket)))
        time.sleep(1.5)  # a run that is younger than a second is not written down yet
        orders = [order(s3), order(s3, sink=f"s3://{bucket}/out")]
        time.sleep(0.1)
        s3.server.kill()
        streaming.close()
        sinking.close()
    with stored(tmp_path / "spool", swift, monkeypatch, bucket=bucket, run_attempts=2, module=HASTY) as s3:
        for run_id in (streamed, sunk):
            record = s3.ended(run_id)
            assert (record["state"], record["error"]["code"]) == ("failed", "interrupted")
        assert "sunk" not in s3.objects()
        for run_id, data in ((done, BIG[:MIB]), (fetched.headers["weir-run-id"], BIG), (orders[0], BIG)):
            assert s3.ended(run_id)["state"] == "succeeded"
            assert httpx.get(f"{s3.server.url}/v1/runs/{run_id}/result").content == data
        assert s3.ended(orders[1])["state"] == "succeeded"
        assert s3.get("out") == BIG
        s3.assert_nothing_open()
        kept = {path.name for path in (tmp_path / "spool" / "kept").iterdir()}
        assert kept == {f"{run_id}.result" for run_id in (done, fetched.headers["weir-run-id"], orders[0])}


def test_a_run_that_takes_its_server_down_is_not_begun_for_ever(
    tmp_path: Path, swift: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"bucket": bucket, "run_attempts": 2, "s3_part_bytes": "5MiB"}
    run_id = ""
    slow = Always({"UploadPart": Fault.DELAY_REPLY})
    for attempt in (1, 2):
        with (
            FaultProxy(swift.endpoint_url, slow, delay_s=5.0) as proxy,
            stored(tmp_path / "spool", swift, monkeypatch, endpoint_url=proxy.endpoint_url, **settings) as s3,
        ):
            run_id = run_id or order(s3, sink=f"s3://{bucket}/out")
            eventually(lambda: begun(s3, run_id) == attempt)  # noqa: B023
            s3.server.kill()
    with stored(tmp_path / "spool", swift, monkeypatch, module=HASTY, **settings) as s3:
        record = s3.ended(run_id)
        assert (record["state"], record["error"]["code"]) == ("failed", "interrupted")
        assert "2 times" in record["error"]["detail"]
        assert "out" not in s3.objects()
        s3.assert_nothing_open()


def test_a_server_that_is_asked_to_stop_leaves_its_orders_to_the_next(
    tmp_path: Path, swift: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stored(tmp_path / "spool", swift, monkeypatch, bucket=bucket) as s3:
        ids = [order(s3, sink=f"s3://{bucket}/{number}") for number in range(3)]
        s3.server.stop()
    with stored(tmp_path / "spool", swift, monkeypatch, bucket=bucket) as s3:
        for number, run_id in enumerate(ids):
            record = s3.ended(run_id)
            assert (record["state"], record["attempt"]) == ("succeeded", 1)
            assert s3.get(str(number)) == BIG
        s3.assert_nothing_open()


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings for each kind of database."""
    return {} if request.param == "sqlite" else {"state": fresh_database(request.getfixturevalue("postgres_url"))}


@pytest.mark.parametrize("kind", ["order", "sink", "sink without a record"])
def test_a_kill_between_an_object_and_its_record_is_no_failure(
    tmp_path: Path, state: dict[str, str], kind: str
) -> None:
    """The object is whole: its run has succeeded, and is not done again, which would fail on it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "in").write_bytes(BIG[:MIB])
    settings = {"stores": f"out={out}"} | state
    target, key = "store:out/made", {"Idempotency-Key": "one"}
    query = "sink=store:out/made&overwrite=false"
    with serving(tmp_path / "spool", module="tests.flows.dying", **settings) as server:
        with contextlib.suppress(httpx.TransportError):
            if kind == "order":
                document = {"source": "store:out/in", "sink": target, "overwrite": False}
                httpx.post(f"{server.url}/v1/runs", json=document, headers=key)
            else:
                headers = key if kind == "sink" else {}
                httpx.post(f"{server.transform}?{query}", content=BIG[:MIB], headers=headers)
        assert server.process.wait(20) == -9
    assert (out / "made").read_bytes() == BIG[:MIB]
    with serving(tmp_path / "spool", **settings) as server:
        eventually(lambda: all(run["state"] not in ("accepted", "running") for run in server.runs()))
        ended = [(run["state"], run["attempt"], run["output_bytes"], run["error"]) for run in server.runs()]
        assert ended == ([] if kind == "sink without a record" else [("succeeded", 1, MIB, None)])
        if kind == "sink":  # who asks again is told so
            again = httpx.post(f"{server.transform}?{query}", content=BIG[:MIB], headers=key)
            assert (again.status_code, again.json()["bytes"]) == (201, MIB)
        eventually(lambda: entries(tmp_path / "spool", state) == 0)
    assert (out / "made").read_bytes() == BIG[:MIB]


def entries(spool: Path, state: dict[str, str]) -> int:
    """How many entries the ledger has."""
    database = Database(state.get("state") or sqlite_url(spool / "state.db"))
    try:
        with database.reading() as connection:
            return int(connection.scalar(select(func.count()).select_from(writes)) or 0)
    finally:
        database.close()


def test_any_replica_answers_for_any_run(
    tmp_path: Path, swift: ObjectStoreServer, bucket: str, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    state, results = fresh_database(postgres_url), f"s3://{bucket}/results"
    settings = {"bucket": bucket, "state": state, "results": results, "module": HASTY}
    with (
        stored(tmp_path / "one", swift, monkeypatch, **settings) as one,
        stored(tmp_path / "two", swift, monkeypatch, **settings) as two,
    ):
        first = order(one)
        assert two.ended(first)["state"] == "succeeded"
        assert httpx.get(f"{two.server.url}/v1/runs/{first}/result").content == BIG
        assert first in {run["id"] for run in two.server.runs()}
        key = {"Idempotency-Key": "one"}
        same = [
            httpx.post(f"{s3.server.url}/v1/runs", json={"source": f"{s3.url}/in"}, headers=key).headers
            for s3 in (one, two, one)
        ]
        assert len({headers["weir-run-id"] for headers in same}) == 1
        two.ended(same[0]["weir-run-id"])
        lost = order(one, sink=f"s3://{bucket}/lost")
        one.server.kill()
        # The other one finds out by its silence.
        eventually(lambda: two.server.run(lost, wait_s=0)["state"] == "succeeded", within_s=60)
        assert two.get("lost") == BIG
        for run_id in (first, lost, same[0]["weir-run-id"]):
            assert httpx.delete(f"{two.server.url}/v1/runs/{run_id}").status_code == 204
        assert two.objects() == {"in", "lost"}
        two.assert_nothing_open()
