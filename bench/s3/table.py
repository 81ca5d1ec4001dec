"""A CSV that becomes Parquet in a store: its peak of memory, when the first part was there, and DuckDB's figures."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.inputs import differences, expected_figures, lineitem_file, table_figures
from bench.memory import ALLOWED_MIB, BUDGET_MIB, peak_mib
from tests.object_store.server import ObjectStoreServer
from tests.server import Server, serving

_LOOK_S = 0.1


class FirstPart(threading.Thread):
    """Looks at the store until a part of an open upload is there, and then at how much of the input had come in."""

    def __init__(self, store: ObjectStoreServer, bucket: str, server: Server) -> None:
        super().__init__(daemon=True)
        self._client = store.client()
        self._bucket = bucket
        self._server = server
        self.input_bytes: int | None = None
        self.after_s: float | None = None
        self._ended = threading.Event()
        self.began = time.perf_counter()

    def run(self) -> None:
        while not self._is_there():
            if self._ended.wait(_LOOK_S):
                return
        self.after_s = time.perf_counter() - self.began
        self.input_bytes = self._server.runs()[0]["input_bytes"]

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()

    def _is_there(self) -> bool:
        for upload in self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", ()):
            where = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            if self._client.list_parts(**where).get("Parts"):
                return True
        return False


def to_parquet(store: ObjectStoreServer, folder: Path, scale: float) -> tuple[bool, list[str]]:
    """Whether memory and figures are as they must be, and lines that tell. The CSV, which is large, is removed."""
    source, bucket = lineitem_file(scale), store.fresh_bucket()
    nbytes = source.stat().st_size
    options: dict[str, Any] = {"s3_endpoint_url": store.endpoint_url, "s3_addressing": "path"}
    with serving(folder / "spool", **options, s3_allow=f"s3://{bucket}/", memory_budget=f"{BUDGET_MIB}MiB") as server:
        idle = peak_mib(server.pid)
        url = f"{server.transform}?from=csv&to=parquet&sink=s3://{bucket}/table"
        first = FirstPart(store, bucket, server)
        first.start()
        command = ["curl", "-sS", "--fail-with-body", "-T", str(source), url]
        answer = subprocess.run(command, check=True, capture_output=True).stdout
        seconds = time.perf_counter() - first.began
        first.end()
        peak = peak_mib(server.pid)
    receipt = json.loads(answer)
    with tempfile.NamedTemporaryFile(suffix=".parquet", dir=folder) as result:
        store.client().download_fileobj(bucket, "table", result)
        result.flush()
        found = table_figures(Path(result.name), "parquet")
    wrong = differences(found, expected_figures(source))
    source.unlink()
    seen = "not seen" if first.input_bytes is None else f"{first.input_bytes / nbytes:.2%} of the input"
    return not wrong and peak - idle <= BUDGET_MIB + ALLOWED_MIB, [
        f"{seconds:.0f} s, {nbytes / 1e6 / seconds:.0f} MB/s; {receipt['rows']:,} rows, {receipt['parts']} parts",
        f"peak {peak:.0f} MiB, {peak - idle:.0f} above idle ({idle:.0f}); {BUDGET_MIB + ALLOWED_MIB} above it are allowed",
        f"the first part was on the server after {seen}" + (f", {first.after_s:.1f} s" if first.after_s else ""),
        f"the figures are those of DuckDB over the same CSV: {f'NO, {wrong}' if wrong else 'yes'}",
    ]
