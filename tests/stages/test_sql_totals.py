"""Queries that group in two levels: the answer is that of one query, bit for bit, however the input is cut."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page
from app.stages import sql_totals
from app.stages.sql import Query
from app.stages.sql_engine import QueryOptions
from app.stages.sql_levels import levels
from app.stages.sql_text import parse
from app.stages.sql_totals import GroupColumns, Grouped, GroupTotals
from app.stores.spool import Spool
from tests.conformance.check_stage import run_stages
from tests.stages.test_sql_rows import PAGE, conditions, formulas_by, names, numbers, outcome, paged, tables

OPTIONS = QueryOptions(PAGE, 1, 64 << 20)
KEYS = ("a", "b", "t", "d", "s", "u", "f", "m")


@st.composite
def aggregates(draw: st.DrawFn) -> str:
    name = draw(names)
    texts = ["count(*)", f"count({name})", f"min({name})", f"MAX({name})", "sum(x)", "sum(a)", "sum(b)", "sum(m)"]
    texts += ["avg(x)", "avg(b)", "mean(y)", f"sum({draw(numbers(1))})", "count(DISTINCT b)", "sum(x) FILTER (WHERE f)"]
    return draw(st.sampled_from(texts))


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str]:
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=2, unique=True))
    made = [f"{text} AS n{i}" for i, text in enumerate(draw(st.lists(aggregates(), min_size=1, max_size=4)))]
    if draw(st.booleans()):
        return "aggregate", ", ".join(made) + (f" BY {', '.join(keys)}" if keys else "")
    where = f" WHERE {draw(conditions(1))}" if draw(st.booleans()) else ""
    group = f" GROUP BY {', '.join(keys)}" if keys else ""
    having = draw(st.sampled_from(["", " HAVING count(*) > 1", " HAVING n0 IS NOT NULL"])) if keys else ""
    order = f" ORDER BY {', '.join(keys)}{draw(st.sampled_from(['', ' DESC', ', n0']))}" if keys else ""
    limit = draw(st.sampled_from(["", " LIMIT 3", " LIMIT 2 OFFSET 1"])) if keys else ""
    odd = draw(st.sampled_from(["", ", sum(x) * 2 + count(*) AS more", ", 1 AS one"]))
    return "sql", f"SELECT {', '.join([*keys, *made])}{odd} FROM input{where}{group}{having}{order}{limit}"


def by_query(clause: tuple[str, str], pages: Sequence[Page]) -> Any:
    try:
        return outcome(list(Query([clause], OPTIONS).run(iter(pages))))
    except Refusal as refusal:
        return outcome(refusal)


def in_levels(clause: tuple[str, str], pages: Sequence[Page], options: QueryOptions = OPTIONS) -> Any:
    """None where the clause is not taken apart."""
    apart = levels(parse(*clause))
    if apart is None:
        return None
    grouped = Grouped(apart)
    stages = [GroupColumns(grouped, page_bytes=PAGE), GroupTotals(grouped, page_bytes=PAGE)]

    def totals() -> Iterator[Page]:
        yield from run_stages(stages, pages)

    try:
        query = Query([clause], options, grouped=grouped)
        made = outcome(list(query.run(totals())))
    except Refusal as refusal:
        return outcome(refusal)
    assert (query.spilled_bytes > 0) == (options is not OPTIONS)
    return made


@pytest.mark.parametrize("way", ["c", "arrow"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), clause=questions(), rows=st.integers(1, 12))
def test_the_answer_is_that_of_one_query(way: str, table: pa.RecordBatch, clause: tuple[str, str], rows: int) -> None:
    try:
        parse(*clause)
    except Refusal:
        return
    pages = paged(table, rows)
    with formulas_by(way):
        found = in_levels(clause, pages)
    assert found is None or found == by_query(clause, pages), clause


def many(rows: int, keys: int) -> pa.RecordBatch:
    chance = random.Random(rows + keys)
    return pa.RecordBatch.from_pydict(
        {
            "k": [f"key {chance.randrange(keys)}" for _ in range(rows)],
            "g": [chance.randrange(keys) for _ in range(rows)],
            "x": [chance.uniform(-1e9, 1e9) for _ in range(rows)],
            "n": [chance.randrange(-(2**62), 2**62) for _ in range(rows)],
        }
    )


@pytest.mark.parametrize(
    "clause",
    [
        ("aggregate", "count(*) AS n, sum(x) AS s, avg(x) AS m, min(n) AS least, sum(n) AS total BY k"),
        ("aggregate", "sum(x * (1 - x)) AS s, max(x) AS most"),
        ("sql", "SELECT g, k, sum(x) AS s FROM input WHERE x > 0 GROUP BY g, k ORDER BY s DESC LIMIT 20"),
        ("sql", "SELECT count(*) AS n FROM input WHERE x > 0"),
    ],
)
@pytest.mark.parametrize("keys", [3, 20_000])
def test_groups_that_do_not_fit_go_on_in_parts(
    clause: tuple[str, str], keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums too: what was added so far is the first number, and the others follow in their order."""
    monkeypatch.setattr(sql_totals, "GROUPS_BYTES", 64 * 1024)
    table = many(30_000, keys)
    expected = by_query(clause, paged(table, 1000))
    for rows in (1000, 7919, 30_000):
        assert in_levels(clause, paged(table, rows)) == expected


def test_sums_beyond_64_bits_are_exact() -> None:
    table = pa.RecordBatch.from_pydict({"n": [2**63 - 1] * 40})
    found = in_levels(("aggregate", "sum(n) AS s, avg(n) AS m"), paged(table, 7))
    assert found == by_query(("aggregate", "sum(n) AS s, avg(n) AS m"), paged(table, 7))
    assert found[1][0] == [f"Decimal('{40 * (2**63 - 1)}')"]


@pytest.mark.parametrize(
    ("clause", "is_apart"),
    [
        (("aggregate", "count(*) AS n, sum(x) AS s BY k"), True),
        (("sql", "SELECT k, avg(x) AS m FROM input GROUP BY 1 HAVING count(*) > 2 ORDER BY m"), True),
        (("sql", "SELECT k, x FROM input ORDER BY x"), False),
        (("sql", "SELECT DISTINCT k FROM input"), False),
        (("sql", "SELECT k, row_number() OVER (ORDER BY count(*)) AS r FROM input GROUP BY k"), False),
        (("sql", "SELECT upper(k) AS u, count(*) AS n FROM input GROUP BY u"), False),
        (("sql", "SELECT x + 1 AS k, count(*) AS n FROM input GROUP BY k"), False),
        (("aggregate", "stddev(x) AS s"), False),
        (("aggregate", "first(x) AS s"), False),
        (("aggregate", "count(DISTINCT k) AS n"), False),
        (("sql", "SELECT n FROM (SELECT count(*) AS n FROM input)"), False),
    ],
)
def test_what_is_taken_apart(clause: tuple[str, str], is_apart: bool) -> None:
    assert (levels(parse(*clause)) is not None) is is_apart


def test_of_two_zeros_the_later_one_is_the_least() -> None:
    for values in ([-0.0, 0.0], [0.0, -0.0], [float("nan"), 0.0, -0.0, 5.0]):
        for type_ in (pa.float32(), pa.float64()):
            table = pa.RecordBatch.from_pydict({"x": pa.array(values, type_)})
            clause = ("aggregate", "min(x) AS least, max(x) AS most")
            assert in_levels(clause, paged(table, 2)) == by_query(clause, paged(table, 2))


def test_only_totals_come_to_the_query() -> None:
    apart = levels(parse("sql", "SELECT g, sum(x) AS s FROM input WHERE x > 0 GROUP BY g ORDER BY g"))
    assert apart is not None
    grouped = Grouped(apart)
    stages = [GroupColumns(grouped, page_bytes=PAGE), GroupTotals(grouped, page_bytes=PAGE)]
    (page,) = run_stages(stages, paged(many(30_000, 5), 1000))
    assert (page.rows, page.first) == (5, True)


def test_types_that_do_not_go_in_levels_go_to_the_query_as_they_are() -> None:
    table = pa.RecordBatch.from_pydict(
        {"k": [[1], [1], [2]], "x": [1, 2, 3]}, pa.schema({"k": pa.list_(pa.int64()), "x": pa.uint64()}.items())
    )
    for clause in (("aggregate", "count(*) AS n BY k"), ("aggregate", "sum(x) AS s")):
        assert in_levels(clause, paged(table, 2)) == by_query(clause, paged(table, 2))


def test_errors_tell_the_position_in_the_text() -> None:
    text = "SELECT k, sum(nope) AS s FROM input GROUP BY k"
    assert in_levels(("sql", text), paged(many(3, 3), 2)) == ("bad_sql", text.index("nope"))


@pytest.mark.parametrize(
    "clause",
    [
        ("aggregate", "count(*) AS n, sum(n) AS total, min(k) AS first_key, max(n) AS most BY k, g"),
        (
            "sql",
            "SELECT k, max(x) + count(*) AS a FROM input GROUP BY k HAVING count(*) > 1 ORDER BY k LIMIT 50 OFFSET 7",
        ),
    ],
)
def test_groups_that_do_not_fit_go_to_disk(
    clause: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sql_totals, "GROUPS_BYTES", 64 * 1024)
    pages = paged(many(30_000, 20_000), 1000)
    with closing(Spool(tmp_path, limit_bytes=1 << 30)) as spool:
        options = QueryOptions(PAGE, 1, 3 << 20, spool)
        assert in_levels(clause, pages, options) == by_query(clause, pages)
