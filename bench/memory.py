"""Peak memory of a server, one process per figure: does it keep what MEMORY_BUDGET says, whatever the size of the input?

Each figure is VmHWM of a fresh server after its work, beside VmHWM of one that only started. Run by `make bench-memory`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from bench.inputs import keys, lineitem_file

HERE = Path(sys.executable).parent
BUDGET_MIB = 128
ALLOWED_MIB = 64
LONGER_NEEDS = 1.05
_ROWS, _KEYS = 60_000_000, 50_000_017
_GROUPS = "SELECT k, count(*) AS n, sum(v) AS s, avg(x) AS mean, max(v) AS most FROM input GROUP BY k ORDER BY k"


_ORDER = "FROM input ORDER BY l_extendedprice DESC, l_comment"


@contextmanager
def server(spool: str) -> Any:
    command = [HERE / "weir", "serve", "--port", "0", "--spool-dir", spool, "--memory-budget", f"{BUDGET_MIB}MiB"]
    process = subprocess.Popen(
        [*command, "--admit-timeout", "10min"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        wait = ["curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", f"{found[0]}/readyz"]
        subprocess.run(wait, check=True, capture_output=True)
        yield process.pid, found[0]
    finally:
        process.terminate()
        process.wait(60)


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def text_pipe(nbytes: int) -> str:
    return f"yes 'some lower case text that is to become upper case' | head -c {nbytes}"


def csv_pipe(source: Path, nbytes: int) -> str:
    again = f"while tail -n +2 {source} 2>/dev/null; do :; done"
    return f"( cat {source}; {again} ) | head -c {nbytes} | sed '$d'"


def post(pipe: str, url: str) -> subprocess.Popen[bytes]:
    command = f"{pipe} | curl -sS --fail-with-body -T - -H Expect: -o /dev/null '{url}'"
    return subprocess.Popen(["bash", "-c", command])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    asked = parser.parse_args()
    gib = 1 << 30
    source = lineitem_file(1)
    parquet = "from=csv&to=parquet"
    works: dict[str, tuple[str, list[Callable[[], str]]]] = {
        "upper, 1 GiB": ("upper", [lambda: text_pipe(gib)]),
        f"upper, {asked.gib} GiB": ("upper", [lambda: text_pipe(asked.gib * gib)]),
        "csv to parquet, 1 GiB": (parquet, [lambda: csv_pipe(source, gib)]),
        f"csv to parquet, {asked.gib} GiB": (parquet, [lambda: csv_pipe(source, asked.gib * gib)]),
        f"upper, {asked.clients} clients of 1 GiB": ("upper", [lambda: text_pipe(gib)] * asked.clients),
        f"csv to parquet, {asked.clients} clients of 1 GiB": (
            parquet,
            [lambda: csv_pipe(source, gib)] * asked.clients,
        ),
        f"order by, {asked.gib} GiB": (f"from=csv&sql={quote(_ORDER)}", [lambda: csv_pipe(source, asked.gib * gib)]),
        "distinct, 50 million keys": ("from=csv&distinct=k&to=csv", [lambda: f"cat {keys(_ROWS, _KEYS)}"]),
        "50 million groups": (f"from=csv&sql={quote(_GROUPS)}", [lambda: f"cat {keys(_ROWS, _KEYS)}"]),
    }
    failed = False
    peaks: dict[str, list[float]] = {}
    print("| work | seconds | peak MiB | idle MiB | above idle | allowed |\n|---|---|---|---|---|---|")
    # One GiB three times: a peak is where several things happen to meet, and differs by some percent.
    for name, (query, pipes) in [(n, w) for n, w in works.items() for _ in range(3 if n.endswith(", 1 GiB") else 1)]:
        with tempfile.TemporaryDirectory() as spool, server(spool) as (pid, url):
            idle = peak_mib(pid)
            began = time.monotonic()
            clients = [post(pipe(), f"{url}/v1/transform?{query}") for pipe in pipes]
            statuses = [client.wait() for client in clients]
            failed |= any(statuses)
            seconds, peak = time.monotonic() - began, peak_mib(pid)
            failed |= peak - idle > BUDGET_MIB + ALLOWED_MIB
            peaks.setdefault(name, []).append(peak)
            allowed = BUDGET_MIB + ALLOWED_MIB
            print(f"| {name} | {seconds:.1f} | {peak:.0f} | {idle:.0f} | {peak - idle:.0f} | {allowed} |", flush=True)
    for work in ("upper", "csv to parquet"):
        ratio = peaks[f"{work}, {asked.gib} GiB"][0] / median(peaks[f"{work}, 1 GiB"])
        failed |= ratio > LONGER_NEEDS
        print(f"{work}: {asked.gib} GiB needs {ratio:.3f} times what 1 GiB does (at most {LONGER_NEEDS})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
