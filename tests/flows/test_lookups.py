"""Lookup tables over HTTP: loaded once, shared, paid for, loaded anew."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.framing.native import LIBRARY
from tests.object_store.server import ObjectStoreServer
from tests.server import Server, eventually, serving

BODY = b"city,n\nberlin,1\nrome,2\nparis,3\n"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lookups")
    (folder / "cities.csv").write_text("name,country\nberlin,de\nparis,fr\n")
    (folder / "numbers.ndjson").write_text('{"n":1,"word":"one"}\n{"n":2,"word":"two"}\n')
    pq.write_table(pa.table({"n": [1, 2, 3], "roman": ["i", "ii", "iii"]}), folder / "romans.parquet")
    (folder / "twice.csv").write_text("k,v\n1,a\n1,b\n")
    (folder / "ragged.csv").write_text("k,v\n1,a\n1,b,c\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("spool"), lookups_dir=str(tables)) as running:
        yield running


def post(server: Server, enrich: str, body: bytes = BODY) -> httpx.Response:
    return httpx.post(
        server.transform, params={"from": "csv", "enrich": enrich, "to": "json"}, content=body, timeout=30
    )


def listed(server: Server) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{server.url}/v1/lookups").json()["lookups"]
    return {table["name"]: table for table in found}


def test_the_library_is_built() -> None:
    assert LIBRARY is not None


def test_tables_of_every_format(server: Server) -> None:
    steps = "enrich=cities+on+city%3Dname&enrich=numbers+on+n&enrich=romans+on+n+missing+fail"
    url = f"{server.transform}?from=csv&{steps}&to=json"
    printed = subprocess.run(
        ["curl", "-sSf", "--data-binary", "@-", "-X", "POST", url], input=BODY, capture_output=True, check=True
    ).stdout
    assert json.loads(printed) == [
        {"city": "berlin", "n": 1, "country": "de", "word": "one", "roman": "i"},
        {"city": "rome", "n": 2, "country": None, "word": "two", "roman": "ii"},
        {"city": "paris", "n": 3, "country": "fr", "word": None, "roman": "iii"},
    ]
    found = listed(server)
    assert set(found) == {"cities", "numbers", "romans", "twice", "ragged"}
    assert found["cities"]["rows"] == 2
    assert found["romans"]["columns"] == {"n": "int64", "roman": "string"}
    assert found["numbers"]["runs"] == 0
    steps = [{"enrich": {"table": "cities", "on": ["city=name"], "add": ["country"], "missing": "drop"}}]
    answer = httpx.post(
        f"{server.url}/v1/runs", json={"source": "store:none/x", "from": "csv", "steps": steps, "to": "json"}
    )
    assert answer.json()["code"] == "bad_argument"  # the store; the step was read


@pytest.mark.parametrize(
    ("enrich", "status", "said"),
    [
        ("nope on n", 400, "known are cities, numbers, ragged, romans, twice"),
        ("twice on n=k", 400, "'1' is there twice, again in row 2"),
        ("ragged on n=k", 400, "line 3"),
        ("cities on city=nope", 400, "has no column 'nope'"),
        ("cities on nope=name", 400, "no column 'nope'"),
        ("cities on city=name missing fail", 422, "'rome'"),
    ],
)
def test_what_cannot_be_is_said(server: Server, enrich: str, status: int, said: str) -> None:
    answer = post(server, enrich)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_an_unknown_table_is_refused_before_the_body(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=10) as raw:
        head = "POST /v1/transform?from=csv&enrich=nope+on+n HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_table_that_changes_is_loaded_anew_and_running_runs_keep_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "lookups"
    folder.mkdir()
    (folder / "t.csv").write_text("n,word\n1,old\n")
    with serving(tmp_path / "spool", lookups_dir=str(folder), memory_budget="1GiB") as server:
        with socket.create_connection((server.host, server.port), timeout=10) as raw:
            head = "POST /v1/transform?from=csv&enrich=t+on+n&to=csv HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            raw.sendall(head.encode())
            raw.sendall(b"4\r\nn\n1\n\r\n")
            eventually(lambda: listed(server).get("t", {}).get("runs") == 1)
            (folder / "t.csv").write_text("n,word\n1,fresh\n2,two\n")
            assert post(server, "t on n", b"n\n1\n").json() == [{"n": 1, "word": "fresh"}]
            raw.sendall(b"2\r\n1\n\r\n0\r\n\r\n")
            answer = b""
            while piece := raw.recv(1000):
                answer += piece
                if answer.endswith(b"0\r\n\r\n"):
                    break
        assert answer.count(b'"old"') == 2
        assert listed(server)["t"]["rows"] == 2
        (folder / "t.csv").write_text("n,word\n1,a\n1,b\n")
        assert post(server, "t on n", b"n\n1\n").status_code == 400


def test_many_at_once_load_it_once_and_it_is_paid_for(tmp_path: Path) -> None:
    folder = tmp_path / "lookups"
    folder.mkdir()
    keys = pa.array(range(200_000))
    pq.write_table(pa.table({"n": keys, "word": [f"word {n}" for n in range(200_000)]}), folder / "t.parquet")
    with serving(tmp_path / "spool", lookups_dir=str(folder), memory_budget="256MiB") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: post(server, "t on n", b"n\n%d\n" % n).json(), range(16)))
        assert answers == [[{"n": n, "word": f"word {n}"}] for n in range(16)]
        held = listed(server)["t"]["held_bytes"]
        assert 4 << 20 < held < 16 << 20
        assert server.metrics()["weir_memory_reserved_bytes"] == 0
    with serving(tmp_path / "other", lookups_dir=str(folder), memory_budget="16MiB", worker_threads=1) as server:
        answer = post(server, "t on n", b"n\n1\n")
        assert (answer.status_code, answer.json()["code"]) == (413, "never_fits")
        assert "lookup table t" in answer.json()["detail"]
        assert "MEMORY_BUDGET" in listed(server)["t"]["error"]


def test_tables_in_a_bucket(tmp_path: Path, swift: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in swift.environment().items():
        if name != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(name, value)
    bucket = swift.fresh_bucket()
    swift.client().put_object(Bucket=bucket, Key="tables/cities.csv", Body=b"name,country\nberlin,de\n")
    where: dict[str, Any] = {"s3_endpoint_url": swift.endpoint_url, "s3_addressing": "path"}
    with serving(tmp_path / "spool", lookups_dir=f"s3://{bucket}/tables", **where) as server:
        assert post(server, "cities on city=name missing drop").json() == [{"city": "berlin", "n": 1, "country": "de"}]
        assert post(server, "nope on city").json()["code"] == "bad_argument"
        swift.client().put_object(Bucket=bucket, Key="tables/cities.csv", Body=b"name,country\nrome,it\n")
        assert post(server, "cities on city=name missing drop").json() == [{"city": "rome", "n": 2, "country": "it"}]


def test_without_a_server(tmp_path: Path, tables: Path) -> None:
    (tmp_path / "in.csv").write_bytes(BODY)
    command = [sys.executable, "-m", "app.cli", "run", str(tmp_path / "in.csv"), str(tmp_path / "out.ndjson")]
    command += [
        "--enrich",
        "cities on city=name missing drop",
        "--lookups-dir",
        str(tables),
        "--spool-dir",
        str(tmp_path / "s"),
    ]

    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out.ndjson").read_text().splitlines()[1] == '{"city":"paris","n":3,"country":"fr"}'
