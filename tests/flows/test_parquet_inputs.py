"""Parquet from where it is: an object of a store, or a body that was kept; neither is copied to the spool."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.server import Server, eventually, serving

ROWS = 200_000


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": range(ROWS), "s": [f"text {n}" for n in range(ROWS)]}), sink, row_group_size=10_000)
    return sink.getvalue()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    (path / "table.parquet").write_bytes(parquet())
    (path / "broken.parquet").write_bytes(parquet()[:-1])
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("inputs") / "spool", stores=f"here={directory}") as server:
        yield server
        for run in server.runs():
            httpx.delete(f"{server.url}/v1/runs/{run['id']}")
        server.assert_at_rest()


def ended(server: Server, reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 202, reply.text
    return server.run(reply.headers["location"].rpartition("/")[2])


def test_an_object_is_read_where_it_is(server: Server, directory: Path) -> None:
    steps = [{"where": f"n >= {ROWS - 3}"}, {"select": "n"}]
    asked = {"source": "store:here/table.parquet", "steps": steps, "to": "csv"}
    run = ended(server, httpx.post(f"{server.url}/v1/runs", json=asked))
    assert (run["state"], run["rows_in"], run["rows_out"]) == ("succeeded", ROWS, 3), run
    assert run["peak_bytes"] <= run["worst_case_bytes"]
    result = httpx.get(f"{server.url}/v1/runs/{run['id']}/result")
    assert result.text.split() == ["n", *map(str, range(ROWS - 3, ROWS))]


def test_all_of_an_object(server: Server, directory: Path) -> None:
    asked = {"source": "store:here/table.parquet", "to": "arrow"}
    run = ended(server, httpx.post(f"{server.url}/v1/runs", json=asked))
    result = httpx.get(f"{server.url}/v1/runs/{run['id']}/result")
    assert pa.ipc.open_stream(result.content).read_all().equals(pq.read_table(directory / "table.parquet"))


def test_an_object_that_cannot_be_read_fails_its_run(server: Server) -> None:
    run = ended(server, httpx.post(f"{server.url}/v1/runs", json={"source": "store:here/broken.parquet", "to": "csv"}))
    assert (run["state"], run["error"]["code"]) == ("failed", "truncated_input")


def test_a_body_that_was_kept_is_read_where_it_is(server: Server) -> None:
    query = "from=parquet&where=n < 2&select=s&to=csv"
    reply = httpx.post(f"{server.transform}?{query}", content=parquet(), headers={"Prefer": "respond-async"})
    run = ended(server, reply)
    assert (run["state"], run["rows_in"], run["rows_out"]) == ("succeeded", ROWS, 2), run
    assert httpx.get(f"{server.url}/v1/runs/{run['id']}/result").text.split("\n")[:3] == ["s", '"text 0"', '"text 1"']


def test_a_file_that_a_query_reads_counts_as_any_other(server: Server) -> None:
    query = "from=parquet&where=n >= 20000&aggregate=count(*) as n, max(s) as s&to=csv"
    reply = httpx.post(f"{server.transform}?{query}", content=parquet())
    assert reply.text.split("\n")[:2] == ["n,s", '180000,"text 99999"']
    run = server.run(reply.headers["weir-run-id"])
    assert (run["state"], run["rows_in"], run["rows_out"]) == ("succeeded", ROWS, 1), run
    assert run["peak_bytes"] <= run["worst_case_bytes"]
    assert 180_000 * 16 < run["input_bytes"] < 180_000 * 40


def test_a_damaged_file_that_a_query_reads_is_refused(server: Server) -> None:
    data = bytearray(parquet())
    data[5000:5100] = bytes(100)
    reply = httpx.post(
        f"{server.transform}?from=parquet&aggregate=sum(n) as n, max(s) as s&to=csv", content=bytes(data)
    )
    assert (reply.status_code, reply.json()["code"]) == (422, "corrupt_input"), reply.text


def test_a_query_that_reads_a_file_is_cancelled_soon(server: Server) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": range(3_000_000)}), sink)
    query = "from=parquet&aggregate=max(md5(md5(md5(md5(md5(md5(n::VARCHAR))))))) as m&to=csv"
    reply = httpx.post(f"{server.transform}?{query}", content=sink.getvalue(), headers={"Prefer": "respond-async"})
    url = f"{server.url}{reply.headers['location']}"
    eventually(lambda: httpx.get(url).json().get("input_bytes", 0) > 1000)
    started = time.monotonic()
    httpx.delete(url)
    eventually(lambda: server.run(url.rpartition("/")[2])["state"] == "cancelled")
    assert time.monotonic() - started < 2
