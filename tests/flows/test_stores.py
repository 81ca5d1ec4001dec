"""Results to S3 and inputs from it, through a real server of each kind: whole or not there."""

from __future__ import annotations

import hashlib
import http.client
import io
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tests.flows.stored import Stored, stored
from tests.object_store.server import ObjectStoreServer
from tests.server import eventually

MIB = 1 << 20
BIG = random.Random(1).randbytes(21 * MIB)
CSV = ("id,name,amount\n" + "".join(f"{n},name {n},{n / 4}\n" for n in range(400_000))).encode()


@pytest.fixture(scope="module")
def over_swift(swift: ObjectStoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("stores")
    with (
        pytest.MonkeyPatch.context() as patch,
        stored(folder / "spool", swift, patch, stores=f"out={folder / 'out'}") as made,
    ):
        yield made


@pytest.fixture
def s3(over_swift: Stored) -> Iterator[Stored]:
    yield over_swift
    over_swift.assert_nothing_open()


def curl(*arguments: str) -> tuple[dict[str, str], int, bytes]:
    done = subprocess.run(["curl", "-sS", "-i", *arguments], capture_output=True, check=True, timeout=120)
    head, _, body = done.stdout.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return dict(line.lower().split(": ", 1) for line in lines), int(status.split()[1]), body


@pytest.mark.parametrize(("size", "parts"), [(0, 1), (5, 1), (8 * MIB, 1), (21 * MIB, 3)])
def test_bytes_to_an_object(s3: Stored, tmp_path: Path, size: int, parts: int) -> None:
    (tmp_path / "in").write_bytes(BIG[:size])
    url = f"{s3.url}/bytes/{size}"
    headers, status, body = curl("-T", str(tmp_path / "in"), f"{s3.server.transform}?sink={url}")
    receipt = httpx.Response(200, content=body).json()
    assert (status, headers["location"]) == (201, url)
    assert headers["weir-run-id"] == receipt["run_id"]
    assert (receipt["url"], receipt["bytes"], receipt["parts"], receipt["digest"]) == (url, size, parts, None)
    assert s3.get(f"bytes/{size}") == BIG[:size]
    head = s3.store.client().head_object(Bucket=s3.bucket, Key=f"bytes/{size}")
    assert head["ETag"] == f'"{receipt["etag"]}"'
    assert head["ContentType"] == "application/octet-stream"
    run = s3.server.run(receipt["run_id"])
    assert (run["state"], run["mode"], run["sink"], run["output_bytes"]) == ("succeeded", "sink", url, size)


def test_a_digest_is_made_when_it_is_wanted(s3: Stored) -> None:
    reply = httpx.post(
        f"{s3.server.transform}?upper&sink={s3.url}/hashed",
        content=BIG,
        headers={"Want-Repr-Digest": "sha-256=1"},
        timeout=60,
    )
    assert reply.json()["digest"] == hashlib.sha256(s3.get("hashed")).hexdigest()


def test_a_name_is_chosen_in_a_folder(s3: Stored) -> None:
    reply = httpx.post(f"{s3.server.transform}?from=csv&to=ndjson&sink={s3.url}/folder/", content=b"a\n1\n")
    assert reply.json()["url"] == f"{s3.url}/folder/{reply.headers['weir-run-id']}.ndjson"
    assert s3.get(f"folder/{reply.headers['weir-run-id']}.ndjson") == b'{"a":1}\n'


def test_a_table_to_parquet_of_many_parts(s3: Stored) -> None:
    reply = httpx.post(
        f"{s3.server.transform}?from=csv&to=parquet&sink={s3.url}/table.parquet",
        content=iter([CSV[start : start + 100_000] for start in range(0, len(CSV), 100_000)]),
        timeout=120,
    )
    assert reply.json()["rows"] == 400_000
    assert pq.read_table(io.BytesIO(s3.get("table.parquet"))).equals(pa_csv.read_csv(io.BytesIO(CSV)))


def test_parts_are_there_while_the_upload_goes_on(s3: Stored) -> None:
    client = s3.store.client()
    with socket.create_connection((s3.server.host, s3.server.port), timeout=60) as raw:
        head = f"POST /v1/transform?sink={s3.url}/early HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BIG)}\r\n\r\n"
        raw.sendall(head.encode() + BIG[: 9 * MIB])  # less than a half

        def part_is_there() -> bool:
            uploads = client.list_multipart_uploads(Bucket=s3.bucket, Prefix="early").get("Uploads", ())
            return any(
                client.list_parts(Bucket=s3.bucket, Key="early", UploadId=upload["UploadId"]).get("Parts")
                for upload in uploads
            )

        eventually(part_is_there)
        assert "early" not in s3.objects()
        raw.sendall(BIG[9 * MIB :])
        reply = http.client.HTTPResponse(raw)
        reply.begin()
        assert reply.status == 201
    assert s3.get("early") == BIG


def test_where_nobody_may_write(s3: Stored) -> None:
    for target, status, code in (
        ("s3://another/x", 403, "forbidden"),
        (f"s3://{s3.bucket}x/y", 403, "forbidden"),
        ("gs://x/y", 400, "bad_argument"),
        ("store:nowhere/x", 400, "bad_argument"),
        ("store:out/../x", 400, "bad_argument"),
    ):
        reply = httpx.post(f"{s3.server.transform}?sink={target}", content=b"x")
        assert (reply.status_code, reply.json()["code"]) == (status, code), target


def test_what_is_there_is_not_overwritten_unasked(s3: Stored) -> None:
    s3.put("mine", b"before")
    for query, headers in (("&overwrite=false", {}), ("", {"If-None-Match": "*"})):
        for content in (b"small", BIG):
            reply = httpx.post(
                f"{s3.server.transform}?sink={s3.url}/mine{query}", content=content, headers=headers, timeout=60
            )
            assert (reply.status_code, reply.json()["code"]) == (412, "precondition_failed")
    assert s3.get("mine") == b"before"
    assert httpx.post(f"{s3.server.transform}?sink={s3.url}/mine", content=b"after").status_code == 201
    assert s3.get("mine") == b"after"


def test_a_failure_after_many_parts_leaves_what_was_there(s3: Stored) -> None:
    s3.put("failed.csv", b"before")
    bad = CSV + CSV.split(b"\n", 1)[1] + b"x,y,z\n"
    reply = httpx.post(
        f"{s3.server.transform}?from=csv&derive=amount*2 as b&to=csv&sink={s3.url}/failed.csv", content=bad, timeout=120
    )
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_value")
    assert reply.json()["line"] == 800_002
    assert s3.get("failed.csv") == b"before"


def test_a_client_that_leaves_leaves_nothing(s3: Stored) -> None:
    with socket.create_connection((s3.server.host, s3.server.port)) as raw:
        head = f"POST /v1/transform?sink={s3.url}/left HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BIG)}\r\n\r\n"
        raw.sendall(head.encode() + BIG[: 18 * MIB])
        eventually(lambda: bool(s3.store.open_uploads(s3.bucket)))
    eventually(lambda: s3.server.runs()[0]["state"] == "cancelled")
    assert "left" not in s3.objects()


def test_a_directory_is_a_store_as_well(s3: Stored) -> None:
    reply = httpx.post(f"{s3.server.transform}?upper&sink=store:out/a/b.txt", content=b"text")
    assert reply.status_code == 201
    again = httpx.post(f"{s3.server.transform}?sink=store:out/a/b.txt&overwrite=false", content=b"other")
    assert again.status_code == 412
    run = httpx.post(f"{s3.server.url}/v1/runs", json={"source": "store:out/a/b.txt", "steps": ["lower"]})
    s3.ended(run.headers["weir-run-id"])
    assert s3.server.get(f"/v1/runs/{run.headers['weir-run-id']}/result") == b"text"


def test_an_object_to_an_object_and_to_a_kept_result(s3: Stored) -> None:
    s3.put("in.csv", CSV + b"x,bad,1\n")
    document = {
        "source": f"{s3.url}/in.csv",
        "steps": [{"where": "id < 10"}],
        "on_error": "quarantine",
        "to": "ndjson",
    }
    kept = httpx.post(f"{s3.server.url}/v1/runs", json=document)
    sent = httpx.post(f"{s3.server.url}/v1/runs", json=document | {"sink": f"{s3.url}/out.ndjson"})
    ids = [reply.headers["weir-run-id"] for reply in (kept, sent)]
    assert [reply.status_code for reply in (kept, sent)] == [202, 202]
    assert [reply.headers["location"] for reply in (kept, sent)] == [f"/v1/runs/{run_id}" for run_id in ids]
    ends = [s3.ended(run_id) for run_id in ids]
    assert [(end["state"], end["rows_in"], end["rows_out"], end["rows_rejected"]) for end in ends] == [
        ("succeeded", 400_000, 10, 1)
    ] * 2
    assert s3.server.get(f"/v1/runs/{ids[0]}/result") == s3.get("out.ndjson")
    assert httpx.get(f"{s3.server.url}/v1/runs/{ids[0]}/rejects").json()["line"] == 400_002
    assert httpx.get(f"{s3.server.url}/v1/runs/{ids[1]}/result").status_code == 404


def test_an_object_that_changes_is_not_read_as_one(s3: Stored) -> None:
    s3.put("changing", BIG)
    document = {"source": f"{s3.url}/changing", "sink": f"{s3.url}/changed"}
    run_id = httpx.post(f"{s3.server.url}/v1/runs", json=document).headers["weir-run-id"]
    s3.put("changing", BIG[::-1] + b"x")
    end = s3.ended(run_id)
    if end["state"] == "succeeded":  # it was read before, or after: never mixed
        assert s3.get("changed") in (BIG, BIG[::-1] + b"x")
    else:
        assert end["error"]["code"] == "object_changed"
        assert "changed" not in s3.objects()


def test_conditions_and_checksum_types_as_aws_has_them(
    localstack: ObjectStoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stored(tmp_path / "spool", localstack, monkeypatch) as s3:
        for size in (5, 21 * MIB):
            url = f"{s3.server.transform}?overwrite=false&sink={s3.url}/{size}"
            first = httpx.post(url, content=BIG[:size], timeout=60)
            assert first.status_code == 201
            head = localstack.client().head_object(Bucket=s3.bucket, Key=str(size), ChecksumMode="ENABLED")
            assert head["ChecksumCRC32"] == first.json()["crc32"]
            again = httpx.post(url, content=BIG[:size], timeout=60)
            assert (again.status_code, again.json()["code"]) == (412, "precondition_failed")
            assert s3.get(str(size)) == BIG[:size]
        s3.assert_nothing_open()
