"""SQL steps on single rows by formulas: what they give is what DuckDB gives."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.stages import sql_kernel
from app.stages.sql import Query
from app.stages.sql_engine import QueryOptions
from app.stages.sql_rows import RowQuery, is_row_query
from tests.conformance.check_stage import check_memory, check_stage

PAGE = 64 * 1024
NUMBERS = {"a": pa.int64(), "b": pa.int32(), "x": pa.float64(), "y": pa.float64()}
TYPES = {
    **NUMBERS,
    "t": pa.string(),
    "d": pa.date32(),
    "s": pa.timestamp("s"),
    "u": pa.timestamp("us"),
    "f": pa.bool_(),
    "m": pa.decimal128(12, 2),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "a": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "b": st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3),
    "x": st.floats() | st.sampled_from([0.0, -0.0, 0.05, 0.1, 1.5, 24.0, math.nan, math.inf]),
    "y": st.floats() | st.sampled_from([0.0, 1.5, 24.0]),
    "t": st.sampled_from(["", "a", "ab", "b%", "1", "ä"]) | st.text("ab%_\\ä\n", max_size=4),
    "d": st.dates(datetime.date(1, 1, 1)),
    "s": st.datetimes().map(lambda time: time.replace(microsecond=0)),
    "u": st.datetimes(),
    "f": st.booleans(),
    "m": st.decimals(-(10**9), 10**9, places=2) | st.sampled_from([Decimal("0.05"), Decimal("24.00")]),
}
LITERALS = {
    "a": ["0", "1", "-5", "24", "9223372036854775807", "2.5", "9223372036854775808"],
    "b": ["0", "1", "-5", "2147483648", "0.5"],
    "x": ["0", "1", "0.05", "24", "1e3", "0.1", "123456789012345678", "1.5"],
    "y": ["0", "1.5", "-0.25"],
    "t": ["''", "'a'", "'ab'", "'it''s'"],
    "d": ["DATE '2020-01-31'", "'1998-09-02'", "'0001-01-01'"],
    "s": ["TIMESTAMP '2020-01-31 10:00:00'", "'2020-01-31'", "TIMESTAMP '2020-01-31 10:00:00.5'"],
    "u": ["TIMESTAMP '2020-01-31 10:00:00.25'", "DATE '2020-01-31'", "'2020-01-31T00:00:00'"],
    "f": ["true", "false"],
    "m": ["0.05", "24", "1.234", "-7.5"],
}
NUMBERED = pa.RecordBatch.from_pydict({"x": [math.nan, 1.0, None], "a": [2**63 - 1, 1, 0]})
names = st.sampled_from(sorted(TYPES))
comparisons = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(0, 12))
    columns = {name: draw(st.lists(st.none() | VALUES[name], min_size=rows, max_size=rows)) for name in TYPES}
    return pa.RecordBatch.from_pydict(columns, schema=pa.schema(list(TYPES.items())))


@st.composite
def numbers(draw: st.DrawFn, depth: int = 2) -> str:
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        name = draw(st.sampled_from(sorted(NUMBERS)))
        return draw(st.sampled_from([name, name.upper(), *LITERALS[name]]))
    one, other = draw(numbers(depth - 1)), draw(numbers(depth - 1))
    return f"({one} {draw(st.sampled_from('+-*/'))} {other})"


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["compare", "compare", "between", "in", "null", "like", "number", "columns", "join"]))
    name = draw(names)
    literals = st.sampled_from(LITERALS[name])
    if kind == "join" and depth:
        one, other = draw(conditions(depth - 1)), draw(conditions(depth - 1))
        return draw(st.sampled_from([f"({one}) AND ({other})", f"({one}) OR ({other})", f"NOT ({one})"]))
    if kind == "between":
        return f"{name} BETWEEN {draw(literals)} AND {draw(literals)}"
    if kind == "in":
        some = ", ".join(draw(st.lists(literals, min_size=1, max_size=3)))
        return f"{name} {draw(st.sampled_from(['IN', 'NOT IN']))} ({some})"
    if kind == "null":
        return f"{name} IS {draw(st.sampled_from(['NULL', 'NOT NULL']))}"
    if kind == "like":
        pattern = draw(st.sampled_from(["a%", "%a", "%b%", "%", "a_", "\\%%", "ab"]))
        texts = [f"t LIKE '{pattern}'", f"t NOT LIKE '{pattern}'", "contains(t, 'a')", "starts_with(t, 'ab')"]
        return draw(st.sampled_from([*texts, "suffix(t, 'b')", "f", "NOT f"]))
    if kind == "number":
        return f"{draw(numbers())} {draw(comparisons)} {draw(numbers(0))}"
    if kind == "columns":
        return f"{name} {draw(comparisons)} {draw(names)}"
    sides = draw(st.permutations([name, draw(literals)]))
    return f"{sides[0]} {draw(comparisons)} {sides[1]}"


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, str]]:
    made = [("where", draw(conditions()))] if draw(st.booleans()) else []
    if draw(st.booleans()):
        computed = draw(st.lists(numbers(), min_size=1, max_size=3))
        plain = draw(st.lists(names, max_size=3, unique=True))
        entries = [*(f"{text} AS n{i}" for i, text in enumerate(computed)), *plain]
        made.append(("select", ", ".join(entries)))
        if draw(st.booleans()):
            made.append(("where", f"n0 {draw(comparisons)} 1"))
    else:
        made.append(("derive", f"{draw(numbers())} AS n0, {draw(conditions(1))} AS n1, n1 AS n2, x AS n3"))
    return made


def paged(batch: pa.RecordBatch, rows: int) -> list[Page]:
    starts = range(0, max(1, batch.num_rows), rows)
    slices = [batch.slice(start, rows) for start in starts]
    return [Page(part, max(1, part.nbytes), part.num_rows, first=i == 0) for i, part in enumerate(slices)]


def outcome(pages: Sequence[Page] | Refusal) -> Any:
    """Schema and rows, in which a NaN is a NaN; or what was refused, and where."""
    if isinstance(pages, Refusal):
        return pages.code, pages.position
    schema = pages[0].payload.schema
    table = pa.Table.from_batches([page.payload for page in pages])
    return schema, [[repr(value) for value in column.to_pylist()] for column in table.columns]


def by_query(clauses: Sequence[tuple[str, str]], pages: Sequence[Page]) -> Any:
    try:
        return outcome(list(Query(clauses, QueryOptions(PAGE, 1, 64 << 20)).run(iter(pages))))
    except Refusal as refusal:
        return outcome(refusal)


def by_rows(clauses: Sequence[tuple[str, str]], pages: Sequence[Page]) -> Any:
    stage = RowQuery(clauses, page_bytes=PAGE)
    try:
        return outcome([made for page in pages for made in stage.feed(page)])
    except Refusal as refusal:
        return outcome(refusal)


@contextmanager
def formulas_by(way: str) -> Iterator[None]:
    """Within it formulas are computed by C as far as it can, or by Arrow."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "arrow":
            patch.setattr(sql_kernel, "LIBRARY", None)
        yield


@pytest.mark.parametrize("way", ["c", "arrow"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), clauses=steps(), rows=st.integers(1, 12))
@example(table=NUMBERED, clauses=[("where", "x > 0.5")], rows=2)
@example(table=NUMBERED, clauses=[("where", "NOT x <= 0.5")], rows=2)
@example(table=NUMBERED, clauses=[("derive", "a + 1 AS b")], rows=1)
@example(table=NUMBERED, clauses=[("derive", "a / 0 AS b, 1 / a AS c")], rows=2)
def test_it_is_what_duckdb_says(way: str, table: pa.RecordBatch, clauses: list[tuple[str, str]], rows: int) -> None:
    pages = paged(table, rows)
    with formulas_by(way):
        found = by_rows(clauses, pages)
    assert found == by_query(clauses, pages), clauses


@pytest.mark.parametrize(
    ("clauses", "can"),
    [
        ([("where", "x < 24"), ("select", "a, x * (1 - y) AS z, t")], True),
        ([("derive", "a + 1 AS next")], True),
        ([("where", "t LIKE 'a%' OR d BETWEEN '2020-01-01' AND DATE '2020-12-31'")], True),
        ([("where", "regexp_matches(t, 'a')")], False),
        ([("select", "upper(t) AS u")], False),
        ([("select", "* EXCLUDE (a)")], False),
        ([("distinct", "a")], False),
        ([("aggregate", "count(*) AS n")], False),
    ],
)
def test_which_steps_workers_do(clauses: list[tuple[str, str]], can: bool) -> None:
    assert is_row_query(clauses) is can


def test_formulas_do_the_plain_steps_without_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("DuckDB was asked for a page")

    monkeypatch.setattr("app.stages.sql_bound_rows.shared_engine", refuse)
    table = pa.RecordBatch.from_pydict({"x": [1.0, 30.0, None], "t": ["a", "b", "c"], "d": [None, 1, 2]})
    for clauses in (
        [("where", "x < 24")],
        [("select", "x * 2 AS twice, t")],
        [("where", "t = 'b'"), ("derive", "1 + d AS e")],
    ):
        assert by_rows(clauses, paged(table, 2))[0]


def test_a_page_that_formulas_cannot_do_is_not_lost() -> None:
    table = pa.RecordBatch.from_pydict({"a": [1, 2**62, 3]}, pa.schema([("a", pa.int64())]))
    clauses = [("where", "a * 2 > 2")]  # DuckDB compares a with 1 instead
    _, (column,) = by_rows(clauses, paged(table, 1))
    assert column == [str(2**62), "3"]
    clauses = [("derive", "a * 2 AS b")]
    assert by_rows(clauses, paged(table, 1)) == by_query(clauses, paged(table, 1)) == ("bad_computation", None)


def test_what_does_not_fit_the_columns_is_refused_where_it_stands() -> None:
    page = paged(pa.RecordBatch.from_pydict({"a": [1]}), 1)[0]
    with pytest.raises(Refusal) as caught:
        list(RowQuery([("where", "a > 0 AND nme = 'x'")], page_bytes=PAGE).feed(page))
    assert (caught.value.code, caught.value.position) == ("bad_sql", 10)


def test_rejects_and_the_first_page_go_on() -> None:
    reject = Reject(3, 40, "bad_value", "no", "x")
    page = Page(pa.RecordBatch.from_pydict({"a": [1, 2]}), 16, 2, first=True, rejects=(reject,))
    for condition, rows in (("a > 1", 1), ("a > 5", 0)):
        (made,) = RowQuery([("where", condition)], page_bytes=PAGE).feed(page)
        assert (made.first, made.rejects, made.rows) == (True, (reject,), rows)


def wide_pages(rows: int) -> list[Page]:
    table = pa.RecordBatch.from_pydict(
        {"a": list(range(rows)), "x": [n / 3 for n in range(rows)], "t": [f"text {n % 100}" for n in range(rows)]}
    )
    return paged(table, PAGE // 28)


def test_it_keeps_the_laws_of_stages() -> None:
    clauses = [("where", "x < 500"), ("derive", "x * 2 AS y, a - 1 AS z")]
    table = pa.Table.from_batches([page.payload for page in wide_pages(6000)]).combine_chunks().to_batches()[0]
    check_stage(
        lambda: [RowQuery(clauses, page_bytes=PAGE)],
        [paged(table, rows) for rows in (6000, 1700, 333)],
        page_bytes=PAGE,
    )
    check_memory(lambda: [RowQuery(clauses, page_bytes=PAGE)], wide_pages(20000), page_bytes=2 * PAGE)
