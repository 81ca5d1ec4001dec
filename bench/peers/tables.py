"""The engines that the tables stand beside, each in a process of its own, reading a file by its path or a pipe.

``python -m bench.peers.tables [--pipe] duckdb|polars|datafusion QUESTION INPUT TARGET OUTPUT [NAME=LOOKUP.csv ...]``
prints one line of JSON: the seconds and CPU seconds of the query alone, without start and imports, and the process's peak
resident bytes. TARGET is csv, ndjson, parquet or "parquet zstd". With --pipe the bytes of INPUT come from the standard
input. An existing output is overwritten.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.tables.questions import SQL

_STDIN = "/dev/stdin"
# Weir's level of zstd, which for DuckDB, Polars and DataFusion would be three.
_LEVEL = 1

Lookups = Mapping[str, str]


def duckdb(
    question: str, source: str, target: str, output: str, lookups: Lookups, is_piped: bool
) -> Callable[[], object]:
    import duckdb

    options = {
        "csv": "FORMAT csv, HEADER",
        "ndjson": "FORMAT json",
        "parquet": "FORMAT parquet, COMPRESSION snappy",
        "parquet zstd": f"FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {_LEVEL}",
    }[target]
    connection = duckdb.connect()
    kind = source.rpartition(".")[2]
    scan = f"'{source}'" if kind == "parquet" else _duckdb_text(kind, source, "")
    if is_piped:  # it cannot look twice, so it is told what it would find in the file
        types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {scan}").fetchall()}
        told = ", auto_detect=false, header=true, delim=',', quote='\"'" if kind == "csv" else ""
        scan = _duckdb_text(kind, _STDIN, f", columns={types}{told}")
    tables = "".join(f", {name} AS (FROM '{path}')" for name, path in lookups.items())
    query = f"WITH input AS (FROM {scan}){tables}, answer AS ({SQL[question]}) FROM answer"
    return lambda: connection.execute(f"COPY ({query}) TO '{output}' ({options}, USE_TMP_FILE false)")


def _duckdb_text(kind: str, path: str, options: str) -> str:
    return f"read_csv('{path}'{options})" if kind == "csv" else f"read_ndjson('{path}'{options})"


def polars(
    question: str, source: str, target: str, output: str, lookups: Lookups, is_piped: bool
) -> Callable[[], object]:
    import polars as pl

    sql, kind = SQL[question], source.rpartition(".")[2]
    place = sys.stdin.buffer if is_piped else source

    def answer() -> None:
        match kind:
            case "csv":
                frame = pl.scan_csv(place, try_parse_dates=True)
            case "ndjson":
                frame = pl.scan_ndjson(place)
            case _:
                frame = pl.scan_parquet(place)
        # Dates in JSON are texts to it, and are compared as such.
        plain = sql.replace("DATE '", "'") if kind == "ndjson" else sql
        tables = {name: pl.scan_csv(path) for name, path in lookups.items()}
        result = pl.SQLContext({"input": frame, **tables}).execute(plain)
        match target:
            case "csv":
                result.sink_csv(output)
            case "ndjson":
                result.sink_ndjson(output)
            case "parquet":
                result.sink_parquet(output, compression="snappy")
            case _:
                result.sink_parquet(output, compression="zstd", compression_level=_LEVEL)

    return answer


def datafusion(
    question: str, source: str, target: str, output: str, lookups: Lookups, is_piped: bool
) -> Callable[[], object]:
    import datafusion

    options = {
        "csv": "STORED AS CSV OPTIONS ('format.has_header' 'true')",
        "ndjson": "STORED AS JSON",
        "parquet": "STORED AS PARQUET OPTIONS (compression 'snappy')",
        "parquet zstd": f"STORED AS PARQUET OPTIONS (compression 'zstd({_LEVEL})')",
    }[target]
    context, kind = datafusion.SessionContext(), source.rpartition(".")[2]

    def answer() -> None:
        match kind:
            case "csv":
                context.register_csv("input", source)
            case "ndjson":
                context.register_json("input", source, file_extension=".ndjson")
            case _:
                context.register_parquet("input", source)
        for name, path in lookups.items():
            context.register_csv(name, path)
        context.sql(f"COPY ({SQL[question]}) TO '{output}' {options}").collect()

    return answer


def main() -> None:
    parser = ArgumentParser(prog="python -m bench.peers.tables", description=__doc__)
    parser.add_argument("--pipe", action="store_true")
    for word in ("engine", "question", "input", "target", "output"):
        parser.add_argument(word)
    parser.add_argument("lookups", nargs="*")
    asked = parser.parse_args()
    lookups = dict(lookup.split("=", 1) for lookup in asked.lookups)
    engine = {"duckdb": duckdb, "polars": polars, "datafusion": datafusion}[asked.engine]
    answer = engine(asked.question, asked.input, asked.target, asked.output, lookups, asked.pipe)
    cpu, began = time.process_time(), time.perf_counter()
    answer()
    figures = {
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": _peak_bytes(),
    }
    print(json.dumps(figures))


def _peak_bytes() -> int:
    """VmHWM: ru_maxrss would begin at what was resident of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    main()
