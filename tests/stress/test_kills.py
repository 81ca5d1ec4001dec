"""A server that is killed again and again, in the middle of everything."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.stored import Stored, stored
from tests.object_store.server import ObjectStoreServer
from tests.server import eventually

DATA = random.Random(4).randbytes(40_000_000)
KILLS = 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_run_has_a_true_end(tmp_path: Path, swift: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, draw = swift.fresh_bucket(), random.Random(50)
    swift.client().put_object(Bucket=bucket, Key="in", Body=DATA)
    (tmp_path / "data").write_bytes(DATA)
    settings: dict[str, Any] = {"bucket": bucket, "run_attempts": 100}
    orders: dict[str, tuple[str, str]] = {}
    targets: dict[str, str] = {}
    for kill in range(KILLS):
        with stored(tmp_path / "spool", swift, monkeypatch, **settings) as s3:
            clients = [begin(s3, draw, f"{kill}-{number}", orders, targets, tmp_path / "data") for number in range(3)]
            time.sleep(draw.uniform(0.0, 1.5))
            s3.server.kill()
        for client in clients:
            if client is not None:
                client.wait()
    with stored(tmp_path / "spool", swift, monkeypatch, **settings) as s3:
        began = time.monotonic()
        eventually(lambda: not [run for run in s3.server.runs() if run["state"] in ("accepted", "running")], 120)
        ended = Counter((run["mode"], run["state"], (run["error"] or {}).get("code")) for run in s3.server.runs())
        s3.assert_nothing_open()
        print(f"all ended {time.monotonic() - began:.1f} s after the last start:", ended)
        assert {state for _, state, _ in ended} <= {"succeeded", "failed"}
        assert {code for _, state, code in ended if state == "failed"} == {"interrupted"}
        for run_id, (kind, key) in orders.items():
            assert s3.server.run(run_id)["state"] == "succeeded", kind
            result = s3.get(key) if key else httpx.get(f"{s3.server.url}/v1/runs/{run_id}/result").content
            assert result == (DATA if kind == "stored" else DATA[:5_000_000])
        for run in s3.server.runs():
            if run["mode"] == "whole" and run["state"] == "succeeded":
                assert httpx.get(f"{s3.server.url}/v1/runs/{run['id']}/result").content == DATA
            if run["mode"] == "sink" and run["state"] == "succeeded":
                assert s3.get(run["sink"].removeprefix(f"{s3.url}/")) == DATA
        # What is there was said to be whole, or is a run's that was killed between the object and its record.
        there = s3.objects() - {"in"}
        assert all(s3.get(key) == DATA for key in there if key in targets)
        kept = {path.name for path in (tmp_path / "spool" / "kept").iterdir()}
        assert not [name for name in kept if name.endswith(".body")]


def begin(
    s3: Stored,
    draw: random.Random,
    name: str,
    orders: dict[str, tuple[str, str]],
    targets: dict[str, str],
    data: Path,
) -> subprocess.Popen[bytes] | None:
    """One run of any kind; its client, where it has to stay."""
    kind = draw.choice(("to an object", "kept", "taken", "sink", "whole"))
    if kind in ("to an object", "kept"):
        key = f"out/{name}" if kind == "to an object" else ""
        document = {"source": f"{s3.url}/in"} | ({"sink": f"{s3.url}/{key}"} if key else {})
        reply = httpx.post(f"{s3.server.url}/v1/runs", json=document)
        orders[reply.headers["weir-run-id"]] = ("stored", key)
        return None
    if kind == "taken":
        reply = httpx.post(s3.server.transform, content=DATA[:5_000_000], headers={"Prefer": "respond-async"})
        orders[reply.headers["weir-run-id"]] = ("taken", "")
        return None
    query = "deliver=whole" if kind == "whole" else f"sink={s3.url}/sunk/{name}"
    targets[f"sunk/{name}"] = kind
    return subprocess.Popen(
        ["curl", "-s", "-o", "/dev/null", "--limit-rate", "40M", "-T", str(data), f"{s3.server.transform}?{query}"]
    )
