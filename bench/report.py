"""The figures as Markdown tables and as JSON, with the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.client import Sample
from bench.compiler import Absent
from bench.kinds import OURS, node_program
from bench.work import Work

_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(slots=True)
class Result:
    """What came of one work at one contender: its samples, and whether its answer was right or why there are none.

    ``idle_bytes`` was resident at the most before the transfer that made ``peak_bytes`` so.
    """

    key: str
    name: str
    samples: list[Sample] = field(default_factory=list)
    peak_bytes: int | None = None
    idle_bytes: int | None = None
    verdict: str = ""

    @property
    def is_bad(self) -> bool:
        """Its answer was wrong, or did not come."""
        return self.verdict.startswith(("WRONG", "FAILED"))

    @property
    def seconds(self) -> float:
        """The median of its rounds."""
        return median(sample.seconds for sample in self.samples)

    @property
    def cpu_s(self) -> float:
        """The median of its rounds: seconds of the server's CPU time."""
        return median(sample.cpu_s for sample in self.samples)

    @property
    def peak(self) -> int | None:
        """Peak resident bytes, if they were measured."""
        return max((sample.peak_bytes for sample in self.samples if sample.peak_bytes), default=self.peak_bytes)


def ours_of(results: Sequence[Result]) -> Result | None:
    """Weir's own result, if there is one with samples."""
    return next((result for result in results if result.key in OURS and result.samples), None)


def table(work: Work, results: Sequence[Result], rounds: int) -> str:
    """One work as a Markdown table. The ratio says how many times as fast as the contender of that line Weir is."""
    nbytes, rows = work.nbytes, work.rows
    ours = ours_of(results)
    columns = ["MB/s", "slowest to fastest", "CPU s/GiB", "peak MiB", "above idle", "Weir is", "answer"]
    if rows:
        columns.insert(2, "rows/s")
    lines = [
        f"### {work.title} ({nbytes / 1e6:,.0f} MB{f', {rows:,} rows' if rows else ''}; median of {rounds})",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * (len(columns) - 1) + "---|",
    ]
    for result in results:
        if not result.samples:
            lines.append(f"| {result.name} |" + " |" * (len(columns) - 1) + f" {result.verdict} |")
            continue
        seconds = [sample.seconds for sample in result.samples]
        idle = result.idle_bytes
        cells = [
            f"{nbytes / 1e6 / result.seconds:,.0f}",
            f"{nbytes / 1e6 / max(seconds):,.0f} to {nbytes / 1e6 / min(seconds):,.0f}",
            *([f"{rows / result.seconds:,.0f}"] if rows else []),
            f"{result.cpu_s / nbytes * _GIB:.2f}",
            f"{result.peak / _MIB:,.0f}" if result.peak else "",
            f"{(result.peak - idle) / _MIB:,.0f}" if result.peak and idle else "",
            f"{result.seconds / ours.seconds:.2f}x" if ours and result is not ours else "",
            result.verdict,
        ]
        lines.append(f"| {result.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def document(sections: Sequence[tuple[Work, Sequence[Result]]], rounds: int) -> str:
    """Everything as JSON: the machine, and each sample of each result."""
    works = [
        {
            "work": work.name,
            "title": work.title,
            "input_bytes": work.nbytes,
            "input_rows": work.rows,
            "results": [asdict(result) for result in results],
        }
        for work, results in sections
    ]
    return json.dumps({"machine": machine(), "rounds": rounds, "works": works}, indent=2) + "\n"


def machine_line() -> str:
    """The machine in one sentence, for below the tables."""
    return "; ".join(f"{name} {value}" for name, value in machine().items())


@cache
def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = ("pyarrow", "duckdb", "polars", "datafusion", "starlette", "uvicorn", "uvloop")
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[2]:.1f}",
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
        "Node": _first_line(lambda: [str(node_program()), "--version"]),
        "Go": _first_line(lambda: ["go", "env", "GOVERSION"]),
        "nginx": _first_line(lambda: ["nginx", "-v"]).rpartition("/")[2],
        "cc": _first_line(lambda: ["cc", "--version"]),
        "curl": _first_line(lambda: ["curl", "--version"]).split()[1],
    }


def _first_line(command: Callable[[], Sequence[str]]) -> str:
    try:
        # nginx tells its version on stderr.
        found = subprocess.run(command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        return found.stdout.splitlines()[0]
    except (Absent, OSError, subprocess.CalledProcessError):
        return "absent"
