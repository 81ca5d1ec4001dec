"""What must come out, found once by DuckDB with types that it is told; and whether it did, value by value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import duckdb

from bench.inputs import Input, cache_folder, written

_FLOATS = ("FLOAT", "DOUBLE")
# Both sides are cast to what loses nothing of either: a cast to a whole number, or to a date, would cut what is wrong.
_COMPARED_AS = {
    **dict.fromkeys(("INTEGER", "BIGINT", "HUGEINT", *_FLOATS), "DOUBLE"),
    **dict.fromkeys(("DATE", "TIMESTAMP"), "TIMESTAMP"),
}
_TOLERANCE = 1e-9


def expected(source: Input, sql: str, key: tuple[str, ...], lookups: Mapping[str, Path]) -> Path:
    """The answer to ``sql`` about ``source``, in the order of ``key``, as Parquet. Kept until the input is made anew."""
    tables = {"input": source.scan, **{name: f"read_csv('{path}')" for name, path in lookups.items()}}
    parts = ", ".join(f"{name} AS (FROM {scan})" for name, scan in tables.items())
    order = f" ORDER BY {', '.join(key)}" if key else ""
    query = f"WITH {parts}, answer AS ({sql}) FROM answer{order}"
    path = cache_folder() / f"answer-{hashlib.sha256(query.encode()).hexdigest()[:16]}.parquet"
    if path.exists() and path.stat().st_mtime < source.path.stat().st_mtime:
        path.unlink()
    return written(path, query, "FORMAT parquet")


def is_right(found: Path, target: str, wanted: Path, sort_by: tuple[str, ...]) -> bool:
    """``found`` has the columns, the rows and the values of ``wanted``, in its order or else sorted by ``sort_by``.

    Floats may differ by a billionth of themselves.
    """
    order = f" ORDER BY {', '.join(sort_by)}" if sort_by else ""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # the place of a row is its place in the file
        types = _types(connection, f"read_parquet('{wanted}')")
        scan = _scan(found, target)
        if list(_types(connection, scan)) != list(types):
            return False
        casts = ", ".join(f"{name}::{_COMPARED_AS.get(kind, kind)} AS {name}" for name, kind in types.items())
        sides = ", ".join(
            f"{side} AS (SELECT *, true AS is_there FROM (SELECT {casts} FROM {rows}){order})"
            for side, rows in (("wanted", f"read_parquet('{wanted}')"), ("found", scan))
        )
        differ = " OR ".join(_differ(name, kind) for name, kind in types.items())
        query = (
            f"WITH {sides} SELECT count(*) FROM wanted POSITIONAL JOIN found"
            f" WHERE wanted.is_there IS DISTINCT FROM found.is_there OR {differ}"
        )
        try:
            return connection.execute(query).fetchone() == (0,)
        except duckdb.ConversionException:
            return False


def _types(connection: duckdb.DuckDBPyConnection, scan: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {scan}").fetchall()}


def _scan(path: Path, target: str) -> str:
    """As the file has it: texts of a CSV are taken as texts, so that nothing is rounded on the way."""
    match target:
        case "csv":
            return f"read_csv('{path}', header=true, all_varchar=true, delim=',', quote='\"', auto_detect=true)"
        case "ndjson":
            return f"read_json('{path}', format='newline_delimited', sample_size=-1)"
    return f"read_parquet('{path}')"


def _differ(name: str, kind: str) -> str:
    one, other = f"wanted.{name}", f"found.{name}"
    if kind not in _FLOATS:
        return f"{one} IS DISTINCT FROM {other}"
    return f"(coalesce(abs({one} - {other}) > {_TOLERANCE} * abs({one}), ({one} IS NULL) <> ({other} IS NULL)))"
