"""The SQL steps that see the whole stream: aggregate, distinct, sql."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from app.core.errors import Refusal
from app.core.interfaces import Spill
from app.core.page import Page
from app.plan.chain import row_stages
from app.plan.plan import PlannedStep
from app.stages import STEPS, StageContext
from app.stages.distinct import Distinct
from app.stages.sql import Query, check
from app.stages.sql_engine import QueryOptions
from app.stages.sql_functions import AGGREGATES, HOLDING_AGGREGATES, WINDOWS
from app.stages.sql_text import parse
from app.stores.spool import Spool
from tests.conformance.check_stage import run_chain

PAGE = 1 << 16
ROWS = 6000
_seed = random.Random(5)
TABLE = pa.table(
    {
        "id": range(ROWS),
        "k": [_seed.choice(["a", "b", None, "ä long name"]) for _ in range(ROWS)],
        "j": pa.array([_seed.randrange(50) for _ in range(ROWS)], pa.int32()),
        "x": [_seed.choice([None, _seed.random() * 10.0 ** _seed.randrange(-9, 9)]) for _ in range(ROWS)],
        "d": pa.array([_seed.randrange(10**6) for _ in range(ROWS)]).cast(pa.decimal128(21, 2)),
    }
)


def pages(table: pa.Table, rows: int) -> Iterator[Page]:
    batches = table.combine_chunks().to_batches(rows) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    for index, batch in enumerate(batches):
        yield Page(batch, max(1, batch.nbytes), rows=batch.num_rows, first=index == 0)


def options(whole_bytes: int = 64 << 20, spill: Spill | None = None) -> QueryOptions:
    return QueryOptions(PAGE, 2, whole_bytes, spill)


def run(*clauses: tuple[str, str], table: pa.Table = TABLE, rows: int = 700) -> pa.Table:
    if any(kind == "distinct" for kind, _ in clauses):
        planned = [PlannedStep(STEPS[kind], text) for kind, text in clauses]
        context = StageContext(PAGE, 100, False, {}, None, tolerant=False)
        found = list(run_chain(row_stages(planned, context, options()), pages(table, rows)))
    else:
        found = list(Query(clauses, options()).run(pages(table, rows)))
    assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    return pa.Table.from_batches([page.payload for page in found])


def refusal_of(*clauses: tuple[str, str]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        run(*clauses)
    return caught.value


SESSIONS = """WITH ranked AS (SELECT *, row_number() OVER (PARTITION BY k ORDER BY x, id) AS r FROM input)
SELECT k, x FROM ranked WHERE r <= 2 ORDER BY k, x"""


@pytest.mark.parametrize(
    ("clauses", "sql"),
    [
        (
            [("aggregate", "count(*) as n, sum(d) as sd, avg(j) as a by k")],
            "SELECT k, count(*) AS n, sum(d) AS sd, avg(j) AS a FROM input GROUP BY k ORDER BY k NULLS LAST",
        ),
        (
            [
                ("where", "j < 9"),
                ("aggregate", "max(x) FILTER (j > 2) as m, count(DISTINCT k) as n BY j % 3 as r, d > 10 as big"),
            ],
            """SELECT j % 3 AS r, d > 10 AS big, max(x) FILTER (j > 2) AS m, count(DISTINCT k) AS n FROM input WHERE j < 9
            GROUP BY 1, 2 ORDER BY 1, 2""",
        ),
        (
            [("aggregate", "min(id) as first by k, j"), ("where", "j > 40"), ("select", "first+1 as f, k")],
            """SELECT f + 1 AS f, k FROM (SELECT k, j, min(id) AS f FROM input GROUP BY ALL) WHERE j > 40
            ORDER BY k NULLS LAST, j""",
        ),
        ([("aggregate", "count(*) as n")], "SELECT count(*) AS n FROM input"),
        (
            [("where", "j > 99"), ("aggregate", "count(*) as n, sum(j) as s")],
            "SELECT 0::BIGINT AS n, NULL::DECIMAL(38,0) AS s",
        ),
        (
            [("where", "j > 99"), ("aggregate", "count(*) as n by k")],
            "SELECT k, count(*) AS n FROM input WHERE j > 99 GROUP BY k",
        ),
        (
            [("distinct", "k, J")],
            "SELECT input.* FROM input JOIN (SELECT min(id) AS id FROM input GROUP BY k, j) USING (id) ORDER BY id",
        ),
        ([("select", "k"), ("distinct", "")], "SELECT k FROM input GROUP BY k ORDER BY min(id)"),
        (
            [("distinct", "j"), ("aggregate", "count(*) as n by k"), ("distinct", "n")],
            """SELECT k, n FROM (SELECT k, count(*) AS n FROM (SELECT DISTINCT ON (j) * FROM input ORDER BY id) GROUP BY k)
            QUALIFY row_number() OVER (PARTITION BY n ORDER BY k NULLS LAST) = 1 ORDER BY k NULLS LAST""",
        ),
        ([("sql", SESSIONS)], SESSIONS),
        ([("sql", "SELECT t.k, sum(d) s FROM (FROM input WHERE j > 1) t GROUP BY ALL ORDER BY s -- why")], None),
        ([("sql", "SELECT id, sum(j) OVER (ORDER BY id ROWS 2 PRECEDING) AS s FROM input")], None),
        (
            [
                (
                    "sql",
                    "SELECT k, j, grouping(k) g, count(*) n FROM input GROUP BY ROLLUP (k, j) ORDER BY ALL LIMIT 40 OFFSET 3",
                )
            ],
            None,
        ),
        ([("sql", "SELECT DISTINCT ON (k) k, x FROM input ORDER BY k, id"), ("derive", "x IS NULL AS missing")], None),
    ],
)
def test_the_answer_is_that_of_one_query(clauses: list[tuple[str, str]], sql: str | None) -> None:
    with duckdb.connect() as connection:
        connection.register("input", TABLE)
        if sql is None:
            sql = f"FROM ({clauses[0][1]}\n)"
            sql += f" SELECT *, {clauses[1][1]}" if len(clauses) > 1 else ""
        wanted = connection.sql(sql).to_arrow_table()
    found = run(*clauses)
    assert found.schema.names == wanted.schema.names or clauses[0][0] == "aggregate"
    assert found.to_pylist() == [dict(zip(found.schema.names, row.values(), strict=True)) for row in wanted.to_pylist()]
    assert found.num_rows or "99" in clauses[0][1]


@pytest.mark.parametrize(
    "argument", ["sum(x) as s, avg(x) as a, stddev(x) as d, corr(x, j) as c by k", "sum(x) as s, avg(x) as a"]
)
def test_floats_are_the_same_however_the_input_is_cut(argument: str) -> None:
    wanted = run(("aggregate", argument), rows=ROWS)
    assert all(run(("aggregate", argument), rows=rows).equals(wanted) for rows in (1, 7, 700, 2048, 5999))


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path, limit_bytes=1 << 30)) as spool:
        yield spool


def test_what_does_not_fit_into_memory_goes_to_disk(spill: Spool) -> None:
    def numbered() -> Iterator[Page]:
        for start in range(0, 3_000_000, 5000):
            ids = pa.array(range(start, start + 5000))
            batch = pa.record_batch({"id": ids, "key": pc.bit_wise_xor(ids, 0x15555), "half": pc.divide(ids, 2)})
            yield Page(batch, batch.nbytes, rows=batch.num_rows, first=start == 0)

    query = Query((("aggregate", "count(*) as n, sum(id) as s by key"),), options(48 << 20, spill))
    rows = total = last = 0
    for page in query.run(numbered()):
        keys = page.payload.column("key")
        assert keys[0].as_py() >= last
        assert page.payload.column("n").unique().to_pylist() == [1]
        last, rows, total = keys[-1].as_py(), rows + page.rows, total + pc.sum(page.payload.column("s")).as_py()
    assert (rows, total) == (3_000_000, 2_999_999 * 1_500_000)
    assert query.spilled_bytes > 16 << 20

    firsts = Distinct(parse("distinct", "half"), options(40 << 20, spill))
    ids = pa.chunked_array([page.payload.column("id") for page in firsts.run(numbered())])
    assert ids.equals(pa.chunked_array([pa.array(range(0, 3_000_000, 2))]))
    assert firsts.spilled_bytes > 16 << 20
    assert [path.name for path in spill.directory.iterdir()] == ["owner.lock"]

    spill.limit_bytes = 4 << 20
    query = Query((("aggregate", "count(*) as n by key"),), options(48 << 20, spill))
    with pytest.raises(Refusal, match="SPOOL_LIMIT") as caught:
        list(query.run(numbered()))
    assert caught.value.code == "spool_full"


def test_without_a_disk_it_is_refused_and_says_what_to_do() -> None:
    table = pa.table({"id": range(2_000_000)})
    query = Query((("aggregate", "count(*) as n by id"),), options(16 << 20))
    with pytest.raises(Refusal, match="QUERY_MEMORY") as caught:
        list(query.run(pages(table, 8192)))
    assert caught.value.code == "state_too_large"


def test_a_limit_leaves_the_rest_of_the_input_unread() -> None:
    def endless() -> Iterator[Page]:
        batch = TABLE.to_batches(512)[0]
        yield Page(batch, batch.nbytes, rows=batch.num_rows, first=True)
        while True:
            yield Page(batch, batch.nbytes, rows=batch.num_rows)

    query = Query((("sql", "SELECT id FROM input WHERE j = 7 LIMIT 3"),), options())
    assert sum(page.rows for page in query.run(endless())) == 3


@pytest.mark.parametrize(
    ("clause", "argument", "said", "position"),
    [
        ("aggregate", "", "that is missing", 0),
        ("aggregate", "by k", "begins with select", 0),
        ("aggregate", "count(*) as n by", "nothing behind 'by'", 14),
        ("aggregate", "k by j", "no aggregate", 0),
        ("aggregate", "sum(x) as s, k by j", "no aggregate", 13),
        ("aggregate", "sum(x) as s by sum(j)", "an aggregate stands before by", 15),
        ("aggregate", "sum(x) as s by *", "a star cannot", 15),
        ("aggregate", "sum(x) as s by ä, zz", "no column 'ä'", 15),
        ("aggregate", "'ä' = min(k) as u, sum(zz) as s by k", "no column 'zz'", 23),
        ("aggregate", "sum(sum(x)) as s", "cannot be nested", 4),
        ("aggregate", "sum(x) s", "write AS", 0),
        ("aggregate", "sum(x) as s where x > 1", "use the where step", 12),
        ("aggregate", "median(x) as m", "approx_quantile does not", 0),
        ("aggregate", "min(x ORDER BY id) as m", "ORDER BY cannot stand in min", 0),
        ("aggregate", "sum(x) over () as m", "a window function", 0),
        ("aggregate", "sum(x) as K by k", "there already", 0),
        ("distinct", "k, j + 1", "is about columns", 5),
        ("distinct", "k, zz", "no column 'zz'", 3),
        ("distinct", "k as c", "is about columns", 0),
        ("sql", "SELECT 1", "must read FROM input", 0),
        ("sql", "SELECT * FROM input a JOIN input b USING (id)", "use enrich", 0),
        ("sql", "WITH a AS (FROM input), b AS (FROM a) SELECT * FROM a, b", "use enrich", 0),
        ("sql", "WITH a AS (FROM input) FROM input", "nothing reads 'a'", 0),
        ("sql", "WITH input AS (FROM input) FROM input", "is taken", 0),
        ("sql", "WITH a AS (FROM b), b AS (FROM a) FROM b", "no table", 0),
        ("sql", "SELECT id FROM input UNION ALL SELECT id FROM input", "can be read once", 0),
        ("sql", "SELECT (SELECT max(x) FROM input) AS m FROM input", "a subquery", 7),
        ("sql", "SELECT id FROM input WHERE id IN (SELECT id FROM input)", "a subquery", 33),
        ("sql", "SELECT * FROM 'secret.csv'", "no table secret.csv", 0),
        ("sql", "SELECT * FROM read_csv('secret.csv')", "no function read_csv", 0),
        ("sql", "SELECT * FROM main.input", "no table main.input", 0),
        ("sql", "SELECT getenv('HOME') FROM input", "no function getenv", 7),
        ("sql", "SELECT id FROM (SELECT getenv('HOME') AS id FROM input)", "no function getenv", 23),
        ("sql", "SELECT id FROM input ORDER BY getenv('HOME')", "no function getenv", 30),
        ("sql", "SELECT list(x) FROM input", "hold all values", 7),
        ("sql", "SELECT string_agg(k) OVER () FROM input", "hold all values", 7),
        ("sql", "SELECT id FROM input LIMIT 10%", "no percentage", 0),
        ("sql", "SELECT id FROM input LIMIT 1 + 1", "stand numbers", 0),
        ("sql", "SELECT id FROM input TABLESAMPLE 10%", "the sample step", 0),
        ("sql", "FROM input t(a, b)", "name columns by AS", 0),
        ("sql", "DROP TABLE input", "one SELECT", 0),
        ("sql", "SELECT id FROM input; SELECT 1", "more than one statement", 0),
        ("sql", "SELECT id, zz FROM input", "no column 'zz'", 11),
        ("sql", "SELECT id, id FROM input", "there already", 11),
        ("sql", "SELECT 1) FROM (SELECT 1", "syntax error", 8),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_stands(clause: str, argument: str, said: str, position: int) -> None:
    refusal = refusal_of((clause, argument))
    assert refusal.code == "bad_sql"
    assert said in refusal.detail
    assert refusal.position == position


def test_a_value_that_cannot_be_computed_is_found_in_its_text() -> None:
    refusal = refusal_of(("where", "id >= 0"), ("aggregate", "count(*) as n, sum(k::INT) as s by j"))
    assert (refusal.code, refusal.position) == ("bad_computation", 20)
    assert refusal.detail.startswith("aggregate: Could not convert")


def test_a_growing_value_is_refused_in_a_query_too() -> None:
    grown = "SELECT k || k AS k FROM input"
    for _ in range(8):
        grown = f"SELECT k || k AS k FROM ({grown})"
    with pytest.raises(Refusal, match="times as large"):
        check("sql", grown)


def test_every_aggregate_is_either_offered_or_refused(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        kinds = "function_type = 'aggregate' AND function_name NOT LIKE '\\_\\_%' ESCAPE '\\'"
        found = connection.execute(f"SELECT DISTINCT function_name FROM duckdb_functions() WHERE {kinds}").fetchall()
    unknown = {name for (name,) in found} - AGGREGATES - HOLDING_AGGREGATES
    # What is on neither list is refused as any function that is not known.
    for name in unknown:
        with pytest.raises(Refusal, match=r"there is no function|no aggregate"):
            check("aggregate", f"{name}(x) as s")
    assert not AGGREGATES & HOLDING_AGGREGATES
    assert not WINDOWS & AGGREGATES


def test_nothing_is_read_twice_behind_a_query() -> None:
    clauses: Sequence[tuple[str, str]] = [
        ("sql", "FROM input WHERE j < 5"),
        ("distinct", "j"),
        ("aggregate", "sum(j) as s"),
    ]
    assert run(*clauses).to_pylist() == [{"s": 10}]
