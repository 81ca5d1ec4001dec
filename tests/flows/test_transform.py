"""The contract of ``/v1/transform``, over real sockets."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.server import Server, eventually, serving

CSV = b'a,b,s\n1,1.5,x\n2,2.5,\n3,3.5,"q""uo,te"\n'


def post(server: Server, query: str, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{server.transform}?{query}", content=body, headers=named, timeout=60)


def refused(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert (problem["code"], problem["status"]) == (code, status)
    return problem


def test_every_answer_of_a_run_names_it(server: Server) -> None:
    reply = post(server, "upper", b"abc")
    assert reply.content == b"ABC"
    record = server.run(reply.headers["weir-run-id"])
    assert (record["state"], record["input_bytes"], record["output_bytes"]) == ("succeeded", 3, 3)
    assert record["peak_bytes"] <= record["worst_case_bytes"]
    assert [stage["name"] for stage in record["stages"]] == ["upper"]
    assert record["first_byte_s"] is not None


def test_steps_run_in_the_order_written(server: Server) -> None:
    assert post(server, "replace=/a/b/&upper", b"abc\n").content == b"BBC\n"
    assert post(server, "upper&replace=/a/b/", b"abc\n").content == b"ABC\n"
    assert post(server, "grep=b&grep=c", b"ab\nbc\nc\n").content == b"bc\n"


def test_an_empty_body_is_an_empty_result(server: Server) -> None:
    assert post(server, "upper", b"").content == b""


def test_rows_that_need_not_be_read_count_as_rows_in(server: Server) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": range(1000), "s": ["x"] * 1000}), sink, row_group_size=100)
    reply = post(server, "from=parquet&where=n >= 950&select=n&to=csv", sink.getvalue())
    assert reply.text.split() == ["n", *map(str, range(950, 1000))]
    record = server.run(reply.headers["weir-run-id"])
    assert (record["rows_in"], record["rows_out"]) == (1000, 50)
    problem = refused(post(server, "from=parquet&where=m >= 950&select=n&to=csv", sink.getvalue()), 400, "bad_sql")
    assert "columns are n, s" in problem["detail"]


@pytest.mark.parametrize("to", ["csv", "tsv", "ndjson", "json", "arrow", "parquet"])
def test_rows_go_to_every_format_and_back(server: Server, to: str) -> None:
    made = post(server, f"from=csv&to={to}", CSV)
    assert made.status_code == 200, made.text
    if to == "json":
        assert made.json() == [
            {"a": 1, "b": 1.5, "s": "x"},
            {"a": 2, "b": 2.5, "s": None},
            {"a": 3, "b": 3.5, "s": 'q"uo,te'},
        ]
        return
    back = post(server, f"from={to}&to=ndjson", made.content)
    assert [json.loads(line) for line in back.text.splitlines()] == [
        {"a": 1, "b": 1.5, "s": "x"},
        {"a": 2, "b": 2.5, "s": None},
        {"a": 3, "b": 3.5, "s": 'q"uo,te'},
    ]


def test_sql_steps(server: Server) -> None:
    reply = post(server, "from=csv&where=a>=2&derive=b*2 as twice&select=a,twice&to=ndjson", CSV)
    assert [json.loads(line) for line in reply.text.splitlines()] == [{"a": 2, "twice": 5.0}, {"a": 3, "twice": 7.0}]
    record = server.run(reply.headers["weir-run-id"])
    assert (record["rows_in"], record["rows_out"], record["rows_rejected"]) == (3, 2, 0)


def test_the_format_is_told_by_type_name_or_data(server: Server, tmp_path: Path) -> None:
    where = "where=a=2&to=ndjson"
    expected = b'{"a":2,"b":2.5,"s":null}\n'
    assert post(server, where, CSV, content_type="text/csv; charset=utf-8").content == expected
    assert post(server, where, CSV).content == expected
    file = tmp_path / "some.csv"
    file.write_bytes(CSV)
    assert httpx.put(f"{server.transform}/some.csv?{where}", content=CSV).content == expected
    with file.open("rb") as form:
        assert httpx.post(f"{server.transform}?{where}", files={"file": form}).content == expected
    assert post(server, "where=a=2", CSV, accept="application/x-ndjson", content_type="text/csv").content == expected
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2], "b": [1.5, 2.5], "s": ["x", None]}), sink)
    assert post(server, where, sink.getvalue().to_pybytes()).content == expected


@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("br", brotli.compress), ("x-gzip", gzip.compress)]
)
def test_encoded_bodies(server: Server, coding: str, encode: Any) -> None:
    assert post(server, "upper", encode(b"abc" * 1000), content_encoding=coding).content == b"ABC" * 1000


def test_results_are_encoded_for_clients_that_ask(server: Server) -> None:
    url = f"{server.transform}?from=lines&upper"
    reply = httpx.post(url, content=b"abc\n" * 5000, headers={"accept-encoding": "gzip"})
    assert (reply.headers["content-encoding"], reply.content) == ("gzip", b"ABC\n" * 5000)
    assert int(server.run(reply.headers["weir-run-id"])["output_bytes"]) < 1000
    plain = httpx.post(url, content=b"abc\n", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_whole_results_carry_length_digest_and_tag(server: Server) -> None:
    reply = post(server, "upper&deliver=whole", b"abc" * 100_000, accept_encoding="identity")
    expected = b"ABC" * 100_000
    assert reply.content == expected
    digest = hashlib.sha256(expected)
    assert reply.headers["content-length"] == str(len(expected))
    assert reply.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert reply.headers["etag"] == f'"{digest.hexdigest()}"'
    assert server.run(reply.headers["weir-run-id"])["digest"] == digest.hexdigest()


def test_the_result_streams_while_the_upload_is_still_going(server: Server) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.putrequest("POST", "/v1/transform?upper")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(b"5\r\nhello\r\n")
    reply = connection.response_class(connection.sock, method="POST")
    reply.begin()
    assert reply.read(5) == b"HELLO"
    connection.send(b"5\r\nworld\r\n0\r\n\r\n")
    assert reply.read() == b"WORLD"
    connection.close()


def test_expect_100_continue_is_decided_before_the_body_is_asked_for(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=10) as raw:
        head = "POST /v1/transform?nope=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection((server.host, server.port), timeout=10) as raw:
        raw.sendall(head.replace("nope=1", "upper").replace("100000", "3").encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 100")
        raw.sendall(b"abc")
        assert raw.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ("uper", "unknown_parameter", "upper, lower"),
        ("from=cvs", "unknown_format", "csv, tsv, ndjson"),
        ("to=xls", "unknown_format", "parquet"),
        ("on_error=ignore", "bad_argument", "fail, skip, quarantine"),
        ("max_errors=many", "bad_argument", "percentage"),
        ("deliver=later", "bad_argument", "whole"),
        ("compress=rar", "bad_argument", "gzip, zstd, lz4"),
        ("limit=some", "bad_argument", "limit"),
        ("from=csv&to=csv&from=csv", "bad_pipeline", "twice"),
        ("grep=(", "bad_argument", "grep"),
        ("from=json", "unknown_format", "only be written"),
        ("pipeline=nope", "bad_pipeline", "nope"),
        ("from=csv&where=a>1&upper&where=a>2", "bad_pipeline", "between"),
        ("from=csv&to=parquet&where=a>1&upper", "bad_pipeline", "parquet"),
        ("from=csv&where=read_csv('/etc/passwd')", "bad_sql", "read_csv"),
    ],
)
def test_what_is_not_known_names_what_is(server: Server, query: str, code: str, named: str) -> None:
    assert named in refused(post(server, query, CSV), 400, code)["detail"]


def test_broken_sql_tells_the_position(server: Server) -> None:
    problem = refused(post(server, "from=csv&where=a > > 2", CSV), 400, "bad_sql")
    assert problem["position"] == 4
    problem = refused(post(server, "from=csv&where=a > 1 and nope = 2", CSV), 400, "bad_sql")
    assert problem["position"] == 10
    assert "nope" in problem["detail"]


def test_unknown_types_and_codings(server: Server) -> None:
    assert (
        "gzip, zstd, br"
        in refused(post(server, "upper", b"x", content_encoding="rar"), 415, "unsupported_type")["detail"]
    )
    assert (
        "text/csv" in refused(post(server, "upper", b"x", content_type="image/png"), 415, "unsupported_type")["detail"]
    )
    assert "text/csv" in refused(post(server, "upper", b"x", accept="image/png"), 406, "not_acceptable")["detail"]


BAD = b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(1000)) + b"oops,y\n" + b"7,z\n8\n"


def test_a_bad_row_is_told_with_line_byte_and_column(server: Server) -> None:
    problem = refused(post(server, "from=csv&types=a:bigint&to=parquet", BAD), 422, "bad_value")
    assert (problem["line"], problem["byte"], problem["column"]) == (1002, BAD.index(b"oops"), "a")
    problem = refused(post(server, "from=csv&to=ndjson", b"a,b\n1,2\n3\n"), 422, "ragged_row")
    assert (problem["line"], problem["byte"]) == (3, 8)
    problem = refused(post(server, "from=ndjson&to=csv", b'{"a":1}\n{"a":}\n'), 422, "bad_json")
    assert (problem["line"], problem["byte"]) == (2, 8)


def test_skip_and_quarantine(server: Server) -> None:
    query = "from=csv&types=a:bigint&select=a&to=csv&on_error="
    reply = post(server, query + "skip", BAD)
    assert reply.content.endswith(b"999\n7\n")
    assert server.run(reply.headers["weir-run-id"])["rows_rejected"] == 2
    reply = post(server, query + "quarantine", BAD)
    run_id = reply.headers["weir-run-id"]
    kept = [json.loads(line) for line in server.get(f"/v1/runs/{run_id}/rejects").splitlines()]
    assert [(reject["line"], reject["code"], reject["text"].strip()) for reject in kept] == [
        (1002, "bad_value", "oops,y"),
        (1004, "ragged_row", "8"),
    ]
    assert httpx.delete(f"{server.url}/v1/runs/{run_id}").status_code == 204
    assert httpx.get(f"{server.url}/v1/runs/{run_id}").status_code == 404
    problem = refused(post(server, query + "skip&max_errors=1", BAD), 422, "too_many_rejects")
    assert problem["line"] == 1004


def test_broken_and_bombing_encodings(server: Server) -> None:
    whole = gzip.compress(b"some text " * 1000)
    refused(post(server, "upper", whole[:-20], content_encoding="gzip"), 422, "truncated_input")
    refused(post(server, "upper&deliver=whole", b"no gzip at all", content_encoding="gzip"), 422, "corrupt_input")
    bomb = gzip.compress(bytes(1 << 28), 1)
    before = server.memory_kib()
    refused(post(server, "upper&deliver=whole", bomb, content_encoding="gzip"), 413, "expansion_too_large")
    assert server.memory_kib() - before < 64 * 1024


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "lz4", "none"])
def test_parquet_is_compressed_as_asked(server: Server, compression: str) -> None:
    body = b"id;name\n" + b"".join(b"%d;'name %d'\n" % (n, n) for n in range(20_000))
    answer = post(server, f"from=csv&delimiter=;&quote='&to=parquet&compression={compression}", body)
    file = pq.ParquetFile(io.BytesIO(answer.content))
    found = file.metadata.row_group(0).column(1).compression
    assert found == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    with duckdb.connect() as connection:
        connection.register("t", file.read())
        assert connection.sql("SELECT count(*), min(name), max(id) FROM t").fetchall() == [(20_000, "name 0", 19_999)]


def test_rows_are_grouped(server: Server) -> None:
    body = "shop,item,qty\n" + "".join(f"s{n % 7},i{n % 3},{n}\n" for n in range(50_000))
    query = "from=csv&where=qty>=0&aggregate=count(*) as n, sum(qty) as qty by item&to="
    wanted = [{"item": f"i{i}", "n": len(range(i, 50_000, 3)), "qty": sum(range(i, 50_000, 3))} for i in range(3)]
    assert post(server, query + "json", body.encode()).json() == wanted
    assert post(server, query + "csv", body.encode()).text.splitlines()[:2] == [
        "item,n,qty",
        f'"i0",16667,{sum(range(0, 50_000, 3))}',
    ]
    parquet = post(server, "from=csv&to=parquet", body.encode()).content
    for from_, sent in (("csv", body.encode()), ("parquet", parquet)):
        firsts = post(server, f"from={from_}&distinct=shop, item&select=qty&to=ndjson", sent)
        assert [json.loads(line)["qty"] for line in firsts.text.splitlines()] == list(range(21))
        assert post(server, f"from={from_}&aggregate=count(*) as n&to=json", sent).json() == [{"n": 50_000}]
        top = "sql=SELECT item, max(qty) m FROM input GROUP BY item ORDER BY m DESC LIMIT 1"
        assert post(server, f"from={from_}&{top}&to=json", sent).json() == [{"item": "i1", "m": 49_999}]
    late = b"n,m\n" + b"1,2\n" * 600_000 + b"x,y\n"
    assert post(server, "from=csv&aggregate=count(*) as c&to=json", late).json() == [{"c": 600_001}]
    refused(post(server, "from=csv&aggregate=sum(m) as s&to=json", late), 422, "bad_value")
    refused(post(server, "from=csv&aggregate=count(*) as n by nope&to=json", body.encode()), 400, "bad_sql")


def test_a_window_comes_while_the_upload_goes_on(server: Server) -> None:
    step = "window=sum(n)+as+n+every+10s+on+ts+by+k"
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.putrequest("POST", f"/v1/transform?from=csv&{step}&to=ndjson")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    lines = [f"2025-11-25 {n // 3600:02}:{n // 60 % 60:02}:{n % 60:02},{n % 3},{n % 97}\n" for n in range(86_400)]
    half = ("ts,k,n\n" + "".join(lines[:80_000])).encode()
    connection.send(b"%x\r\n%b\r\n" % (len(half), half))
    reply = connection.response_class(connection.sock, method="POST")
    reply.begin()
    first = json.loads(reply.readline())
    assert first == {
        "window_start": "2025-11-25T00:00:00",
        "window_end": "2025-11-25T00:00:10",
        "k": 0,
        "n": sum(n % 97 for n in range(0, 10, 3)),
    }
    rest = ("".join(lines[80_000:]) + lines[7]).encode()
    connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
    windows = [first, *map(json.loads, reply.read().splitlines())]
    assert len(windows) == 3 * 8640
    assert sum(window["n"] for window in windows) == sum(n % 97 for n in range(86_400))
    connection.close()
    run = next(run for run in server.runs() if "window" in run["pipeline"])
    assert run["rows_rejected"] == 1
    assert (run["rows_in"], run["rows_out"]) == (86_401, 3 * 8640)


def test_what_a_group_by_remembers_goes_to_disk_and_the_verdict_says_so(spool: Path) -> None:
    with serving(spool, memory_budget="256MiB", query_memory="48MiB") as server:
        body = "key,value\n" + "".join(f"{n * 7919 % 2_000_003},{n}\n" for n in range(2_000_000))
        answer = post(server, "from=csv&aggregate=count(*) as n, sum(value) as s by key&to=csv", body.encode())
        rows = answer.text.splitlines()
        assert (len(rows), rows[1]) == (2_000_001, "0,1,0")
        (run,) = server.runs()
        assert run["state"] == "succeeded"
        assert run["spooled_bytes"] > 16 << 20
        assert run["rows_out"] == 2_000_000


def test_rows_are_sorted_on_disk_and_the_verdict_says_so(spool: Path) -> None:
    """However many there are, and however few of them memory has room for: nothing came out of it before."""
    count = 500_009
    with serving(spool, memory_budget="192MiB", query_memory="16MiB") as server:
        body = "key,value\n" + "".join(f"{n * 7919 % count},{n % 7}\n" for n in range(count))
        query = "from=csv&sql=SELECT+value,+key+FROM+input+ORDER+BY+value+DESC,+-key&derive=key+%2B+1+AS+next&to=csv"
        answer = post(server, query, body.encode())
        wanted = sorted(((n % 7, n * 7919 % count) for n in range(count)), key=lambda row: (-row[0], -row[1]))
        assert answer.text == "value,key,next\n" + "".join(f"{value},{key},{key + 1}\n" for value, key in wanted)
        (run,) = server.runs()
        assert run["state"] == "succeeded"
        assert run["spooled_bytes"] > 8 << 20
        assert run["rows_out"] == count
        refused(post(server, "from=csv&sql=FROM+input+ORDER+BY+key,+nope&to=csv", b"key,value\n1,2\n"), 400, "bad_sql")


def test_a_result_is_never_read_from_a_format_that_lies(server: Server) -> None:
    for from_ in ("parquet", "arrow"):
        refused(post(server, f"from={from_}&to=csv", b"garbage" * 100), 422, "corrupt_input")
    refused(post(server, "from=csv&to=parquet", b""), 422, "empty_input")


@pytest.mark.parametrize("step", ["limit=2", "sql=SELECT+a+FROM+input+LIMIT+2"])
def test_limit_ends_the_run_before_the_upload_does(server: Server, step: str) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.putrequest("POST", f"/v1/transform?from=csv&{step}&to=csv")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    rows = b"a\n" + b"".join(b"%d\n" % n for n in range(400_000))
    connection.send(b"%x\r\n%b\r\n" % (len(rows), rows))
    reply = connection.response_class(connection.sock, method="POST")
    reply.begin()
    assert reply.read() == b"a\n0\n1\n"
    connection.close()


@pytest.mark.parametrize("way", ["", "TE: trailers\r\n"])
def test_a_client_that_reads_nothing_until_it_has_sent_all_is_rescued(server: Server, way: str) -> None:
    before = server.metrics()["weir_spool_overflows_total"]
    size = 64 << 20
    head = f"POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\n{way}Content-Length: {size}\r\n\r\n"
    with socket.create_connection((server.host, server.port), timeout=60) as raw:
        raw.sendall(head.encode())
        for _ in range(64):
            raw.sendall(b"a" * (1 << 20))
        reply = http.client.HTTPResponse(raw)
        reply.begin()
        received = 0
        while piece := reply.read(1 << 20):
            assert piece.count(b"A") == len(piece)
            received += len(piece)
    assert received == size
    assert server.metrics()["weir_spool_overflows_total"] == before + 1
    run = server.run(server.runs()[0]["id"])
    assert run["spooled_bytes"] > 0
    assert run["output_bytes"] == size


def test_an_upload_may_take_longer_than_a_reader_may_idle(spool: Path) -> None:
    """httpx reads nothing until it has sent everything."""

    def body() -> Iterator[bytes]:
        yield b"a" * (64 << 20)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            yield b"b" * 1000
            time.sleep(0.02)
        yield b"end"

    with serving(spool, idle_timeout="1s") as server:
        answer = httpx.post(f"{server.transform}?upper", content=body(), timeout=60).content
        assert answer.startswith(b"A" * (64 << 20))
        assert answer.endswith(b"BEND")
        assert server.metrics()["weir_spool_overflows_total"] == 1
        server.assert_at_rest()


def test_a_slow_duplex_reader_pays_no_disk(server: Server) -> None:
    before = server.metrics()["weir_spool_overflows_total"]
    size = 24 << 20
    with socket.create_connection((server.host, server.port), timeout=60) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)

        def send() -> None:
            raw.sendall(b"POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(24):
                raw.sendall(b"a" * (1 << 20))

        sender = threading.Thread(target=send)
        sender.start()
        reply = http.client.HTTPResponse(raw)
        reply.begin()
        received = 0
        while piece := reply.read(1 << 20):
            received += len(piece)
            time.sleep(0.05)
        sender.join()
    assert received == size
    assert server.metrics()["weir_spool_overflows_total"] == before


def test_a_client_that_leaves_is_noticed_within_a_second(server: Server) -> None:
    raw = socket.create_connection((server.host, server.port), timeout=10)
    raw.sendall(b"POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b"a" * 3_000_000)
    eventually(lambda: server.runs()[0]["state"] == "running" and server.runs()[0]["input_bytes"] > 0)
    run_id = server.runs()[0]["id"]
    assert server.metrics()["weir_memory_reserved_bytes"] > 0
    left = time.monotonic()
    raw.close()
    record = server.run(run_id)
    assert time.monotonic() - left < 1.5
    assert (record["state"], record["error"]["code"]) == ("cancelled", "client_gone")


def test_delete_cancels_a_run(server: Server) -> None:
    raw = socket.create_connection((server.host, server.port), timeout=10)
    raw.sendall(b"POST /v1/transform?upper HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b"a" * 3_000_000)
    eventually(lambda: server.runs()[0]["state"] == "running" and server.runs()[0]["output_bytes"] > 0)
    assert httpx.delete(f"{server.url}/v1/runs/{server.runs()[0]['id']}").status_code == 204
    reply = http.client.HTTPResponse(raw)
    reply.begin()
    with pytest.raises(http.client.IncompleteRead):
        reply.read()
    raw.close()


def test_operations(server: Server) -> None:
    assert server.get("/healthz") == b"ok\n"
    assert json.loads(server.get("/version"))["weir"]
    assert b"swagger" in server.get("/docs").lower()
    document = json.loads(server.get("/openapi.json"))
    names = {parameter["name"] for parameter in document["paths"]["/v1/transform"]["post"]["parameters"]}
    assert {"from", "to", "where", "upper", "on_error"} <= names
    assert httpx.get(f"{server.url}/nope").json()["code"] == "not_found"
    refused = httpx.get(server.transform)
    assert refused.status_code == 405
    assert "POST" in refused.headers["allow"]
    assert httpx.get(f"{server.url}/v1/runs/nope").json()["code"] == "not_found"
    assert httpx.get(f"{server.url}/v1/runs?limit=x").json()["code"] == "bad_argument"


@pytest.mark.parametrize("scale", [0.01, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_tpch_lineitem_equals_duckdb_row_for_row(scale: float, server: Server, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "tpchgen-cli"
    command = [program, "csv", "-s", str(scale), "--tables", "lineitem", "--output-dir", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    source = next(tmp_path.rglob("lineitem*.csv"))
    select = "l_orderkey,l_extendedprice*(1-l_discount) as revenue,l_shipmode"
    url = f"{server.transform}?where=l_quantity<24&select={select.replace(' ', '+')}&to=parquet"
    subprocess.run(["curl", "-sSf", "-T", source, "-o", tmp_path / "out.parquet", url], check=True)
    theirs = duckdb.sql(f"select {select} from read_csv('{source}') where l_quantity<24").to_arrow_reader(100_000)
    ours = pq.read_table(tmp_path / "out.parquet")
    at = 0
    for batch in theirs:
        assert ours.slice(at, batch.num_rows).to_pylist() == batch.to_pylist()
        at += batch.num_rows
    assert at == ours.num_rows > 0


def test_a_stored_pipeline_stands_for_its_steps(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "clean.yaml").write_text("from: csv\nto: ndjson\nsteps:\n  - where: a > 1\n  - limit: 1\n")
    (folder / "broken.json").write_text("{")
    (folder / "latin.yml").write_bytes(b"steps: [upper] # \xff")
    with serving(tmp_path / "spool", pipelines_dir=folder) as server:
        assert post(server, "pipeline=clean", CSV).text.count("\n") == 1
        assert "clean" in refused(post(server, "pipeline=nope", CSV), 400, "bad_pipeline")["detail"]
        refused(post(server, "pipeline=broken", CSV), 400, "bad_pipeline")
        refused(post(server, "pipeline=latin", CSV), 400, "bad_pipeline")
