"""What the servers are fed, and what must come out; both kept under a folder outside the tree, made once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

_MIB = 1 << 20
_HERE = Path(sys.executable).parent

# Letters outside ASCII must come through as they are, in one piece: an upper case by characters would change them.
WORDS = (
    "a page flows from source to sink and the budget carries its worst case Weir 0123 -- straße œuvre žluťoučký 水 🙂"
)

_LINEITEM = {
    **dict.fromkeys(("l_orderkey", "l_partkey", "l_suppkey", "l_linenumber", "l_quantity"), "BIGINT"),
    **dict.fromkeys(("l_extendedprice", "l_discount", "l_tax"), "DOUBLE"),
    **dict.fromkeys(("l_returnflag", "l_linestatus"), "VARCHAR"),
    **dict.fromkeys(("l_shipdate", "l_commitdate", "l_receiptdate"), "DATE"),
    **dict.fromkeys(("l_shipinstruct", "l_shipmode", "l_comment"), "VARCHAR"),
}
_EVENT = {"ts": "TIMESTAMP", "key": "VARCHAR", "value": "DOUBLE"}
_SALE = {
    "id": "BIGINT",
    "at": "TIMESTAMP",
    "customer": "VARCHAR",
    "kind": "VARCHAR",
    "amount": "DOUBLE",
    **dict.fromkeys(("session", "page", "agent"), "VARCHAR"),
}
_CUSTOMERS = 100_000
# What is drawn depends on the number of the row alone.
_LOOKUPS = {
    "customers": f"""
SELECT format('c{{:06d}}', i) AS customer, format('X{{:02d}}', hash(i) % 50) AS country, i % 3 AS tier
FROM range({_CUSTOMERS}) AS numbers(i)"""
}


@dataclass(frozen=True, slots=True)
class Input:
    """A file to send: its size, and its rows if it has any. ``scan`` reads these in DuckDB, by types that it is told."""

    path: Path
    nbytes: int
    rows: int | None = None
    scan: str = ""


def cache_folder() -> Path:
    """``WEIR_BENCH_DIR``, or ``weir-bench`` among the temporary files."""
    folder = Path(os.environ.get("WEIR_BENCH_DIR") or Path(tempfile.gettempdir()) / "weir-bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def text(mib: int) -> Input:
    """``mib`` MiB of UTF-8 text in lines; the same bytes every time."""
    path = cache_folder() / f"text-{mib}.txt"
    if not path.exists():
        draw = random.Random(mib)
        words = WORDS.split()
        block = b""
        while len(block) < 4 * _MIB:
            block += "".join(" ".join(draw.choices(words, k=draw.randint(1, 20))) + "\n" for _ in range(1000)).encode()
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            left = mib * _MIB
            while left:  # each round begins elsewhere, so that pieces do not fall on the same letters again and again
                begin = draw.randrange(len(block))
                left -= file.write((block[begin:] + block[:begin])[:left])
        partial.rename(path)
    return Input(path, path.stat().st_size)


def lineitem_file(scale: float) -> Path:
    """TPC-H lineitem as CSV with a header, by tpchgen-cli."""
    path = cache_folder() / f"lineitem-{scale:g}.csv"
    if not path.exists():
        partial = cache_folder() / f"partial-{scale:g}"
        command: list[str | Path] = [
            _HERE / "tpchgen-cli",
            "csv",
            "-s",
            f"{scale:g}",
            "--tables",
            "lineitem",
            "--output-dir",
            partial,
        ]
        subprocess.run([*command, "--overwrite"], check=True, capture_output=True)
        (partial / "lineitem.csv").rename(path)
        partial.rmdir()
    return path


@cache
def lineitem(scale: float, format_name: str = "csv") -> Input:
    """The same as CSV, and what DuckDB makes of that as NDJSON or Parquet (snappy)."""
    source = lineitem_file(scale)
    scan = _scan(source, "csv")
    path = source.with_suffix(f".{format_name}")
    options = {"ndjson": "FORMAT json", "parquet": "FORMAT parquet, COMPRESSION snappy"}
    if format_name in options:
        written(path, f"FROM {scan}", options[format_name])
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT count(*) FROM {scan}").fetchall()[0][0]
    return Input(path, path.stat().st_size, rows, scan)


def sales(records: int) -> Input:
    """NDJSON of what customers did in a shop, 200 bytes each; one in eleven is of no customer that ``lookup`` knows."""
    query = f"""
SELECT i AS id, make_timestamp(1767225600000000 + i * 1000) AS at,
    format('c{{:06d}}', hash(i) % {_CUSTOMERS * 11 // 10}) AS customer,
    CASE WHEN hash(i + 1) % 5 < 2 THEN 'purchase' ELSE 'view' END AS kind, (hash(i + 2) % 10000) / 100 AS amount,
    md5(i::VARCHAR) AS session, '/shop/item-' || hash(i + 3) % 5000 AS page, 'Mozilla/5.0 (X11; Linux x86_64)' AS agent
FROM range({records}) AS numbers(i)"""
    path = written(cache_folder() / f"sales-{records}.ndjson", query, "FORMAT json")
    return Input(path, path.stat().st_size, records, f"read_ndjson('{path}', columns={_SALE})")


def events(number: int) -> Input:
    """CSV of events in the order of their time, of 1,000 keys: 10,000 a second, or as many as make 1,000 seconds."""
    step_us = max(100, 1_000_000_000 // number)
    query = f"""
SELECT make_timestamp(1767225600000000 + i * {step_us}) AS ts, format('k{{:03d}}', hash(i) % 1000) AS key,
    (hash(i + 1) % 10000) / 100 AS value
FROM range({number}) AS numbers(i)"""
    path = written(cache_folder() / f"events-{number}.csv", query, "FORMAT csv, HEADER")
    scan = f"read_csv('{path}', header=true, auto_detect=false, columns={_EVENT})"
    return Input(path, path.stat().st_size, number, scan)


def keys(rows: int, number: int) -> Path:
    """CSV with so many different keys among its rows, none of which stands beside another of its kind; ``number`` is prime."""
    query = f"SELECT i * 7919 % {number} AS k, i % 1000 AS v, i % 37 / 4 AS x FROM range({rows}) AS numbers(i)"
    return written(cache_folder() / f"keys-{rows}-{number}.csv", query, "FORMAT csv, HEADER")


def lookups_folder() -> Path:
    """LOOKUPS_DIR."""
    folder = cache_folder() / "lookups"
    folder.mkdir(exist_ok=True)
    return folder


def lookup(name: str) -> Path:
    """A lookup table as CSV."""
    return written(lookups_folder() / f"{name}.csv", _LOOKUPS[name], "FORMAT csv, HEADER")


def written(path: Path, query: str, options: str) -> Path:
    """``path``, to which DuckDB has written the rows of ``query`` in their order, once."""
    if not path.exists():
        partial = path.with_name(f"{path.name}.partial")
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({query}) TO '{partial}' ({options}, USE_TMP_FILE false)")
        partial.rename(path)
    return path


def digest(source: Path, change: Callable[[bytes], bytes] | None) -> str:
    """SHA-256 of the file, or of what ``change`` makes of its blocks."""
    found = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(_MIB):
            found.update(block if change is None else change(block))
    return found.hexdigest()


def expected_figures(source: Path) -> dict[str, Any]:
    """The figures of lineitem, which must come out. Kept beside the file."""
    kept = source.with_suffix(".whole.json")
    if not kept.exists() or kept.stat().st_mtime < source.stat().st_mtime:
        kept.write_text(json.dumps(_figures(_scan(source, "csv"))))
    figures: dict[str, Any] = json.loads(kept.read_text())
    return figures


def table_figures(result: Path, format_name: str) -> dict[str, Any]:
    """The same figures of a result. They tell rows, values and order."""
    return _figures(_scan(result, format_name))


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of the figures that differ; sums of floats may differ in their last digits."""
    return [
        name
        for name, value in expected.items()
        if found[name] is None or abs(found[name] - value) > (abs(value) * 1e-9 if isinstance(value, float) else 0)
    ]


def _scan(path: Path, format_name: str) -> str:
    if format_name == "parquet":
        return f"read_parquet('{path}')"
    return f"read_csv('{path}', header=true, auto_detect=false, delim=',', quote='\"', columns={_LINEITEM})"


def _figures(scan: str) -> dict[str, Any]:
    """Rows; of each number its sum, and its sum weighted by the row's place; of each text a hash with the place."""
    parts = ["count(*) AS rows"]
    for name, kind in _LINEITEM.items():
        if kind in ("BIGINT", "DOUBLE"):
            parts.append(f"sum({name}::DOUBLE) AS {name}")
            parts.append(f"sum({name}::DOUBLE * (place % 1009)) AS {name}_in_order")
        else:
            parts.append(f"(sum(hash(place, {name}::VARCHAR) % 1000000007))::BIGINT AS {name}_in_order")
    with duckdb.connect() as connection:  # one thread: the place of a row is its place in the file
        connection.execute("SET threads = 1")
        result = connection.execute(
            f"WITH placed AS (SELECT *, row_number() OVER () AS place FROM {scan}) SELECT {', '.join(parts)} FROM placed"
        )
        row = result.fetchone()
        assert row is not None
        assert result.description is not None
        return dict(zip((column[0] for column in result.description), row, strict=True))
