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
from pathlib import Path
from typing import Any

import duckdb

_MIB = 1 << 20
_HERE = Path(sys.executable).parent

# Letters outside ASCII must come through as they are, in one piece: an upper case by characters would change them.
WORDS = (
    "a page flows from source to sink and the budget carries its worst case Weir 0123 -- straße œuvre žluťoučký 水 🙂"
)

FILTER_WHERE = "l_quantity<24"
FILTER_SELECT = "l_orderkey,l_extendedprice*(1-l_discount) as revenue,l_shipmode"

_LINEITEM = {
    **dict.fromkeys(("l_orderkey", "l_partkey", "l_suppkey", "l_linenumber", "l_quantity"), "DOUBLE"),
    **dict.fromkeys(("l_extendedprice", "l_discount", "l_tax"), "DOUBLE"),
    **dict.fromkeys(("l_returnflag", "l_linestatus"), "VARCHAR"),
    **dict.fromkeys(("l_shipdate", "l_commitdate", "l_receiptdate"), "DATE"),
    **dict.fromkeys(("l_shipinstruct", "l_shipmode", "l_comment"), "VARCHAR"),
}
_FILTERED = {"l_orderkey": "DOUBLE", "revenue": "DOUBLE", "l_shipmode": "VARCHAR"}


@dataclass(frozen=True, slots=True)
class Input:
    """A file to send: its size, and its rows if it has any."""

    path: Path
    nbytes: int
    rows: int | None = None


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


def lineitem(scale: float) -> Input:
    """The same file with its number of rows, which are counted once."""
    path = lineitem_file(scale)
    rows = expected_figures(path, filtered=False)["rows"]
    return Input(path, path.stat().st_size, rows)


def digest(source: Path, change: Callable[[bytes], bytes] | None) -> str:
    """SHA-256 of the file, or of what ``change`` makes of its blocks."""
    found = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(_MIB):
            found.update(block if change is None else change(block))
    return found.hexdigest()


def expected_figures(source: Path, *, filtered: bool) -> dict[str, Any]:
    """The figures of the table that must come out: of lineitem itself, or of its filtered rows. Kept beside the file."""
    kept = source.with_suffix(f".{'filtered' if filtered else 'whole'}.json")
    if not kept.exists() or kept.stat().st_mtime < source.stat().st_mtime:
        query = f"SELECT {FILTER_SELECT} FROM input WHERE {FILTER_WHERE}" if filtered else "SELECT * FROM input"
        kept.write_text(json.dumps(_figures(_scan(source, "csv", filtered=False), query, filtered=filtered)))
    figures: dict[str, Any] = json.loads(kept.read_text())
    return figures


def table_figures(result: Path, format_name: str, *, filtered: bool) -> dict[str, Any]:
    """The same figures of a result. They tell rows, values and order."""
    return _figures(_scan(result, format_name, filtered=filtered), "SELECT * FROM input", filtered=filtered)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of the figures that differ; sums of floats may differ in their last digits."""
    return [
        name
        for name, value in expected.items()
        if found[name] is None or abs(found[name] - value) > (abs(value) * 1e-9 if isinstance(value, float) else 0)
    ]


def _scan(path: Path, format_name: str, *, filtered: bool) -> str:
    if format_name == "parquet":
        return f"read_parquet('{path}')"
    columns = _FILTERED if filtered else _LINEITEM
    return f"read_csv('{path}', header=true, auto_detect=false, delim=',', quote='\"', columns={columns})"


def _figures(scan: str, query: str, *, filtered: bool) -> dict[str, Any]:
    """Rows; of each number its sum, and its sum weighted by the row's place; of each text a hash with the place."""
    parts = ["count(*) AS rows"]
    for name, kind in (_FILTERED if filtered else _LINEITEM).items():
        if kind == "DOUBLE":
            parts.append(f"sum({name}::DOUBLE) AS {name}")
            parts.append(f"sum({name}::DOUBLE * (place % 1009)) AS {name}_in_order")
        else:
            parts.append(f"(sum(hash(place, {name}::VARCHAR) % 1000000007))::BIGINT AS {name}_in_order")
    with duckdb.connect() as connection:  # one thread: the place of a row is its place in the file
        connection.execute("SET threads = 1")
        result = connection.execute(
            f"WITH input AS (SELECT * FROM {scan}), result AS ({query}),"
            f" placed AS (SELECT *, row_number() OVER () AS place FROM result) SELECT {', '.join(parts)} FROM placed"
        )
        row = result.fetchone()
        assert row is not None
        assert result.description is not None
        return dict(zip((column[0] for column in result.description), row, strict=True))
