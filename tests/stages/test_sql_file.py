"""Queries over a Parquet file that DuckDB reads by itself: what comes out is what batches give."""

from __future__ import annotations

import functools
import io
import math
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import Refusal
from app.core.page import Page
from app.framing.parquet_scan import FileScan
from app.plan import BuildOptions, build, plan_of_query
from app.stages.sql import Query
from app.stages.sql_engine import QueryOptions
from app.stages.sql_file import FileFeed
from tests.conformance.check_stage import run_chain
from tests.inputs import Far, Near

MIB = 1024 * 1024
OPTIONS = BuildOptions(
    page_bytes=1 << 16,
    max_line_bytes=1 << 16,
    max_expansion=10,
    whole_bytes=1 << 24,
    query=QueryOptions(1 << 16, 2, 64 << 20),
)
ROWS = 5000
TABLE = pa.table(
    {
        "id": pa.array([None if n % 7 == 0 else n * 31 for n in range(ROWS)], pa.int64()),
        "few": [None if n % 11 == 0 else f"wörd {n % 13}" for n in range(ROWS)],
        "Many": pa.array([f"text {n * 977}" for n in range(ROWS)], pa.large_string()),
        "f64": pa.array([(math.nan, -0.0, 0.0, math.inf, -math.inf, None, n / 7)[n % 7] for n in range(ROWS)]),
        "f32": pa.array([(math.nan, -0.0, 0.0, None, n / 7)[n % 5] for n in range(ROWS)], pa.float32()),
        "bool": pa.array([None if n % 5 == 0 else n % 3 == 0 for n in range(ROWS)]),
        "day": pa.array([None, date(1, 1, 1), date(9999, 12, 31), *[date(2024, 2, 29)] * (ROWS - 3)]),
        "moment": pa.array([None, datetime(1, 1, 1), *[datetime(2024, 2, 29, 1, 2, 3, n) for n in range(ROWS - 2)]]),
        "d38": pa.array([Decimal("-9" * 1 + "9" * 37), *[Decimal(n) for n in range(ROWS - 1)]], pa.decimal128(38, 0)),
        "d9": pa.array([Decimal(n) / 100 for n in range(ROWS)], pa.decimal128(9, 2)),
        **{
            f"{kind}": pa.array([n % 100 for n in range(ROWS)], kind)
            for kind in ("int8", "int16", "int32", "uint8", "uint16", "uint32")
        },
        "with.dot": range(ROWS),
        'quo"te': range(ROWS),
    }
)


def parquet(table: pa.Table = TABLE, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"row_group_size": 1500, **options})
    return sink.getvalue()


FILES = {
    # Each two of these three things come together in some file.
    f"{compression}, {version}, {use_dictionary}": parquet(
        compression=compression, data_page_version=version, use_dictionary=use_dictionary, data_page_size=4096
    )
    for compression, version, use_dictionary in (
        ("none", "1.0", True),
        ("none", "2.0", False),
        ("snappy", "1.0", False),
        ("snappy", "2.0", True),
        ("zstd", "1.0", False),
        ("zstd", "2.0", True),
    )
}


def outcome(input: Near | Far, *steps: tuple[str, str]) -> tuple[bool, Any, int]:
    """Whether the file was read by DuckDB; schema and rows, or the refusal; and how many rows came in."""
    chain = build(plan_of_query([("from", "parquet"), *steps, ("to", "arrow")]), OPTIONS)
    assert chain.read_file is not None
    rows, scanned = 0, False

    def seen(pages: Iterator[Page]) -> Iterator[Page]:
        nonlocal rows, scanned
        for page in pages:
            rows += page.rows
            scanned = scanned or isinstance(page.payload, FileScan)
            yield page

    pages = seen(chain.read_file(input))
    try:
        made = run_chain(chain.stages, pages)
        table = pa.ipc.open_stream(b"".join(page.payload for page in made)).read_all()
    except Refusal as refusal:
        return scanned, (refusal.code, refusal.position), 0
    return scanned, (table.schema.remove_metadata(), repr(table.to_pylist())), rows + chain.passed_over.rows


QUERIES: dict[str, tuple[tuple[str, str], ...]] = {
    "all rows in order": (("sql", "SELECT *, row_number() OVER () AS row FROM input"),),
    "sums of floats": (
        ("sql", "SELECT few, sum(f64 / 3) AS s, avg(f32) AS a FROM input WHERE f64 < 1e9 GROUP BY few"),
    ),
    "bounds of floats": (("sql", "SELECT max(f64), min(f64), max(f32), min(f32), count(*) FROM input"),),
    "NaN is the largest": (("sql", "SELECT count(*) AS n FROM input WHERE f64 > 1e300 OR isnan(f32)"),),
    "NaN comes first": (("sql", "SELECT f32, id FROM input ORDER BY f32 DESC, id LIMIT 5"),),
    "ties keep their order": (("sql", "SELECT few, id FROM input ORDER BY few LIMIT 40"),),
    "the first rows": (("sql", "SELECT sum(id) AS s FROM (SELECT id FROM input LIMIT 1700)"),),
    "bounds of texts": (("sql", 'SELECT max("Many"), min(few), max(day), min(moment), max(d38) FROM input'),),
    "names": (("aggregate", 'sum("with.dot") AS a, max("quo""te") AS b, first(MANY) AS c by few'),),
    "row groups": (("where", 'int32 >= 0 AND "with.dot" > 2000'), ("aggregate", "count(*) AS n, first(id) AS i")),
    "rows alone": (("sql", "SELECT count(*) AS n FROM input"),),
    "no row": (("where", "id % 10 < 0"), ("aggregate", "count(*) AS n, max(few) AS m")),
    "a missing column": (("aggregate", "sum(nothing) AS s"),),
    "a value that cannot be computed": (("aggregate", "sum(cast(few AS INTEGER)) AS s by int8"),),
}


@functools.cache
def of_batches(name: str) -> tuple[bool, Any, int]:
    """Of the first file: how batches of the others are read is for other tests."""
    return outcome(Far(next(iter(FILES.values()))), *QUERIES[name])


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("file", FILES)
def test_a_file_gives_what_its_batches_give(file: str, name: str) -> None:
    scanned, found, rows = outcome(Near(FILES[file]), *QUERIES[name])
    assert scanned
    scanned, expected, rows_of_batches = of_batches(name)
    assert not scanned
    assert found == expected
    # A limit within a query lets batches end early, and a file is not counted row by row.
    assert rows == rows_of_batches or (name == "the first rows" and rows == ROWS)


def test_what_a_damaged_file_gives_is_refused_as_it_would_be_in_batches() -> None:
    draw = random.Random(1)
    table = TABLE.slice(0, 60)
    files = [parquet(table, row_group_size=40, compression=compression) for compression in ("none", "snappy", "zstd")]
    refused = 0
    for _ in range(60):
        data = bytearray(draw.choice(files))
        data[draw.randrange(len(data))] ^= draw.choice((1, 0x55, 0xFF))
        near, far = (
            outcome(kind(bytes(data)), ("sql", 'SELECT few, max("Many") AS m, sum(id) AS s FROM input GROUP BY few'))[
                1
            ][0]
            for kind in (Near, Far)
        )
        codes = {code for code in (near, far) if isinstance(code, str)}
        assert codes <= {"corrupt_input", "truncated_input", "unsupported_type", "page_too_large", "bad_sql"}, codes
        refused += isinstance(near, str)
    assert refused > 10


def test_text_that_is_not_utf8_is_corrupt() -> None:
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    sink = io.BytesIO()
    pq.write_table(pa.table({"s": text}), sink, write_statistics=False)
    assert outcome(Near(sink.getvalue()), ("sql", "SELECT max(s) FROM input"))[:2] == (True, ("corrupt_input", None))


def query_over(data: bytes, text: str) -> tuple[Query, Iterator[Page]]:
    chain = build(plan_of_query([("from", "parquet"), ("sql", text), ("to", "arrow")]), OPTIONS)
    assert chain.read_file is not None
    (query,) = (stage for stage in chain.stages if isinstance(stage, Query))
    return query, chain.read_file(Near(data))


def test_an_interrupted_query_ends_soon() -> None:
    data = parquet(pa.table({"n": range(2_000_000)}), row_group_size=2_000_000)
    query, pages = query_over(data, "SELECT max(md5(md5(md5(md5(md5(n::VARCHAR)))))) AS m FROM input")
    first = next(pages)

    def cancelled() -> Iterator[Page]:
        yield first
        raise TimeoutError  # as a run's pages do once it is cancelled

    timer = threading.Timer(0.2, query.interrupt)
    timer.start()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        list(query.run(cancelled()))
    assert time.monotonic() - started < 1
    assert first.payload.over.is_set()
    timer.join()


def test_a_query_that_is_interrupted_before_it_began_does_not_begin() -> None:
    query, pages = query_over(parquet(), "SELECT count(*) AS n FROM input")
    first = next(pages)
    query.interrupt()
    with pytest.raises(CancelledError):
        list(query.run(iter((first,))))
    assert first.payload.over.is_set()


def test_no_other_file_can_be_read() -> None:
    query, pages = query_over(parquet(), "SELECT count(*) FROM input")
    with FileFeed(next(pages).payload, pages) as file:
        connection = query._connect(file)
        file.register(connection)
        assert connection.execute("SELECT count(*) FROM input").fetchall() == [(ROWS,)]
        for attempt in ("FROM read_text('/etc/hostname')", "FROM glob('/proc/self/fd/*')", "SET allowed_paths = ['/']"):
            with pytest.raises(Exception, match=r"Permission|locked|Cannot"):
                connection.execute(attempt)
        connection.close()
