"""A server of ours over a real S3 server, and what has to hold once a test is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.object_store.server import ObjectStoreServer
from tests.server import Server, eventually, serving


@dataclass
class Stored:
    """``endpoint_url`` is where our server finds the store: at itself, or behind a proxy that fails."""

    server: Server
    store: ObjectStoreServer
    bucket: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    def put(self, key: str, data: bytes) -> None:
        self.store.client().put_object(Bucket=self.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.store.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def objects(self) -> set[str]:
        pages = self.store.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {found["Key"] for page in pages for found in page.get("Contents", ())}

    def ended(self, run_id: str, within_s: float = 60.0) -> dict[str, Any]:
        """The record of a run once it is final."""
        until = time.monotonic() + within_s
        while (record := self.server.run(run_id))["state"] in ("accepted", "running"):
            assert time.monotonic() < until, record
        return record

    def assert_nothing_open(self, within_s: float = 60.0) -> None:
        eventually(lambda: not self.store.open_uploads(self.bucket), within_s=within_s)
        self.server.assert_at_rest(within_s=20)


@contextlib.contextmanager
def stored(
    spool: Path,
    store: ObjectStoreServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    bucket: str | None = None,
    endpoint_url: str | None = None,
    **settings: Any,
) -> Iterator[Stored]:
    for name, value in store.environment().items():
        if name != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(name, value)
    bucket = bucket or store.fresh_bucket()
    places = {"s3_endpoint_url": endpoint_url or store.endpoint_url, "s3_addressing": "path"}
    with serving(spool, **places | {"s3_allow": f"s3://{bucket}/"} | settings) as server:
        yield Stored(server, store, bucket)
