"""What Weir is to reach with tables, within one run, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence

from bench import targets
from bench.kinds import BUDGET_MIB
from bench.memory import ALLOWED_MIB
from bench.report import Result, ours_of
from bench.targets import Target
from bench.work import Work

_LOCAL = ("duckdb", "polars", "datafusion")
_PIPED = ("duckdb-pipe", "polars-pipe")
_CONVERSIONS = ("filter-csv", "filter-ndjson", "filter-parquet", "parquet", "parquet-zstd", "ndjson-parquet")
_QUERIES = ("q1-csv", "q6-csv", "q1-ndjson", "q6-ndjson")
_RECORDS_PER_S = {"pipeline": 1_000_000}
_MIB = 1 << 20

TARGETS = (
    *(Target(work, _LOCAL, 1.0) for work in _CONVERSIONS),
    *(Target(work, _LOCAL, 0.9) for work in _QUERIES),
    *(Target(work, _PIPED, 1.2) for work in _QUERIES),
    *(Target(work, _LOCAL, 0.8) for work in ("q1-parquet", "q6-parquet")),
    Target("pipeline", ("node-script",), 10.0),
    *(Target(work, ("duckdb",), 1.0) for work in ("tumbling", "sliding")),
)


def table(sections: Sequence[tuple[Work, Sequence[Result]]]) -> str:
    """The verdicts on these works, as a Markdown table."""
    lines = []
    for work, results in sections:
        lines += [targets.beside(target, results) for target in TARGETS if target.work == work.name]
        ours = ours_of(results)
        if work.name in _RECORDS_PER_S:
            least, rate = _RECORDS_PER_S[work.name], (work.rows or 0) / ours.seconds if ours else None
            measured = None if rate is None else f"{rate:,.0f}"
            lines.append(targets.line(f"{work.name}, records/s", "", f">= {least:,}", measured, (rate or 0) >= least))
        most, above = BUDGET_MIB + ALLOWED_MIB, None
        if ours and ours.peak_bytes and ours.idle_bytes:
            above = (ours.peak_bytes - ours.idle_bytes) / _MIB
        measured = None if above is None else f"{above:,.0f}"
        lines.append(targets.line(f"{work.name}, MiB above idle", "", f"<= {most}", measured, (above or 0) <= most))
    return targets.table("Targets of the tables", lines)
