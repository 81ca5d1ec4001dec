"""The references of the tables: DuckDB and Polars, each in a process of its own, reading the local file by its path.

``tables.py duckdb|polars filter|convert csv|parquet INPUT OUTPUT`` prints one line of JSON: the seconds and CPU seconds of
the query alone, without start and imports, and the process's peak resident bytes. An existing output is overwritten.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable


def duckdb(filtered: bool, target: str, source: str, result: str) -> Callable[[], object]:
    import duckdb

    query = "SELECT * FROM input"
    if filtered:
        query = "SELECT l_orderkey, l_extendedprice * (1 - l_discount) AS revenue, l_shipmode FROM input WHERE l_quantity < 24"
    options = "FORMAT parquet, COMPRESSION snappy" if target == "parquet" else "FORMAT csv, HEADER"
    connection = duckdb.connect()
    return lambda: connection.execute(
        f"COPY (WITH input AS (SELECT * FROM read_csv('{source}')) {query}) TO '{result}' ({options}, USE_TMP_FILE false)"
    )


def polars(filtered: bool, target: str, source: str, result: str) -> Callable[[], object]:
    import polars as pl

    frame = pl.scan_csv(source, try_parse_dates=True)
    if filtered:
        revenue = (pl.col("l_extendedprice") * (1 - pl.col("l_discount"))).alias("revenue")
        frame = frame.filter(pl.col("l_quantity") < 24).select("l_orderkey", revenue, "l_shipmode")
    if target == "parquet":
        return lambda: frame.sink_parquet(result, compression="snappy")
    return lambda: frame.sink_csv(result)


def main() -> None:
    engine, work, target, source, result = sys.argv[1:]
    query = {"duckdb": duckdb, "polars": polars}[engine](work == "filter", target, source, result)
    cpu, began = time.process_time(), time.perf_counter()
    query()
    figures = {
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
