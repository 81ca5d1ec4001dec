"""The servers and the proxy do what the tests of the S3 store rely on, as plain boto3 sees it, without retries."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from tests.object_store.fault_proxy import FaultProxy
from tests.object_store.faults import Always, Asked, Dice, Fault, Script
from tests.object_store.operation import operation_of
from tests.object_store.server import ObjectStoreServer
from tests.object_store.swift import swift as run_swift

DATA = bytes(range(256)) * 1000
MIN_PART_BYTES = 5 << 20


def code_of(call: Callable[[], Any]) -> str:
    """The error that S3 answered with."""
    with pytest.raises(ClientError) as caught:
        call()
    code: str = caught.value.response["Error"]["Code"]
    return code


def body_of(client: Any, bucket: str, key: str, **wanted: str) -> bytes:
    body: bytes = client.get_object(Bucket=bucket, Key=key, **wanted)["Body"].read()
    return body


@pytest.fixture(params=["swift", "localstack"])
def either(request: pytest.FixtureRequest) -> ObjectStoreServer:
    server: ObjectStoreServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def proxy(swift: ObjectStoreServer) -> Iterator[FaultProxy]:
    with FaultProxy(swift.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def through(swift: ObjectStoreServer, proxy: FaultProxy) -> Iterator[Any]:
    client = swift.client(endpoint_url=proxy.endpoint_url, read_timeout=5)
    yield client
    client.close()


@pytest.fixture
def client(swift: ObjectStoreServer) -> Iterator[Any]:
    client = swift.client()
    yield client
    client.close()


class Upload:
    """A multipart upload, call by call."""

    def __init__(self, client: Any, bucket: str, key: str, **wanted: str) -> None:
        self.client = client
        self.of = {"Bucket": bucket, "Key": key}
        self.of["UploadId"] = client.create_multipart_upload(**self.of, **wanted)["UploadId"]
        self.parts: list[dict[str, Any]] = []
        self.shows_sums = "ChecksumAlgorithm" in wanted

    def part(self, body: bytes, **wanted: str) -> None:
        number = len(self.parts) + 1
        reply = self.client.upload_part(**self.of, PartNumber=number, Body=body, **wanted)
        sums = {name: value for name, value in reply.items() if name.startswith("Checksum") and self.shows_sums}
        self.parts.append({"PartNumber": number, "ETag": reply["ETag"], **sums})

    def complete(self, **wanted: Any) -> Any:
        return self.client.complete_multipart_upload(**self.of, MultipartUpload={"Parts": self.parts}, **wanted)

    def abort(self) -> None:
        self.client.abort_multipart_upload(**self.of)


class TestBothServers:
    def test_an_object_in_one_put(self, either: ObjectStoreServer) -> None:
        bucket, client = either.fresh_bucket(), either.client()
        client.put_object(Bucket=bucket, Key="a b/é", Body=DATA)
        etag = client.head_object(Bucket=bucket, Key="a b/é")["ETag"]
        assert body_of(client, bucket, "a b/é", Range="bytes=5-9", IfMatch=etag) == DATA[5:10]
        assert code_of(lambda: body_of(client, bucket, "a b/é", IfMatch='"0"')) == "PreconditionFailed"
        assert code_of(lambda: body_of(client, bucket, "none")) == "NoSuchKey"
        assert code_of(lambda: body_of(client, "no-such-bucket", "none")) == "NoSuchBucket"

    def test_an_object_in_parts(self, either: ObjectStoreServer) -> None:
        bucket, client = either.fresh_bucket(), either.client()
        upload = Upload(client, bucket, "parts")
        upload.part(bytes(MIN_PART_BYTES))
        upload.part(DATA)
        assert either.open_uploads(bucket) == [("parts", upload.of["UploadId"])]
        assert code_of(lambda: body_of(client, bucket, "parts")) == "NoSuchKey"
        upload.complete()
        assert either.open_uploads(bucket) == []
        assert body_of(client, bucket, "parts") == bytes(MIN_PART_BYTES) + DATA

    def test_an_aborted_upload_leaves_nothing(self, either: ObjectStoreServer) -> None:
        bucket, client = either.fresh_bucket(), either.client()
        upload = Upload(client, bucket, "parts")
        upload.part(DATA)
        upload.abort()
        assert either.open_uploads(bucket) == []
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)
        assert code_of(upload.abort) == "NoSuchUpload"
        assert code_of(upload.complete) == "NoSuchUpload"

    @pytest.mark.parametrize("name", ["ContentMD5", "ChecksumCRC32", "ChecksumCRC64NVME", "ChecksumSHA256"])
    def test_a_wrong_digest_is_refused(self, either: ObjectStoreServer, name: str) -> None:
        digests = {"ContentMD5": hashlib.md5(b"x").digest(), "ChecksumSHA256": hashlib.sha256(b"x").digest()}
        size_bytes = 8 if name == "ChecksumCRC64NVME" else 4
        wrong = {name: base64.b64encode(digests.get(name, bytes(size_bytes))).decode()}
        bucket, client = either.fresh_bucket(), either.client(request_checksum_calculation="when_required")
        assert code_of(lambda: client.put_object(Bucket=bucket, Key="a", Body=DATA, **wrong)) == "BadDigest"
        upload = Upload(client, bucket, "parts")
        assert code_of(lambda: upload.part(DATA, **wrong)) == "BadDigest"
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)

    def test_an_object_is_not_replaced_if_none_may_be_there(self, either: ObjectStoreServer) -> None:
        bucket, client = either.fresh_bucket(), either.client()
        client.put_object(Bucket=bucket, Key="a", Body=b"first", IfNoneMatch="*")
        second = {"Bucket": bucket, "Key": "a", "Body": b"second", "IfNoneMatch": "*"}
        assert code_of(lambda: client.put_object(**second)) == "PreconditionFailed"
        upload = Upload(client, bucket, "a")
        upload.part(b"third")
        assert code_of(lambda: upload.complete(IfNoneMatch="*")) == "PreconditionFailed"
        assert body_of(client, bucket, "a") == b"first"
        assert len(either.open_uploads(bucket)) == 1

    def test_a_payload_need_not_be_signed(self, either: ObjectStoreServer) -> None:
        unsigned = {"addressing_style": "path", "payload_signing_enabled": False}
        bucket, client = either.fresh_bucket(), either.client(s3=unsigned, request_checksum_calculation="when_required")
        client.put_object(Bucket=bucket, Key="a", Body=DATA)
        assert body_of(client, bucket, "a") == DATA


class TestSwift:
    def test_refuses_a_bad_signature(self, swift: ObjectStoreServer) -> None:
        bucket = swift.fresh_bucket()
        forger = swift.client(secret_key="guessed")
        assert code_of(lambda: forger.put_object(Bucket=bucket, Key="a", Body=b"")) == "SignatureDoesNotMatch"

    def test_takes_ten_thousand_parts(self, swift: ObjectStoreServer, client: Any) -> None:
        bucket = swift.fresh_bucket()
        last = {"PartNumber": 10_000, "Body": b"x"}
        upload = Upload(client, bucket, "parts")
        client.upload_part(**upload.of, **last)
        assert code_of(lambda: client.upload_part(**upload.of, **(last | {"PartNumber": 10_001}))) == "InvalidArgument"

    def test_loses_nothing_when_killed(self, tmp_path: Path) -> None:
        with run_swift(tmp_path / "own") as swift:
            bucket, client = swift.fresh_bucket(), swift.client()
            client.put_object(Bucket=bucket, Key="whole", Body=DATA)
            upload = Upload(client, bucket, "parts")
            upload.part(DATA)
            swift.kill()
            swift.restart()
            assert body_of(client, bucket, "whole") == DATA
            assert swift.open_uploads(bucket) == [("parts", upload.of["UploadId"])]
            upload.part(DATA)
            upload.complete()
            assert body_of(client, bucket, "parts") == DATA + DATA


class TestLocalStack:
    def test_one_of_many_who_want_the_same_key_gets_it(self, localstack: ObjectStoreServer) -> None:
        bucket, client = localstack.fresh_bucket(), localstack.client(max_pool_connections=8)

        def put(number: int) -> str:
            try:
                client.put_object(Bucket=bucket, Key="a", Body=bytes((number,)) * 100_000, IfNoneMatch="*")
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return "won"

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(put, range(8)))
        assert sorted(outcomes) == ["PreconditionFailed"] * 7 + ["won"]
        assert body_of(client, bucket, "a") == bytes((outcomes.index("won"),)) * 100_000

    def test_verifies_the_checksum_of_the_whole_object(self, localstack: ObjectStoreServer) -> None:
        bucket, client = localstack.fresh_bucket(), localstack.client()
        upload = Upload(client, bucket, "a", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
        upload.part(bytes(MIN_PART_BYTES))
        upload.part(b"end")
        assert code_of(lambda: upload.complete(MpuObjectSize=7)) == "InvalidRequest"
        whole = {"ChecksumType": "FULL_OBJECT", "MpuObjectSize": MIN_PART_BYTES + 3}
        assert code_of(lambda: upload.complete(ChecksumCRC32="AAAAAA==", **whole)) == "BadDigest"
        assert upload.complete(**whole)["ChecksumType"] == "FULL_OBJECT"


class TestFaultProxy:
    def test_passes_everything_on(self, swift: ObjectStoreServer, proxy: FaultProxy, through: Any) -> None:
        bucket = swift.fresh_bucket()
        upload = Upload(through, bucket, "a")
        upload.part(DATA * 20)
        upload.complete()
        assert body_of(through, bucket, "a") == DATA * 20
        assert through.head_object(Bucket=bucket, Key="a")["ContentLength"] == len(DATA) * 20
        assert proxy.counts["pass"] == 5
        assert proxy.counts["UploadPart pass"] == 1

    def test_drops_a_request(self, swift: ObjectStoreServer, proxy: FaultProxy, through: Any, client: Any) -> None:
        bucket = swift.fresh_bucket()
        proxy.plan = Always({"PutObject": Fault.DROP_REQUEST})
        with pytest.raises(ConnectionClosedError):
            through.put_object(Bucket=bucket, Key="a", Body=DATA)
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)

    def test_loses_a_reply(self, swift: ObjectStoreServer, proxy: FaultProxy, through: Any, client: Any) -> None:
        bucket = swift.fresh_bucket()
        proxy.plan = Script({"PutObject": [Fault.LOSE_REPLY]})
        with pytest.raises(ConnectionClosedError):
            through.put_object(Bucket=bucket, Key="a", Body=DATA)
        assert body_of(client, bucket, "a") == DATA
        through.put_object(Bucket=bucket, Key="a", Body=DATA)
        assert proxy.counts["PutObject lose_reply"] == proxy.counts["PutObject pass"] == 1

    @pytest.mark.parametrize("fault", [Fault.DELAY_REQUEST, Fault.DELAY_REPLY])
    def test_delays(self, swift: ObjectStoreServer, proxy: FaultProxy, client: Any, fault: Fault) -> None:
        bucket = swift.fresh_bucket()
        proxy.plan = Always({"PutObject": fault})
        proxy.delay_s = 2.0  # until it is over, boto3 has waited a second for the server's leave to send
        hasty = swift.client(endpoint_url=proxy.endpoint_url, read_timeout=0.3)
        with pytest.raises((ReadTimeoutError, ConnectionClosedError)):
            hasty.put_object(Bucket=bucket, Key="a", Body=b"late")
        hasty.close()
        assert ("Contents" in client.list_objects_v2(Bucket=bucket)) is (fault is Fault.DELAY_REPLY)
        deadline = time.monotonic() + 10
        while "Contents" not in client.list_objects_v2(Bucket=bucket):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert body_of(client, bucket, "a") == b"late"

    @pytest.mark.parametrize(
        ("fault", "status", "code"),
        [(Fault.SLOW_DOWN, 503, "SlowDown"), (Fault.INTERNAL_ERROR, 500, "InternalError")],
    )
    def test_refuses(
        self,
        swift: ObjectStoreServer,
        proxy: FaultProxy,
        through: Any,
        client: Any,
        fault: Fault,
        status: int,
        code: str,
    ) -> None:
        bucket = swift.fresh_bucket()
        proxy.plan = Script({"PutObject": [fault], "GetObject": [fault]})
        put = {"Bucket": bucket, "Key": "a", "Body": DATA}
        with pytest.raises(ClientError) as caught:
            through.put_object(**put)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert caught.value.response["Error"]["Code"] == code
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)
        through.put_object(**put)
        assert code_of(lambda: body_of(through, bucket, "a")) == code
        assert body_of(through, bucket, "a") == DATA

    def test_cuts_a_reply(self, swift: ObjectStoreServer, proxy: FaultProxy, through: Any, client: Any) -> None:
        bucket = swift.fresh_bucket()
        client.put_object(Bucket=bucket, Key="a", Body=DATA)
        cut = Fault.CUT_REPLY
        proxy.plan = Script({"GetObject": [cut], "HeadObject": [cut], "ListObjectsV2": [cut], "PutObject": [cut]})
        body = through.get_object(Bucket=bucket, Key="a")["Body"]
        with pytest.raises((IncompleteReadError, ResponseStreamingError)):
            list(body.iter_chunks(1 << 16))
        assert code_of(lambda: through.list_objects_v2(Bucket=bucket)) == "500"
        assert "ETag" not in through.head_object(Bucket=bucket, Key="a")
        assert "ETag" not in through.put_object(Bucket=bucket, Key="a", Body=b"other")
        assert body_of(through, bucket, "a") == b"other"

    @pytest.mark.parametrize("is_signed", [True, False])
    def test_corrupts_a_body(self, swift: ObjectStoreServer, proxy: FaultProxy, client: Any, is_signed: bool) -> None:
        bucket = swift.fresh_bucket()
        proxy.plan = Always({"UploadPart": Fault.CORRUPT_BODY})
        signing = {"addressing_style": "path", "payload_signing_enabled": is_signed}
        through = swift.client(endpoint_url=proxy.endpoint_url, s3=signing)
        upload = Upload(through, bucket, "a")
        assert code_of(lambda: upload.part(DATA)) == ("XAmzContentSHA256Mismatch" if is_signed else "BadDigest")
        through.close()
        assert "Parts" not in client.list_parts(**upload.of)

    @pytest.mark.parametrize("fault", [Fault.ERROR_IN_200_DONE, Fault.ERROR_IN_200_NOT_DONE])
    def test_answers_200_with_an_error(
        self, swift: ObjectStoreServer, proxy: FaultProxy, through: Any, client: Any, fault: Fault
    ) -> None:
        bucket = swift.fresh_bucket()
        proxy.plan = Script({"CompleteMultipartUpload": [fault]})
        upload = Upload(through, bucket, "a")
        upload.part(DATA)
        assert code_of(upload.complete) == "InternalError"
        is_open = bool(swift.open_uploads(bucket))
        assert is_open is (fault is Fault.ERROR_IN_200_NOT_DONE)
        upload.complete()
        assert body_of(client, bucket, "a") == DATA


class TestPlans:
    def test_dice_fall_alike_for_a_seed(self) -> None:
        asked = [Asked(operation, number, 0) for number in range(200) for operation in ("UploadPart", "GetObject")]
        dice = Dice(seed=1, rate=0.3)
        fell = [dice(one) for one in asked]
        assert fell == [dice(one) for one in asked] != [Dice(seed=2, rate=0.3)(one) for one in asked]
        assert set(fell) == set(Fault)
        assert 80 < len([fault for fault in fell if fault is not Fault.PASS]) < 160
        assert {dice(Asked("UploadPart", number, 2)) for number in range(200)} == {Fault.PASS}

    def test_operations_are_told_apart(self) -> None:
        for line, operation in {
            "PUT /b": "CreateBucket",
            "PUT /b/k": "PutObject",
            "PUT /b/k/l?partNumber=1&uploadId=u": "UploadPart",
            "POST /b/k?uploads": "CreateMultipartUpload",
            "POST /b/k?uploadId=u": "CompleteMultipartUpload",
            "DELETE /b/k?uploadId=u": "AbortMultipartUpload",
            "DELETE /b/k": "DeleteObject",
            "GET /b/k?uploadId=u": "ListParts",
            "GET /b/k": "GetObject",
            "GET /b?uploads": "ListMultipartUploads",
            "GET /b/?list-type=2&prefix=": "ListObjectsV2",
            "HEAD /b/k": "HeadObject",
            "GET /": "ListObjects",
            "OPTIONS /b": "OPTIONS",
        }.items():
            assert operation_of(*line.split(" ")) == operation, line
