"""SQL steps: what may be said, that it equals DuckDB, that order and bounds hold, and what failures say."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.stages.sql import Query, check, warm_up
from app.stages.sql_engine import QueryOptions

PAGE = 64 * 1024
TABLE = pa.table(
    {
        "id": pa.array(range(5000), pa.int64()),
        "name": pa.array([None if n % 7 == 0 else f"name {n % 13}" for n in range(5000)]),
        "price": pa.array([n / 4 for n in range(5000)]),
        "tax": pa.array([n % 100 for n in range(5000)], pa.int32()),
        "day": pa.array([n % 1000 for n in range(5000)], pa.date32()),
    }
)


def pages(table: pa.Table, rows: int = 700) -> Iterator[Page]:
    batches = [batch for batch in table.combine_chunks().to_batches(rows) if batch.num_rows]
    batches = batches or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    for index, batch in enumerate(batches):
        yield Page(batch, max(1, batch.nbytes), rows=batch.num_rows, first=index == 0)


def run(
    clauses: Sequence[tuple[str, str]], given: Iterator[Page] | None = None, *, page_bytes: int = PAGE, threads: int = 1
) -> list[Page]:
    query = Query(clauses, QueryOptions(page_bytes, threads, 64 << 20))
    return list(query.run(pages(TABLE) if given is None else given))


def rows_of(out: Sequence[Page]) -> list[dict[str, object]]:
    return [row for page in out for row in page.payload.to_pylist()]


def refusal_of(*clauses: tuple[str, str]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        run(clauses)
    return caught.value


HIGH = "CASE WHEN tax > 50 THEN 'high' ELSE 'low' END AS c"
DAYS = "regexp_matches(name, '1[0-2]$') AND day BETWEEN DATE '1970-02-01' AND DATE '1971-02-01'"


@pytest.mark.parametrize(
    ("clauses", "sql"),
    [
        ([("where", "tax < 24")], "SELECT * FROM t WHERE tax < 24"),
        ([("select", "id, price*(1-tax/100.0) AS r, name")], "SELECT id, price*(1-tax/100.0) AS r, name FROM t"),
        ([("derive", "upper(name) AS n, day + 1 AS next")], "SELECT *, upper(name) AS n, day + 1 AS next FROM t"),
        (
            [
                ("where", "name IS NOT NULL"),
                ("select", "id AS a, tax"),
                ("where", "a % 3 = 0"),
                ("derive", "a+tax AS b"),
            ],
            "SELECT *, a+tax AS b FROM (SELECT id AS a, tax FROM t WHERE name IS NOT NULL) WHERE a % 3 = 0",
        ),
        ([("select", "* EXCLUDE (name, day)")], "SELECT * EXCLUDE (name, day) FROM t"),
        ([("select", HIGH)], f"SELECT {HIGH} FROM t"),
        ([("where", DAYS)], f"SELECT * FROM t WHERE {DAYS}"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_it_equals_duckdb_row_for_row(clauses: list[tuple[str, str]], sql: str, threads: int) -> None:
    out = run(clauses, threads=threads)
    t = TABLE  # noqa: F841, DuckDB finds it by its name
    expected = duckdb.sql(sql).to_arrow_table()
    assert rows_of(out) == expected.to_pylist()
    assert [page.first for page in out] == [True] + [False] * (len(out) - 1)
    for page in out:
        assert page.rows == page.payload.num_rows
        assert page.payload.nbytes <= page.nbytes <= max(1, page.payload.get_total_buffer_size())
        assert page.payload.schema.names == expected.schema.names
        assert page.nbytes <= 2 * PAGE


def test_the_cut_of_the_input_does_not_matter() -> None:
    clauses = [("where", "tax >= 50"), ("derive", "price * 2 AS twice")]
    expected = rows_of(run(clauses))
    for rows in (1, 17, 5000):
        assert rows_of(run(clauses, pages(TABLE, rows))) == expected


def test_no_row_is_still_a_table() -> None:
    for given in (pages(TABLE), pages(TABLE.slice(0, 0))):
        out = run([("where", "id < 0"), ("select", "id, name AS n")], given)
        assert [page.rows for page in out] == [0]
        assert out[0].payload.schema.names == ["id", "n"]
        assert out[0].first


def test_rows_come_while_the_input_still_does() -> None:
    given = 0

    def slowly() -> Iterator[Page]:
        nonlocal given
        for page in pages(pa.concat_tables([TABLE] * 40), 2048):
            given += 1
            yield page

    query = Query([("derive", "id + 1 AS next")], QueryOptions(PAGE, 1, 64 << 20))
    results = query.run(slowly())
    next(results)
    assert given < 60, "it must not read everything before it gives anything"
    results.close()


def test_fat_rows_stay_in_pages_of_two() -> None:
    chance = random.Random(1)
    texts = ["x" * chance.choice([1, 10, 20_000]) for _ in range(400)]
    table = pa.table({"s": texts, "n": range(400)})
    out = run([("derive", "s || s AS twice")], pages(table, 20))
    assert [row["twice"] for row in rows_of(out)] == [text * 2 for text in texts]
    assert all(page.nbytes <= 2 * PAGE or page.rows == 1 for page in out)


def test_a_row_that_outgrows_two_pages_is_refused() -> None:
    table = pa.table({"s": ["x" * 40_000]})
    with pytest.raises(Refusal) as caught:
        run([("select", "s || s || s || s AS s")], pages(table))
    assert caught.value.code == "page_too_large"


def test_rejects_are_not_lost() -> None:
    reject = Reject(3, 10, "bad_value", "detail", "text")
    first, *rest = pages(TABLE)
    given = [Page(first.payload, first.nbytes, first.rows, first=True, rejects=(reject,)), *rest]
    given[-1] = Page(given[-1].payload, given[-1].nbytes, given[-1].rows, rejects=(reject,))
    out = run([("where", "id < 0")], iter(given))
    assert [reject for page in out for reject in page.rejects] == [reject, reject]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_the_input_raises_comes_out_as_it_is(threads: int) -> None:
    def broken() -> Iterator[Page]:
        yield from pages(TABLE)
        raise Refusal("truncated_input", "on purpose", byte=7)

    with pytest.raises(Refusal) as caught:
        run([("where", "id >= 0")], broken(), threads=threads)
    assert (caught.value.code, caught.value.byte) == ("truncated_input", 7)


@pytest.mark.parametrize(
    ("kind", "text", "position", "says"),
    [
        ("where", "", 0, "empty"),
        ("where", "a > > 2", 4, "condition"),
        ("where", "a > 1; DROP TABLE x", 5, "condition"),
        ("where", "a > 1) OR (true", 5, ""),
        ("where", "a IN (SELECT 1)", 5, "subquery"),
        ("select", "row_number() OVER ()", 0, "window"),
        ("select", "sum(a)", 0, "sum"),
        ("select", "a FROM input", 2, ""),
        ("select", "a, 1 b", 3, "AS"),
        ("select", "read_csv('/etc/passwd')", 0, "read_csv"),
        ("select", "getenv('HOME')", 0, "getenv"),
        ("where", "uper(a) = 'X'", 0, "upper"),
        ("where", "(" * 500 + "a" + ")" * 500, 0, "parentheses"),
        ("select", "a\0", 1, "U+0000"),
    ],
)
def test_what_may_not_be_said(kind: str, text: str, position: int, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        check(kind, text)
    assert caught.value.code == "bad_sql"
    assert says in caught.value.detail
    assert caught.value.position is not None
    assert abs(caught.value.position - position) <= 2, caught.value.position


def test_errors_that_need_the_columns_tell_the_position() -> None:
    missing = refusal_of(("where", "tax > 1 AND nmae = 'x'"))
    assert (missing.code, missing.position) == ("bad_sql", 12)
    assert "name" in missing.detail
    typed = refusal_of(("derive", "1 AS one"), ("where", "id + name > 1 AND date_trunc('day', tax) = 1"))
    assert typed.code in ("bad_sql", "bad_computation")
    twice = refusal_of(("derive", "tax AS id"))
    assert (twice.code, "id" in twice.detail) == ("bad_sql", True)


def test_a_value_that_cannot_be_computed_is_told() -> None:
    refusal = refusal_of(("derive", "CAST(name AS INTEGER) AS n"))
    assert refusal.code == "bad_computation"
    assert "try_cast" in refusal.detail
    assert rows_of(run([("select", "try_cast(name AS INTEGER) AS n")]))[1] == {"n": None}


def test_nothing_outside_can_be_reached() -> None:
    for text in ("'x' IN (FROM '/etc/passwd')", "pg_read_file('/etc/passwd') = ''", "getvariable('x') = 1"):
        assert refusal_of(("where", text)).code == "bad_sql"


def test_warm_up_can_be_called_again() -> None:
    warm_up()
    warm_up()
