"""S3 in and out beside AWS's own clients, on the same real servers in the same run; and the memory that it takes.

Run by ``make bench-objects``. Contenders take turns; figures are medians. Every object is compared by its SHA-256, the
table by DuckDB's figures of the same CSV. A download is over when the file is on disk (fsync). CPU is that of the client
alone: of Weir the server process, without the curl that feeds it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.client import Failed
from bench.compiler import Absent
from bench.inputs import cache_folder, digest, text
from bench.report import machine_line
from bench.s3.clients import WORKS, Client, Scene, Spent, cpu_of, touch_memory
from bench.s3.servers import STORES
from bench.s3.table import to_parquet
from tests.object_store.server import ObjectStoreServer

_GIB = 1 << 30


@dataclass(slots=True)
class Rounds:
    """What came of one contender. ``store_s`` is the CPU time of the S3 server meanwhile."""

    name: str
    client: Client
    spent: list[Spent] = field(default_factory=list)
    store_s: list[float] = field(default_factory=list)
    verdict: str = "same"


def compare(work: str, scene: Scene, rounds: int, expected: str) -> list[Rounds]:
    results = [Rounds(name, client) for name, client in WORKS[work]]
    for _ in range(rounds):
        for result in results:
            if result.verdict not in ("same", "same size"):
                continue
            os.sync()
            touch_memory()
            before = cpu_of(scene.store.pid)
            try:
                spent = result.client(scene)
            except (Failed, Absent) as error:
                result.verdict = f"FAILED: {error}"
                continue
            result.spent.append(spent)
            result.store_s.append(cpu_of(scene.store.pid) - before)
            result.verdict = check(work, scene, expected)
            print(f"  {work}, {result.name}: {spent.seconds:.2f} s, {result.verdict}", file=sys.stderr, flush=True)
    return results


def check(work: str, scene: Scene, expected: str) -> str:
    """Look at the whole of what was made, and remove it."""
    if work == "read":
        return "same size"
    if work == "download":
        found = digest(scene.out, None)
        scene.out.unlink()
    else:
        client, where = scene.store.client(read_timeout=120), {"Bucket": scene.bucket, "Key": "made"}
        seen, body = hashlib.sha256(), client.get_object(**where)["Body"]
        while piece := body.read(1 << 20):
            seen.update(piece)
        found = seen.hexdigest()
        client.delete_object(**where)
    return "same" if found == expected else "DIFFERS"


def table(work: str, store: str, nbytes: int, rounds: int, results: list[Rounds]) -> str:
    """The ratio says how many times as fast as the contender of that line Weir is."""
    gib, ours = nbytes / _GIB, results[0]
    columns = ["MB/s", "slowest to fastest", "CPU s/GiB", "peak MiB", "store's CPU s/GiB", "Weir is", "object"]
    lines = [
        f"\n### {work}, {store} ({nbytes / 1e6:,.0f} MB; median of {rounds})\n",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * (len(columns) - 1) + "---|",
    ]
    for result in results:
        if not result.spent:
            lines.append(f"| {result.name} |" + " |" * (len(columns) - 1) + f" {result.verdict} |")
            continue
        seconds = [spent.seconds for spent in result.spent]
        is_other = result is not ours and ours.spent
        cells = [
            f"{nbytes / 1e6 / median(seconds):.0f}",
            f"{nbytes / 1e6 / max(seconds):.0f} to {nbytes / 1e6 / min(seconds):.0f}",
            f"{median(spent.cpu_s for spent in result.spent) / gib:.2f}",
            f"{max(spent.peak_mib for spent in result.spent):.0f}",
            f"{median(result.store_s) / gib:.2f}",
            f"{median(seconds) / median(spent.seconds for spent in ours.spent):.2f}x" if is_other else "",
            result.verdict,
        ]
        lines.append(f"| {result.name} | " + " | ".join(cells) + " |")
    if ours.spent:
        feeder_s = median(spent.feeder_s for spent in ours.spent) / gib
        above = max(spent.peak_mib - spent.idle_mib for spent in ours.spent)
        fed = f"; the curl that feeds it takes {feeder_s:.2f} CPU s/GiB" if feeder_s else ""
        lines.append(f"\nWeir's peak is {above:.0f} MiB above idle{fed}.")
    return "\n".join(lines)


def transfers(name: str, store: ObjectStoreServer, folder: Path, works: list[str], source: Path, rounds: int) -> bool:
    """True if all went well."""
    bucket, expected, well = store.fresh_bucket(), digest(source, None), True
    store.client().upload_file(str(source), bucket, "in")
    scene = Scene(store, bucket, source, folder)
    scene.out.parent.mkdir()
    for work in works:
        results = compare(work, scene, rounds, expected)
        print(table(work, name, source.stat().st_size, rounds, results), flush=True)
        well &= not any(result.verdict.startswith(("DIFFERS", "FAILED")) for result in results)
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the object that is sent and fetched")
    parser.add_argument("--scale", type=float, default=7.0, help="TPC-H scale of the CSV (7 is 5 GiB); 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), help="what is timed")
    asked = parser.parse_args()
    well, began = True, time.time()
    for name in asked.stores:
        with tempfile.TemporaryDirectory(dir=cache_folder()) as made:
            folder = Path(made)
            try:
                with STORES[name](folder / name) as store:
                    os.environ.update(store.environment())
                    if asked.mib:
                        well &= transfers(name, store, folder, asked.only, text(asked.mib).path, asked.rounds)
                    if asked.scale and name == asked.stores[-1]:
                        print(f"\n### CSV to Parquet, TPC-H lineitem of scale {asked.scale:g}, {name}\n")
                        is_right, lines = to_parquet(store, folder, asked.scale)
                        print(*(f"- {line}" for line in lines), sep="\n", flush=True)
                        well &= is_right
            except Absent as absent:
                print(f"\n### {name}: {absent}")
    print(f"\n{time.time() - began:.0f} s in all; {machine_line()}")
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
