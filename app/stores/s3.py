"""Objects in a bucket of S3, or of a server that speaks it, by boto3's low-level client."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from app.core.errors import Refusal
from app.stores.objects import (
    TOKEN,
    NoSuchUpload,
    ObjectInfo,
    OpenUpload,
    PartLimits,
    Piece,
    SentPart,
    Transient,
    Writing,
    whole_crc32,
)
from app.stores.s3_body import PartBody
from app.stores.s3_errors import translated

_MIB = 1 << 20
_CONNECT_S = 5.0
_READ_S = 30.0
"""How long one answer may take. A part's bytes are sent within it as well, so it bounds how slow a store may be."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """``endpoint_url`` is None for AWS itself. ``connections``: how many calls may run at a time. ``equal_parts``: the
    store wants all parts of an object to be of one size, as R2 does."""

    endpoint_url: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    connections: int = 16
    equal_parts: bool = False


class S3Client:
    """boto3's client, made when it is first needed: it takes 30 MiB and a third of a second.

    Credentials and region come from the standard AWS chain. It never tries again by itself, and leaves the payload
    unsigned: each body carries its CRC-32, which is signed and which the server verifies.
    """

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self._guard = threading.Lock()
        self._client: Any = None

    def get(self) -> Any:
        """The client; from any thread."""
        with self._guard:
            if self._client is None:
                self._client = self._make()
            return self._client

    def close(self) -> None:
        """Close its connections."""
        with self._guard:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _make(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": self.options.addressing, "payload_signing_enabled": False},
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            max_pool_connections=self.options.connections,
            tcp_keepalive=True,
        )
        session = boto3.session.Session()
        region = session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=self.options.endpoint_url, region_name=region, config=config)


class S3Bucket:
    """See ``ObjectStore``. Limits are those of S3 (10,000 parts of 5 MiB to 5 GiB, 5 TiB in all)."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.limits = PartLimits(5 * _MIB, 5 << 30, 10_000, 5 << 40, client.options.equal_parts)
        self._client = client
        self._bucket = bucket

    def url(self, key: str) -> str:
        """See ``ObjectStore.url``."""
        return f"s3://{self._bucket}/{key}"

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        with self._calling(key) as call:
            reply = call.head_object(Bucket=self._bucket, Key=key)
        modified_at = self._said(key, reply, "LastModified").timestamp()
        nbytes, etag = self._said(key, reply, "ContentLength"), self._said(key, reply, "ETag")
        return ObjectInfo(key, nbytes, etag, modified_at, reply.get("Metadata", {}))

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        if not nbytes:
            return
        asked = f"bytes={offset}-{offset + nbytes - 1}"
        with self._calling(key, changed="object_changed") as call:
            reply = call.get_object(Bucket=self._bucket, Key=key, Range=asked, IfMatch=etag)
            body = reply["Body"]
            try:
                # A store may not know If-Match, or Range.
                if self._said(key, reply, "ETag") != etag or self._said(key, reply, "ContentLength") != nbytes:
                    raise Refusal("object_changed", f"{self.url(key)} changed while it was read")
                while piece := body.read(piece_bytes):
                    yield piece
            finally:
                body.close()

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        with closing(PartBody(pieces)) as body, self._calling(key) as call:
            nbytes = body.nbytes
            reply = call.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ChecksumCRC32=_base64(crc32),
                **_condition(writing),
                **_described(writing),
            )
        return ObjectInfo(key, nbytes, self._said(key, reply, "ETag"), 0.0, {})

    def begin(self, key: str, writing: Writing) -> str:
        """See ``ObjectStore.begin``."""
        with self._calling(key) as call:
            reply = call.create_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                ChecksumAlgorithm="CRC32",
                ChecksumType="FULL_OBJECT",
                **_described(writing),
            )
        return str(self._said(key, reply, "UploadId"))

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        """See ``ObjectStore.put_part``."""
        with closing(PartBody(pieces)) as body, self._calling(key) as call:
            reply = call.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
                ChecksumCRC32=_base64(crc32),
            )
        return SentPart(number, offset, body.nbytes, crc32, self._said(key, reply, "ETag"))

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.complete``. The store compares the CRC-32 and the size of the whole."""
        nbytes, crc32 = sum(part.nbytes for part in parts), whole_crc32(parts)
        sent = [{"PartNumber": part.number, "ETag": part.etag, "ChecksumCRC32": _base64(part.crc32)} for part in parts]
        with self._calling(key) as call:
            reply = call.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": sent},
                ChecksumCRC32=_base64(crc32),
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=nbytes,
                **_condition(writing),
            )
        return ObjectInfo(key, nbytes, self._said(key, reply, "ETag"), 0.0, {})

    def abort(self, key: str, upload_id: str) -> None:
        """See ``ObjectStore.abort``."""
        try:
            with self._calling(key) as call:
                call.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except Refusal as refusal:
            if refusal.code == "not_found":  # as some servers say of one that was completed
                raise NoSuchUpload(refusal.detail) from refusal
            raise

    def uploads(self, prefix: str) -> list[OpenUpload]:
        """See ``ObjectStore.uploads``."""
        found: list[OpenUpload] = []
        with self._calling(prefix) as call:
            pages = call.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                found += [
                    OpenUpload(upload["Key"], upload["UploadId"], upload["Initiated"].timestamp())
                    for upload in page.get("Uploads", ())
                ]
        return found

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        with contextlib.suppress(NoSuchUpload), self._calling(key) as call:
            call.delete_object(Bucket=self._bucket, Key=key)

    def _said(self, key: str, reply: Any, name: str) -> Any:
        """What an answer must say. One that was cut behind its first line looks like a success, and says nothing."""
        if not reply.get(name) and reply.get(name) != 0:
            raise Transient("reset", f"{self.url(key)}: the store answered without {name}")
        return reply[name]

    @contextlib.contextmanager
    def _calling(self, key: str, changed: str = "precondition_failed") -> Iterator[Any]:
        with translated(self.url(key), changed=changed):
            yield self._client.get()


def _base64(crc32: int) -> str:
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def _condition(writing: Writing) -> dict[str, str]:
    return {} if writing.overwrite else {"IfNoneMatch": "*"}


def _described(writing: Writing) -> dict[str, Any]:
    described: dict[str, Any] = {"ContentType": writing.media_type, "Metadata": {TOKEN: writing.token}}
    if writing.coding is not None:
        described["ContentEncoding"] = writing.coding
    return described
