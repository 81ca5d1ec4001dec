"""How a text is written, said by URL, document, Content-Type and command line, through a real server."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import Server, serving

LATIN = "n;s\n1,5;Grüße\n2;NULL\n".encode("latin-1")


def post(server: Server, query: str, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{server.transform}?{query}", content=body, headers=named, timeout=60)


def rows(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def test_a_csv_file_of_another_dialect(server: Server) -> None:
    query = "from=csv&to=ndjson&delimiter=;&null=NULL&encoding=latin-1"
    assert rows(post(server, query, LATIN)) == [{"n": "1,5", "s": "Grüße"}, {"n": "2", "s": None}]
    assert post(server, "from=csv&to=csv&delimiter=tab&header=false", b"1\tx\n").text == 'column0,column1\n1,"x"\n'
    assert rows(post(server, "from=csv&to=ndjson&quote=none", b'a,b\n"1,2"\n')) == [{"a": '"1', "b": '2"'}]


def test_content_type_tells_where_the_url_does_not(server: Server) -> None:
    absent = "text/csv; charset=iso-8859-1; header=absent"
    body = "1,ü\n".encode("latin-1")
    assert rows(post(server, "to=ndjson", body, content_type=absent)) == [{"column0": 1, "column1": "ü"}]
    assert rows(post(server, "to=ndjson&header=true", body * 2, content_type=absent)) == [{"1": 1, "ü": "ü"}]
    utf16 = '{"a":"ü"}\n'.encode("utf-16")
    assert rows(post(server, "where=a<>''", utf16, content_type='application/x-ndjson; charset="UTF-16"')) == [
        {"a": "ü"}
    ]
    upper = post(server, "upper", "aü\n".encode("latin-1"), content_type="text/plain; charset=latin-1")
    assert upper.content == "Aü\n".encode()
    refused = post(server, "to=ndjson", b"a\n1\n", content_type="text/csv; charset=x-none")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_type")
    refused = post(server, "to=ndjson", b"a\n1\n", content_type="text/csv; header=maybe")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_type")


def test_the_format_of_data_in_another_encoding(server: Server) -> None:
    assert rows(post(server, "encoding=utf-16&select=a&to=ndjson", '{"a":1}\n'.encode("utf-16"))) == [{"a": 1}]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=ndjson&to=csv&header=false", "header= does not apply to input in ndjson"),
        ("from=parquet&to=csv&encoding=latin-1", "encoding= does not apply to input in parquet"),
        ("from=bytes&upper&encoding=latin-1", "say from=lines"),
        ("from=lines&upper&infer=full", "infer= does not apply to input in lines"),
        ("from=csv&to=csv&delimiter=xx", "one ASCII character"),
        ("from=csv&to=csv&encoding=klingon", "klingon"),
    ],
)
def test_words_that_do_not_apply_are_refused(server: Server, query: str, told: str) -> None:
    reply = post(server, query, b"a\n1\n")
    assert reply.status_code == 400
    assert told in reply.json()["detail"]


def test_what_cannot_be_decoded_is_told_with_its_byte(server: Server) -> None:
    problem = post(server, "from=csv&to=ndjson&encoding=utf-16-le", "a\nü\n".encode("utf-16-le") + b"\x00\xdc").json()
    assert (problem["status"], problem["code"], problem["byte"]) == (422, "bad_encoding", 8)


NO_HEADER = "text/csv; header=absent"
LATE = b"n,s\n" + b"1,x\n" * 400_000 + b"2.5,x\n"


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_types_of_all_rows(server: Server, coding: str) -> None:
    body = gzip.compress(LATE, 1) if coding == "gzip" else LATE
    query = "from=csv&to=ndjson&offset=399999"
    first = post(server, query, body, content_encoding=coding)
    assert (first.status_code, first.json()["line"]) == (422, 400_002)
    reply = post(server, f"{query}&infer=full", body, content_encoding=coding)
    assert rows(reply) == [{"n": 1.0, "s": "x"}, {"n": 2.5, "s": "x"}]
    record = server.run(reply.headers["weir-run-id"])
    assert (record["rows_in"], record["input_bytes"]) == (400_001, len(body))
    assert record["peak_bytes"] <= record["worst_case_bytes"]
    server.assert_at_rest()


def test_types_of_all_rows_of_a_body_that_is_kept_and_of_an_object(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "late.csv").write_bytes(LATE.replace(b",", b";").replace(b"x", "ü".encode("latin-1")))
    document = {"delimiter": ";", "encoding": "latin-1", "infer": "full", "to": "csv", "steps": [{"offset": 399_999}]}
    with serving(tmp_path / "spool", stores=f"in={tmp_path / 'in'}") as server:
        query = "from=csv&to=csv&offset=399999&infer=full"
        taken = post(server, query, LATE, prefer="respond-async", accept_encoding="identity", content_type=NO_HEADER)
        order = httpx.post(f"{server.url}/v1/runs", json={"source": "store:in/late.csv", **document})
        ends = [server.run(reply.json()["id"], wait_s=30) for reply in (taken, order)]
        assert [end["state"] for end in ends] == ["succeeded", "succeeded"], ends
        # The first has no header, so that all its columns are text.
        result = server.get(f"/v1/runs/{ends[0]['id']}/result")
        assert result == b'column0,column1\n"1","x"\n"1","x"\n"2.5","x"\n'
        assert server.get(f"/v1/runs/{ends[1]['id']}/result") == 'n,s\n1,"ü"\n2.5,"ü"\n'.encode()
        server.assert_at_rest()


def test_a_run_can_be_cancelled_in_the_first_pass(tmp_path: Path) -> None:
    with serving(tmp_path / "spool", worker_threads=1) as server:
        body = b"a,b,c\n" + b"1.5,2020-01-31,some text\n" * 6_000_000
        taken = post(server, "from=csv&to=csv&infer=full", body, prefer="respond-async")
        run = taken.json()["id"]
        assert httpx.delete(f"{server.url}/v1/runs/{run}").status_code == 204
        server.assert_at_rest()


def test_the_command_line_and_a_pipeline_document(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(LATIN)
    (tmp_path / "p.yaml").write_text(
        "from: csv\nto: ndjson\ndelimiter: ';'\nencoding: latin-1\nheader: false\n'null': ['NULL', '2']\n"
    )
    environment = os.environ | {"WEIR_SPOOL_DIR": str(tmp_path / "spool")}
    words = ["--delimiter", ";", "--encoding", "latin-1", "--null", "NULL", "--infer", "full", "--to", "ndjson"]
    for arguments, expected in (
        (words, [{"n": "1,5", "s": "Grüße"}, {"n": "2", "s": None}]),
        (
            ["-p", str(tmp_path / "p.yaml")],
            [
                {"column0": "n", "column1": "s"},
                {"column0": "1,5", "column1": "Grüße"},
                {"column0": None, "column1": None},
            ],
        ),
    ):
        command = [sys.executable, "-m", "app.cli", "run", str(tmp_path / "in.csv"), str(tmp_path / "out"), *arguments]
        subprocess.run(command, env=environment, check=True)
        assert [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()] == expected
