"""The first row of each key, in the order of the input, in however little memory."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from concurrent.futures import CancelledError
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.core.interfaces import Operator, Stage
from app.core.page import Page, Reject
from app.plan.chain import row_stages
from app.plan.plan import PlannedStep
from app.stages import STEPS, StageContext, distinct, groups
from app.stages.distinct import Distinct
from app.stages.sql_engine import QueryOptions
from app.stages.sql_text import parse
from app.stores.spool import Spool
from tests.conformance.check_stage import run_chain
from tests.stages.spooled import spooled

SMALL = 128 * 1024
ROWS = 12_000
_chance = random.Random(4)
TABLE = pa.table(
    {
        "id": range(ROWS),
        "few": pa.array([_chance.choice([None, "", "a", "ä long name of more than fifteen"]) for _ in range(ROWS)]),
        "many": [f"some text {_chance.randrange(9000)}" for _ in range(ROWS)],
        "f": [_chance.choice([None, 0.0, -0.0, float("nan"), 1.5, _chance.random()]) for _ in range(ROWS)],
        "moment": [datetime(2024, 1, 1, 0, 0, _chance.randrange(60)) for _ in range(ROWS)],
        "d": pa.array([_chance.randrange(9000) for _ in range(ROWS)]).cast(pa.decimal128(21, 2)),
        "list": [[_chance.randrange(90)] * _chance.randrange(3) for _ in range(ROWS)],
        "s": [{"x": _chance.randrange(9000), "y": None} for _ in range(ROWS)],
        "b": pa.array([_chance.choice([b"ab", b"cd", None]) for _ in range(ROWS)], pa.binary(2)),
    }
)


def pages(table: pa.Table = TABLE, at_a_time: int = 700) -> Iterator[Page]:
    for index, batch in enumerate(table.combine_chunks().to_batches(at_a_time)):
        rejects = (Reject(index + 1, 0, "bad", "", ""),) if index % 7 == 3 else ()
        yield Page(batch, max(1, batch.nbytes), batch.num_rows, first=index == 0, rejects=rejects)


def firsts(columns: str, spool: Spool | None, holds: int) -> Distinct:
    made = Distinct(parse("distinct", columns), QueryOptions(64 * 1024, 1, 0, spool))
    made.holds = holds
    return made


def wanted(columns: str) -> list[dict[str, object]]:
    with duckdb.connect() as connection:
        connection.register("input", TABLE)
        on = columns or ", ".join(f'"{name}"' for name in TABLE.schema.names)
        found = connection.sql(f"SELECT min(id) FROM input GROUP BY {on}").fetchall()
    ids = sorted(number for (number,) in found)
    return TABLE.take(pa.array(ids)).to_pylist()


@pytest.mark.parametrize("holds", [8 << 20, SMALL])
@pytest.mark.parametrize(
    "columns", ["id", "few", "MANY", "few, d", "f", "moment, b", "list", "list, f, few", "s.x", "input.few, d", "s", ""]
)
def test_the_first_of_each(columns: str, holds: int, tmp_path: Path) -> None:
    with spooled(tmp_path) as spool:
        stage = firsts(columns, spool, holds)
        found = list(stage.run(pages()))
    assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    rows = [row for page in found for row in page.payload.to_pylist()]
    assert repr(rows) == repr(wanted(columns))
    assert sum(len(page.rejects) for page in found) == sum(len(page.rejects) for page in pages())
    assert (stage.spilled_bytes > 0) == (holds == SMALL and columns not in ("few", "moment, b", "list"))


@pytest.mark.parametrize("at_a_time", [1, 90, ROWS])
@pytest.mark.parametrize("is_native", [True, False])
def test_how_it_is_cut_does_not_matter(
    at_a_time: int, is_native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_native:
        monkeypatch.setattr(groups, "LIBRARY", None)
    table = TABLE.select(["id", "many"]).slice(0, 3000 if at_a_time == 1 else ROWS)
    with spooled(tmp_path) as spool:
        found = list(firsts("many", spool, SMALL).run(pages(table, at_a_time)))
    ids = [number for page in found for number in page.payload.column("id").to_pylist()]
    seen: dict[str, int] = {}
    for number, text in enumerate(table.column("many").to_pylist()):
        seen.setdefault(text, number)
    assert ids == list(seen.values())


def test_parts_that_do_not_fit_are_parted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_MOST_PARTS", 2)
    levels = []
    parts = distinct._Apart.parts

    def noted(self: distinct._Apart, level: int) -> distinct._Parts:
        levels.append(level)
        return parts(self, level)

    monkeypatch.setattr(distinct._Apart, "parts", noted)
    with spooled(tmp_path) as spool:
        found = list(firsts("many, few", spool, SMALL).run(pages()))
    assert max(levels) >= 2
    assert repr([row for page in found for row in page.payload.to_pylist()]) == repr(wanted("many, few"))


def test_rows_are_given_as_they_come() -> None:
    def endless() -> Iterator[Page]:
        yield next(pages())
        raise AssertionError("nobody needs more for the first rows")

    made = firsts("few", None, 8 << 20).run(endless())
    assert [next(made).rows, next(made).rows] == [0, 4]


def test_a_sliver_of_rows_does_not_keep_its_page(tmp_path: Path) -> None:
    found = [page.payload for page in firsts("few", None, 8 << 20).run(pages())]
    assert max(batch.get_total_buffer_size() for batch in found) < 4096


def test_columns_that_are_not_there_are_refused() -> None:
    for columns, position in (("few, zz", 5), ("s.z", 0), ("few, current_date", 5)):
        with pytest.raises(Refusal) as caught:
            list(firsts(columns, None, 8 << 20).run(pages()))
        assert (caught.value.code, caught.value.position) == ("bad_sql", position)


def test_without_a_disk_it_says_so() -> None:
    with pytest.raises(Refusal) as caught:
        list(firsts("id", None, SMALL).run(pages()))
    assert caught.value.code == "state_too_large"


def test_a_full_disk_leaves_nothing_there(tmp_path: Path) -> None:
    with spooled(tmp_path, limit_bytes=1 << 19) as spool, pytest.raises(Refusal) as caught:
        list(firsts("id", spool, SMALL).run(pages()))
    assert caught.value.code == "spool_full"


def test_what_the_input_raises_comes_out(tmp_path: Path) -> None:
    def broken() -> Iterator[Page]:
        yield from pages()
        raise Refusal("corrupt_input", "it ends too early")

    with spooled(tmp_path) as spool, pytest.raises(Refusal) as caught:
        list(firsts("id", spool, SMALL).run(broken()))
    assert caught.value.code == "corrupt_input"


def test_it_can_be_interrupted_while_it_merges(tmp_path: Path) -> None:
    with spooled(tmp_path) as spool:
        stage = firsts("many", spool, SMALL)
        made = stage.run(pages())
        for page in made:
            if page.rows and page.payload.column("id")[0].as_py() > ROWS // 2:
                break
        stage.interrupt()
        with pytest.raises(CancelledError):
            list(made)


def chain_of(sql: str) -> list[Stage | Operator]:
    planned = [PlannedStep(STEPS["sql"], sql)]
    options = QueryOptions(64 * 1024, 1, 8 << 20)
    return row_stages(planned, StageContext(64 * 1024, 100, False), options)


def rows_apart(sql: str) -> list[str]:
    """What the query gives, once its DISTINCT was taken out of it."""
    stages = chain_of(sql)
    assert any(isinstance(stage, Distinct) for stage in stages)
    return [repr(row) for page in run_chain(stages, pages()) for row in page.payload.to_pylist()]


def rows_of_duckdb(sql: str) -> list[str]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("input", TABLE)
        return list(map(repr, connection.sql(sql).to_arrow_table().to_pylist()))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT few, b FROM input",
        "select /* why */ distinct few AS é, 'select distinct' AS t, upper(few) u FROM input WHERE d > 1000 -- DISTINCT",
        "FROM input SELECT DISTINCT list",
        'WITH "distinct" AS (SELECT few AS "distinct" FROM input) SELECT DISTINCT "distinct" FROM "distinct"',
        "SELECT DISTINCT * EXCLUDE (id, many, f) FROM (FROM input LIMIT 5000)",
    ],
)
def test_a_select_distinct_gives_its_rows_in_the_order_of_the_input(sql: str) -> None:
    plain = re.sub("distinct", "", sql, count=1, flags=re.IGNORECASE) if "WITH" not in sql else None
    rows = rows_of_duckdb(plain or "SELECT few AS distinct FROM input")
    assert rows_apart(sql) == list(dict.fromkeys(rows))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT few, b FROM input ORDER BY b DESC, few NULLS FIRST",
        "SELECT DISTINCT few AS ä, b FROM input WHERE id > 9 ORDER BY 2, ä DESC NULLS LAST LIMIT 4 OFFSET 3",
        "SELECT DISTINCT few, d FROM input ORDER BY d, few LIMIT 10500 OFFSET 11",
        "select distinct upper(many) as u, f % 1 > 0 as v from input order by u, v -- order by",
        "FROM input SELECT DISTINCT list, s ORDER BY list DESC, s",
        "WITH x AS (SELECT d, few FROM input) SELECT DISTINCT * FROM x ORDER BY few, d",
        "SELECT DISTINCT ON (few) few, b, id FROM input ORDER BY few, id DESC",
        "SELECT DISTINCT ON (few, b) * FROM input ORDER BY moment DESC, id",
        "SELECT DISTINCT ON (/* é */ D, ä) few AS ä, d, id AS i FROM input ORDER BY many, id",
        "FROM input SELECT DISTINCT ON (many) *, id + 1 AS j ORDER BY f DESC NULLS LAST, id",
        "SELECT DISTINCT ON (few) few, b FROM (FROM input WHERE id % 3 = 0)",
        "FROM (FROM input SELECT * EXCLUDE f) QUALIFY row_number() OVER (PARTITION BY few, b ORDER BY id DESC) = 1",
        "SELECT b, few FROM input qualify 1 = ROW_NUMBER() over (partition by few order by f, lower(many), id) -- ()",
    ],
)
def test_distinct_and_order_by_give_what_duckdb_gives(sql: str) -> None:
    found, rows = rows_apart(sql), rows_of_duckdb(sql)
    if "qualify" in sql.lower():  # which tells nothing of the order
        found, rows = sorted(found), sorted(rows)
    assert found == rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT ON (few, b) few FROM input",
        "SELECT DISTINCT ON (few + 1) few, b FROM input",
        "SELECT DISTINCT ON (few) * EXCLUDE (few) FROM input",
        "SELECT DISTINCT ON (few) * FROM input ORDER BY b LIMIT 20000",
        "SELECT DISTINCT few FROM input LIMIT 3",
        "SELECT DISTINCT few FROM input ORDER BY b",
        "SELECT DISTINCT few, b FROM input ORDER BY upper(b)",
        "SELECT DISTINCT few FROM input ORDER BY ALL",
        "SELECT DISTINCT few, count(*) FROM input GROUP BY few ORDER BY few",
        "SELECT DISTINCT sum(id) OVER (PARTITION BY few) FROM input",
        "FROM input QUALIFY row_number() OVER (ORDER BY few) = 1",
        "FROM input QUALIFY row_number() OVER (PARTITION BY few ORDER BY 1) = 1",
        "FROM input QUALIFY row_number() OVER (PARTITION BY few + 1) = 1",
        "FROM input QUALIFY row_number() OVER (PARTITION BY few) < 3",
        "FROM input QUALIFY row_number() OVER (PARTITION BY few) = 1 ORDER BY id",
        "FROM input QUALIFY (row_number() OVER (PARTITION BY few)) = 1",
        "FROM input QUALIFY row_number() FILTER (id > 3) OVER (PARTITION BY few) = 1",
        "FROM input QUALIFY row_number() OVER (PARTITION BY few ORDER BY id ROWS UNBOUNDED PRECEDING) = 1",
        "FROM input QUALIFY row_number() OVER (ORDER BY id) = 1",
        "FROM input QUALIFY id = 1",
        "FROM input QUALIFY rank() OVER (PARTITION BY few ORDER BY id) = 1",
        "FROM input SELECT few, id AS b QUALIFY row_number() OVER (PARTITION BY few ORDER BY b) = 1",
        "FROM input SELECT id QUALIFY row_number() OVER (PARTITION BY few) = 1",
        "SELECT count(DISTINCT few) FROM input",
        "SELECT few FROM (SELECT DISTINCT few, b FROM input)",
    ],
)
def test_other_queries_stay_as_they_are(sql: str) -> None:
    assert not any(isinstance(stage, Distinct) for stage in chain_of(sql))


@pytest.mark.parametrize(
    ("sql", "position"),
    [
        ("SELECT DISTINCT few, zz FROM input", 21),
        ("SELECT DISTINCT * FROM input ORDER BY few, zz", 43),
        ("SELECT DISTINCT 'é' AS e, few FROM input WHERE zz = 1 ORDER BY e", 47),
        ('SELECT DISTINCT ON ("zé", few) * FROM input', 20),
        ('SELECT DISTINCT ON ("few", b) * FROM input WHERE id > zz ORDER BY b', 54),
        ("SELECT DISTINCT ON (few) few, b FROM input ORDER BY few, zz", 57),
        ("FROM input QUALIFY row_number() OVER (PARTITION BY few, zz ORDER BY id) = 1", 56),
        ("FROM input QUALIFY row_number() OVER (PARTITION BY few ORDER BY id, zz) = 1", 68),
        ('SELECT DISTINCT ON ("many", /* é */ b) *, id AS Many FROM input ORDER BY b', 42),
    ],
)
def test_a_select_distinct_is_refused_where_it_is_wrong(sql: str, position: int) -> None:
    with pytest.raises(Refusal) as caught:
        list(run_chain(chain_of(sql), pages()))
    assert (caught.value.code, caught.value.position) == ("bad_sql", position)
