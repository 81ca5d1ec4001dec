"""Runs over a store that fails at random: each is whole or failed and absent, and no upload stays open."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.flows.stored import Stored, stored
from tests.object_store.fault_proxy import FaultProxy
from tests.object_store.faults import Dice, no_faults
from tests.object_store.server import ObjectStoreServer

DATA = random.Random(3).randbytes(14_000_000)
SIZES = (100, 6_000_000, 14_000_000)


def one_run(s3: Stored, number: int) -> tuple[str, str, int]:
    """Its outcome, the key it was to write, and how many bytes."""
    key, size = f"out/{number}", SIZES[number % 3]
    if number % 4:
        reply = httpx.post(f"{s3.server.transform}?sink={s3.url}/{key}", content=DATA[:size], timeout=180)
        return ("succeeded" if reply.status_code == 201 else reply.json()["code"]), key, size
    document = {"source": f"{s3.url}/in/{number % 3}", "sink": f"{s3.url}/{key}"}
    reply = httpx.post(f"{s3.server.url}/v1/runs", json=document, timeout=180)
    if reply.status_code != 202:
        return reply.json()["code"], key, size
    record = s3.ended(reply.headers["weir-run-id"], within_s=180)
    return ("succeeded" if record["state"] == "succeeded" else record["error"]["code"]), key, size


def run_many(
    count: int, rate: float, spool: Path, store: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[str], Counter[str]]:
    """Outcomes, and what the proxy did."""
    bucket = store.fresh_bucket()
    for number, size in enumerate(SIZES):
        store.client().put_object(Bucket=bucket, Key=f"in/{number}", Body=DATA[:size])
    with (
        FaultProxy(store.endpoint_url, Dice(seed=count, rate=rate, attempts=99), delay_s=0.3) as proxy,
        stored(
            spool,
            store,
            monkeypatch,
            bucket=bucket,
            endpoint_url=proxy.endpoint_url,
            s3_part_bytes="5MiB",
            memory_budget="512MiB",
        ) as s3,
    ):
        with ThreadPoolExecutor(6) as pool:
            done = list(pool.map(lambda number: one_run(s3, number), range(count)))
        proxy.plan = no_faults
        s3.assert_nothing_open()
        there = s3.objects()
        for outcome, key, size in done:
            if outcome == "succeeded":
                assert hashlib.sha256(s3.get(key)).digest() == hashlib.sha256(DATA[:size]).digest(), key
            else:
                assert key not in there, outcome
        return Counter(outcome for outcome, _, _ in done), proxy.counts


def test_what_passes_is_not_noticed(tmp_path: Path, swift: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, counts = run_many(12, 0.2, tmp_path / "spool", swift, monkeypatch)
    assert outcomes == {"succeeded": 12}
    assert sum(counts.values()) > 2 * counts["pass"] * 0.9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_or_failed_and_absent(tmp_path: Path, swift: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, _ = run_many(200, 0.6, tmp_path / "spool", swift, monkeypatch)
    print(outcomes)
    assert set(outcomes) <= {"succeeded", "store_failed", "precondition_failed", "source_failed"}
    assert outcomes["succeeded"] > 100
