"""What is not read makes no difference: rows and refusals are those of reading everything."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import app.plan.building
from app.core.errors import Refusal
from app.core.page import Page
from app.framing.needs import ALL
from app.plan import BuildOptions, Built, build, plan_of_query
from app.stages.sql_engine import QueryOptions
from tests.conformance.check_stage import run_chain
from tests.inputs import Far, Near

OPTIONS = BuildOptions(
    page_bytes=1 << 16,
    max_line_bytes=1 << 16,
    max_expansion=10,
    whole_bytes=1 << 24,
    query=QueryOptions(1 << 16, 1, 64 << 20),
)
Steps = Sequence[tuple[str, str]]


def built(steps: Steps, *, prune: bool) -> Built:
    with pytest.MonkeyPatch.context() as patch:
        if not prune:
            patch.setattr(app.plan.building, "needs", lambda steps: ALL)
        return build(plan_of_query([("from", "parquet"), *steps, ("to", "arrow")]), OPTIONS)


def outcome(data: bytes, steps: Steps, *, prune: bool, kind: type[Near | Far] = Far) -> tuple[Any, int, int]:
    """The rows and their schema, or the refusal; and how many rows were read, and passed over."""
    chain = built(steps, prune=prune)
    assert chain.read_file is not None
    rows_in = 0

    def counted(pages: Iterator[Page]) -> Iterator[Page]:
        nonlocal rows_in
        for page in pages:
            rows_in += page.rows
            yield page

    try:
        pages = counted(chain.read_file(kind(data)))
        made = run_chain(chain.stages, pages)
        table = pa.ipc.open_stream(b"".join(page.payload for page in made)).read_all()
    except Refusal as refusal:
        return (refusal.code, refusal.detail, refusal.position, refusal.column), 0, 0
    columns = [c.cast(pa.int64()) if c.type == pa.timestamp("ns") else c for c in table.columns]
    rows = [repr([column[row].as_py() for column in columns]) for row in range(table.num_rows)]
    return (table.schema.remove_metadata(), rows), rows_in, chain.passed_over.rows


DAY, MOMENT = date(2024, 2, 28), datetime(2024, 2, 28, 23, 59, 59, 999_998)
VALUES: dict[str, tuple[pa.DataType, list[Any], list[str]]] = {
    # The type, values of it, and constants that it may be compared with, some of other types.
    "number": (
        pa.int64(),
        [-3, 0, 1, 2, 2**53, 2**53 + 1, 2**63 - 1],
        ["0", "-3", "2", "1.5", "1e0", "9007199254740993"],
    ),
    "tiny": (pa.int8(), [-128, -1, 0, 5, 127], ["-1", "5", "300", "0.5", "'5'"]),
    "unsigned_int": (pa.uint32(), [0, 1, 2**31, 2**32 - 1], ["0", "-1", "2147483648", "4294967295"]),
    "real": (
        pa.float64(),
        [-1.5, -0.0, 0.0, 0.1, 2.0, math.nan, math.inf, -math.inf],
        ["0", "0.1", "2", "1e308", "-1.5"],
    ),
    "short": (pa.float32(), [-1.5, 0.1, 16777216.0, math.nan], ["0.1", "16777217", "1e-1", "-1.5"]),
    "text": (
        pa.string(),
        ["", "a", "B", "ab", "ü", "水", "zz", "\x7f", "z" * 100],
        ["'a'", "''", "'ü'", "'ab '", "'zz'"],
    ),
    "word": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "c"], ["'a'", "'bb'", "'c'"]),
    "day": (
        pa.date32(),
        [DAY + timedelta(days=n) for n in range(3)] + [date(1969, 12, 31)],
        ["DATE '2024-02-29'", "'2024-02-28'", "TIMESTAMP '2024-02-28 12:00:00'", "'2024-2-29'", "DATE '2024-02-30'"],
    ),
    "moment": (
        pa.timestamp("us"),
        [MOMENT + timedelta(microseconds=n) for n in range(3)],
        ["TIMESTAMP '2024-02-28 23:59:59.999999'", "'2024-02-29 00:00:00'", "DATE '2024-02-29'", "'2024-02-29'"],
    ),
    "nano": (
        pa.timestamp("ns"),
        [n + 1709164799_999_999_000 for n in (-1, 0, 1, 999, 1000)],
        ["TIMESTAMP '2024-02-28 23:59:59.999999'", "DATE '2024-02-29'", "'2024-02-28 23:59:59.999999'"],
    ),
    "zoned": (
        pa.timestamp("ms", "Europe/Vienna"),
        [datetime(2024, 2, 28, n, tzinfo=UTC) for n in (0, 1, 23)],
        ["TIMESTAMP '2024-02-28 01:00:00'", "'2024-02-28 01:00:00'", "DATE '2024-02-29'", "'2024-02-28 01:00:00+02'"],
    ),
    "price": (
        pa.decimal128(9, 2),
        [Decimal(text) for text in ("-1.50", "0.00", "0.05", "24.00", "9999999.99")],
        ["0.05", "24", "0.049", "-1.5", "5e-2"],
    ),
    "wide": (pa.decimal128(38, 4), [Decimal("1.0001"), Decimal(-5), Decimal(10**33)], ["1.0001", "-5", "1.00005"]),
    "flag": (pa.bool_(), [True, False], ["true", "0"]),
    "nothing": (pa.null(), [], ["1", "'a'"]),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4, unique=True))
    rows = draw(st.integers(0, 12))
    columns = {}
    for name in names:
        type_, values, _ = VALUES[name]
        # Runs of the same values, so that bounds are narrow enough to rule something out.
        picked = draw(st.lists(st.sampled_from([None, *values]), min_size=rows, max_size=rows))
        columns[name] = pa.array(sorted(picked, key=repr) if draw(st.booleans()) else picked, type_)
    return pa.table(columns)


@st.composite
def conditions(draw: st.DrawFn, names: Sequence[str]) -> str:
    name = draw(st.sampled_from(names))
    constant = st.sampled_from(VALUES[name][2])
    column = draw(st.sampled_from([name, name.upper(), f'"{name}"', f"input.{name}"]))
    kind = draw(st.sampled_from(["compare", "compare", "compare", "turned", "between", "in", "null", "not null", "or"]))
    operator = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "<>"]))
    if kind == "compare":
        return f"{column} {operator} {draw(constant)}"
    if kind == "turned":
        return f"{draw(constant)} {operator} {column}"
    if kind == "between":
        return f"{column} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {draw(constant)} AND {draw(constant)}"
    if kind == "in":
        among = draw(st.lists(st.one_of(constant, st.just("NULL")), min_size=1, max_size=3))
        return f"{column} {draw(st.sampled_from(['', 'NOT ']))}IN ({', '.join(among)})"
    if kind == "or":
        return f"({column} {operator} {draw(constant)} OR {column} IS NULL)"
    return f"{column} IS {'NOT ' if kind == 'not null' else ''}NULL"


@st.composite
def cases(draw: st.DrawFn) -> tuple[pa.Table, int, list[tuple[str, str]]]:
    table = draw(tables())
    names = table.schema.names
    steps: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["where", "where", "where", "select", "limit", "sample", "offset"]))
        if kind == "where":
            steps.append((kind, " AND ".join(draw(st.lists(conditions(names), min_size=1, max_size=2)))))
        elif kind == "select":
            steps.append((kind, ", ".join(draw(st.permutations(names)))))
        else:
            steps.append((kind, {"limit": "3", "sample": "0.7", "offset": "2"}[kind]))
    return table, draw(st.integers(1, 6)), steps


def parquet(table: pa.Table, rows: int, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows, **options)
    return sink.getvalue()


@given(case=cases())
@settings(max_examples=80, deadline=None)
@example((pa.table({"real": [1.0, math.nan, 2.0]}), 3, [("where", "real > 5")]))
@example((pa.table({"real": [math.nan, math.nan]}), 2, [("where", "real <= 5")]))
@example((pa.table({"number": [2**53 + 1, 2**53 + 1]}), 2, [("where", "number <= 9007199254740992e0")]))
@example((pa.table({"text": ["a", "b"], "number": [1, 2]}), 1, [("where", "text = 5 AND number = 2")]))
def test_skipped_row_groups_make_no_difference(case: tuple[pa.Table, int, list[tuple[str, str]]]) -> None:
    table, rows, steps = case
    data = parquet(table, rows)
    pruned, read_rows, passed_rows = outcome(data, steps, prune=True)
    whole, whole_rows, _ = outcome(data, steps, prune=False)
    if whole[0] == "bad_computation":
        return  # a row that would have failed may have been passed over, as DuckDB itself does within a condition
    assert pruned == whole
    if whole_rows == table.num_rows:  # DuckDB leaves off where it knows that no row can come
        assert read_rows + passed_rows == whole_rows


@given(case=cases(), data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_file_that_a_query_reads_gives_what_its_batches_give(
    case: tuple[pa.Table, int, list[tuple[str, str]]], data: st.DataObject
) -> None:
    table, rows, steps = case
    key, value = (data.draw(st.sampled_from(table.schema.names)) for _ in range(2))
    grouped = [*steps, ("aggregate", f"count(*) AS n, first({value}) AS f, max({value}) AS m by {key}")]
    file = parquet(table, rows)
    near, far = (outcome(file, grouped, prune=True, kind=kind)[0] for kind in (Near, Far))
    if "bad_computation" not in (near[0], far[0]):  # which row fails first is not told
        assert near == far


@pytest.mark.parametrize("name", [name for name in VALUES if name != "nothing"])
def test_every_pair_of_values_as_a_row_group_is_kept_where_it_matters(name: str) -> None:
    type_, values, constants = VALUES[name]
    pairs = list(itertools.combinations_with_replacement([None, *values], 2))
    table = pa.table(
        {name: pa.array([value for pair in pairs for value in pair], type_), "place": range(2 * len(pairs))}
    )
    data, one_group = parquet(table, 2), parquet(table, len(table))
    conditions = [f"{name} {operator} {c}" for operator in ("=", "<", "<=", ">", ">=") for c in constants]
    conditions += [f"{constants[0]} {operator} {name}" for operator in ("<", ">=")]
    conditions += [f"{name} BETWEEN {low} AND {high}" for low, high in itertools.pairwise(constants)]
    conditions += [f"{name} IN ({', '.join(constants[:2])})", f"{name} IS NULL", f"{name} IS NOT NULL"]
    passed_rows = 0
    for condition in conditions:
        steps = [("where", condition)]
        whole = outcome(one_group, steps, prune=False)[0]
        if whole[0] != "bad_computation":
            pruned, _, passed = outcome(data, steps, prune=True)
            assert pruned == whole, condition
            passed_rows += passed
    assert passed_rows


EXPRESSIONS = [
    "id", "ID", '"name"', "id AS a", "name AS id", "input.id", "input.id AS b", "point.x AS x", "point.X AS px", "point",
    "input.point.y AS y", "point.zz AS zz", "nmae", "id + nmae AS n", "id + 1 AS c", "c + 1 AS d", "a", "x", "1 AS one",
    "upper(name) AS u", "upper(name)", "length(u) AS l", "list_transform(list, lambda e: e + 1) AS moved",
    "list_filter(list, lambda name: name > 1) AS some", "*", "* EXCLUDE (name)", "COLUMNS('i.*')", "input AS everything",
    '"a.b" AS dotted', "a.b AS nested", "user", "CAST(name AS INTEGER) AS number", "{'k': id} AS s", "s.k AS sk", "s.q AS sq",
    "CASE WHEN id > 1 THEN name END AS some_name", "rest", "current_date AS today", "main.input.id AS mid", "true AS yes",
]  # fmt: skip
WIDE = pa.table(
    {
        "id": pa.array([1, 2, 3, 4], pa.int64()),
        "name": ["1", "2", None, "x"],
        "point": [{"x": 1, "y": 2}, None, {"x": 3, "y": None}, {"x": 5, "y": 6}],
        "list": [[1, 2], [], None, [3]],
        "a.b": [1.5, 2.5, 3.5, 4.5],
        "rest": ["r"] * 4,
        "U": [True] * 4,
    }
)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["select", "derive"]),
                st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3).map(", ".join),
            ),
            st.tuples(
                st.just("where"),
                st.sampled_from(["id > 1", "nmae > 1", "a > 1", "c > 2", "u = '1'", "point.x > 1", "yes"]),
            ),
            st.just(("limit", "3")),
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=80, deadline=None)
@example([("derive", "id AS name"), ("select", "name")])
@example([("derive", "id AS rest"), ("select", "id")])
@example([("derive", "id + 1"), ("select", "name")])
@example([("select", "id AS a, nmae")])
@example([("select", "1 AS one")])
@example([("select", "id AS rest, rest AS again")])
@example([("select", "list_transform(list, lambda e: e + 1) AS moved, user")])
def test_columns_left_out_make_no_difference(steps: Steps) -> None:
    data = parquet(WIDE, 2)
    try:
        plan_of_query(steps)
    except Refusal:
        return
    whole = outcome(data, steps, prune=False)[0]
    if whole[0] != "bad_computation" or not any(name == "where" for name, _ in steps):
        assert outcome(data, steps, prune=True)[0] == whole


@pytest.mark.parametrize("engine", ["arrow", "arrow-2.4", "polars", "duckdb"])
def test_statistics_of_every_writer_rule_out_what_they_should(engine: str, tmp_path: Path) -> None:
    rows, path = 20_000, tmp_path / "table.parquet"
    numbers = range(rows)
    table = pa.table(
        {
            "n": pa.array(numbers, pa.int32()),
            "big": pa.array([n * 2**40 for n in numbers], pa.int64()),
            "day": pa.array(numbers, pa.date32()),
            "moment": pa.array([n * 1_000_000 for n in numbers], pa.timestamp("us")),
            "price": pa.array([Decimal(n).scaleb(-2) for n in numbers], pa.decimal128(15, 2)),
            "text": [f"{n:05}" for n in numbers],
        }
    )
    if engine == "polars":
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame.write_parquet(path, row_group_size=4096)
    elif engine == "duckdb":
        arrows = table  # noqa: F841, DuckDB finds it by its name
        duckdb.sql(f"COPY (FROM arrows) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 4096)")
    else:
        pq.write_table(table, path, row_group_size=4096, version="2.4" if "2.4" in engine else "2.6")
    data = path.read_bytes()
    assert pq.ParquetFile(path).metadata.num_row_groups >= 4
    for condition in (
        "n < 500",
        "n BETWEEN 100 AND 200",
        "big <= 0",
        "day = DATE '1970-02-01'",
        "moment < TIMESTAMP '1970-01-01 00:01:00'",
        "price IN (1.5, 2)",
        "text <= '00100'",
    ):
        chain = built([("where", condition)], prune=True)
        assert chain.read_file is not None
        read = sum(page.rows for page in chain.read_file(Far(data)))
        assert chain.passed_over.rows + read == rows
        assert read <= rows / 3, condition
