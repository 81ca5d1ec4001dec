"""S3 in and out beside AWS's own clients, on the same real server in the same run; and the memory that it takes.

Run by ``make bench-objects``. Contenders take turns; figures are medians. Every object is compared by its SHA-256, the
table by DuckDB's figures of the same CSV. CPU is that of the client alone: of Weir the server process, without the curl
that feeds it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.inputs import cache_folder, differences, expected_figures, lineitem_file, table_figures, text
from bench.memory import peak_mib
from tests.object_store.server import ObjectStoreServer
from tests.object_store.swift import swift
from tests.server import Server, serving

GIB = 1 << 30
BUDGET_MIB, ALLOWED_MIB = 128, 64
CRT = "boto3[crt]==1.42.*"

_BOTO3 = """
import boto3, sys
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
way, bucket, key, path, client = sys.argv[1:]
s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
config = TransferConfig(preferred_transfer_client=client)
if way == "up":
    s3.upload_file(path, bucket, key, Config=config)
elif way == "down":
    s3.download_file(bucket, key, path, Config=config)
else:
    body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    with open(path, "wb", buffering=0) as file:
        while piece := body.read(1 << 20):
            file.write(piece)
"""


@dataclass(slots=True)
class Timed:
    """One contender's rounds."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    verdict: str = "same"


@dataclass(frozen=True, slots=True)
class Scene:
    """A bucket, a server of ours, and files to send and to fetch."""

    store: ObjectStoreServer
    bucket: str
    server: Server
    out: Path
    source: Path

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def digest_of(self, key: str) -> str:
        found = hashlib.sha256()
        body = self.store.client().get_object(Bucket=self.bucket, Key=key)["Body"]
        while piece := body.read(1 << 20):
            found.update(piece)
        return found.hexdigest()


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def children() -> Iterator[list[float]]:
    """CPU seconds of the processes that were begun and ended within."""
    before, spent = resource.getrusage(resource.RUSAGE_CHILDREN), [0.0]
    yield spent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent[0] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def weir_up(scene: Scene) -> float:
    before = cpu_of(scene.server.pid)
    command = ["curl", "-sS", "-f", "-T", scene.source, f"{scene.server.transform}?sink={scene.url('weir-up')}"]
    subprocess.run(command, check=True, capture_output=True)
    return cpu_of(scene.server.pid) - before


def weir_down(scene: Scene) -> float:
    before = cpu_of(scene.server.pid)
    document = {"source": scene.url("in"), "sink": "store:out/weir-down"}
    run_id = httpx.post(f"{scene.server.url}/v1/runs", json=document, timeout=30).headers["weir-run-id"]
    while (record := scene.server.run(run_id, wait_s=60))["state"] in ("accepted", "running"):
        pass
    if record["state"] != "succeeded":
        raise RuntimeError(str(record["error"]))
    return cpu_of(scene.server.pid) - before


def boto3(way: str, client: str, python: Path) -> Callable[[Scene], float]:
    def run(scene: Scene) -> float:
        key = {"up": f"{client}-up"}.get(way, "in")
        path = scene.source if way == "up" else scene.out / f"{client}-{way}"
        with children() as spent:
            command = [python, "-c", _BOTO3, way, scene.bucket, key, path, client]
            subprocess.run(command, check=True, env=os.environ | scene.store.environment(), capture_output=True)
        return spent[0]

    return run


def crt_python() -> Path:
    """A virtualenv with AWS's C client, the engine of the AWS CLI's fast transfers."""
    folder = cache_folder() / "crt"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", CRT], check=True)
        (folder / ".installed").touch()
    return python


def transfers(scene: Scene, rounds: int, digest: str) -> None:
    crt, ours = crt_python(), Path(sys.executable)
    works: dict[str, list[tuple[str, Callable[[Scene], float], str]]] = {
        "upload": [
            ("Weir", weir_up, "weir-up"),
            ("boto3 upload_file", boto3("up", "classic", ours), "classic-up"),
            ("boto3 upload_file, CRT", boto3("up", "crt", crt), "crt-up"),
        ],
        "download": [
            ("Weir", weir_down, "weir-down"),
            ("boto3 download_file", boto3("down", "classic", ours), "classic-down"),
            ("boto3 get_object, streamed", boto3("get", "classic", ours), "classic-get"),
            ("boto3 download_file, CRT", boto3("down", "crt", crt), "crt-down"),
        ],
    }
    size_gib = scene.source.stat().st_size / GIB
    for work, contenders in works.items():
        results = [Timed(name) for name, _, _ in contenders]
        for _ in range(rounds):
            for result, (_, run, made) in zip(results, contenders, strict=True):
                if result.verdict != "same":
                    continue
                os.sync()
                began = time.perf_counter()
                try:
                    cpu_s = run(scene)
                except (subprocess.CalledProcessError, RuntimeError) as error:
                    said = getattr(error, "stderr", None) or str(error).encode()
                    result.verdict = f"failed: {said.decode(errors='replace').strip().splitlines()[-1][:120]}"
                    continue
                result.seconds.append(time.perf_counter() - began)
                result.cpu_s.append(cpu_s)
                found = scene.digest_of(made) if work == "upload" else file_digest(scene.out / made)
                result.verdict = "same" if found == digest else "DIFFERS"
        print(f"\n### {work}, {size_gib:.2f} GiB, median of {rounds}\n\n| | MB/s | CPU s/GiB | Weir is | object |")
        print("|---|---:|---:|---:|---|")
        for result in results:
            if not result.seconds:
                print(f"| {result.name} | | | | {result.verdict} |")
                continue
            speed, cpu_s = size_gib * GIB / 1e6 / median(result.seconds), median(result.cpu_s) / size_gib
            ratio = median(result.seconds) / median(results[0].seconds)
            print(f"| {result.name} | {speed:.0f} | {cpu_s:.2f} | {ratio:.2f}x | {result.verdict} |")


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    path.unlink()
    return found


def memory(store: ObjectStoreServer, spool: Path, scale: float) -> None:
    """A CSV to Parquet in the store: the peak, when the first part was there, and whether it is DuckDB's table."""
    source, bucket = lineitem_file(scale), store.fresh_bucket()
    size, early = source.stat().st_size, [-1.0]
    options: dict[str, Any] = {"s3_endpoint_url": store.endpoint_url, "s3_addressing": "path"}
    with serving(spool, **options, s3_allow=f"s3://{bucket}/", memory_budget=f"{BUDGET_MIB}MiB") as server:
        idle = peak_mib(server.pid)
        url = f"{server.transform}?from=csv&to=parquet&sink=s3://{bucket}/table"

        def watch() -> None:
            client = store.client()
            while early[0] < 0:
                for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
                    where = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    if client.list_parts(**where).get("Parts"):
                        early[0] = server.runs()[0]["input_bytes"] / size
                time.sleep(0.1)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        began = time.perf_counter()
        answer = subprocess.run(["curl", "-sS", "-T", source, url], check=True, capture_output=True).stdout
        seconds = time.perf_counter() - began
        peak = peak_mib(server.pid)
    receipt = json.loads(answer)
    with tempfile.NamedTemporaryFile(suffix=".parquet", dir=spool.parent) as result:
        store.client().download_fileobj(bucket, "table", result)
        result.flush()
        found = table_figures(Path(result.name), "parquet", filtered=False)
    wrong = differences(found, expected_figures(source, filtered=False))
    print(f"\n### {size / GIB:.2f} GiB of CSV to Parquet in the store, MEMORY_BUDGET={BUDGET_MIB}MiB\n")
    print(f"- {seconds:.0f} s, {size / 1e6 / seconds:.0f} MB/s; {receipt['rows']:,} rows in {receipt['parts']} parts")
    print(f"- peak {peak:.0f} MiB, idle {idle:.0f} MiB: {peak - idle:.0f} above it, {BUDGET_MIB + ALLOWED_MIB} allowed")
    print(f"- the first part was on the server when {early[0]:.1%} of the upload had come in")
    print(f"- {'the figures are those of DuckDB' if not wrong else f'DIFFERS in {wrong}'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the object that is sent and fetched")
    parser.add_argument("--scale", type=float, default=7.0, help="TPC-H scale of the CSV (7 is 5 GiB); 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder, swift(Path(folder) / "swift") as store:
        os.environ.update(store.environment())
        if asked.mib:
            source, bucket, out = text(asked.mib).path, store.fresh_bucket(), Path(folder) / "out"
            out.mkdir()
            store.client().upload_file(str(source), bucket, "in")
            options: dict[str, Any] = {"s3_endpoint_url": store.endpoint_url, "s3_addressing": "path"}
            allowed = {"s3_allow": f"s3://{bucket}/", "stores": f"out={out}"}
            with serving(Path(folder) / "spool", **options, **allowed) as server:
                scene = Scene(store, bucket, server, out, source)
                with source.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                transfers(scene, asked.rounds, digest)
        if asked.scale:
            memory(store, Path(folder) / "memory", asked.scale)


if __name__ == "__main__":
    main()
