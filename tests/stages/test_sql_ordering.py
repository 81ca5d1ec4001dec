"""ORDER BY, taken out of a query: what DuckDB would give."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.core.page import Page
from app.stages.sort import Sort
from app.stages.sql import Query
from app.stages.sql_engine import QueryOptions
from app.stages.sql_ordering import ordering
from app.stages.sql_text import parse
from app.stores.spool import Spool

_chance = random.Random(8)
ROWS = 4000
TABLE = pa.table(
    {
        "a": [_chance.choice([None, 1.0, 2.0, float("nan"), -0.0, 1e300, float("-inf")]) for _ in range(ROWS)],
        "b": [_chance.choice([None, "", "x", "ä", "X", "xx", "x\0"]) for _ in range(ROWS)],
        "c": range(ROWS),
        "l": [[_chance.randrange(3)] * _chance.randrange(3) for _ in range(ROWS)],
        "d": pa.array([_chance.randrange(-(10**6), 10**6) for _ in range(ROWS)]).cast(pa.decimal128(21, 2)),
    }
)


def pages() -> Iterator[Page]:
    for index, batch in enumerate(TABLE.combine_chunks().to_batches(300)):
        yield Page(batch, batch.nbytes, rows=batch.num_rows, first=index == 0)


def rows(sql: str, directory: Path) -> list[tuple[object, ...]]:
    found = ordering(parse("sql", sql))
    assert found is not None
    with closing(Spool(directory, limit_bytes=1 << 30)) as spool:
        options = QueryOptions(64 * 1024, 1, 0, spool)
        keyed = Query((), options, changed=found.rows).run(pages())
        made = list(Sort(options, skip=found.skip, count=found.count).run(keyed))
    assert [page.first for page in made] == [True] + [False] * (len(made) - 1)
    assert not any("\ue002" in name for name in made[0].payload.schema.names)
    return [tuple(row.values()) for page in made for row in page.payload.to_pylist()]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM input ORDER BY a, c",
        "FROM input ORDER BY a DESC, c",
        "SELECT b, c FROM input ORDER BY a DESC NULLS FIRST, c",
        "SELECT -c AS c, a FROM input ORDER BY c",
        "SELECT -c AS e, -e AS c FROM input ORDER BY c",
        "SELECT c AS d, b FROM input ORDER BY lower(b) DESC, d",
        "SELECT c AS d, b FROM input ORDER BY d + 0, c",
        "SELECT b, c FROM input ORDER BY 1 NULLS FIRST, 2 DESC",
        "SELECT b, c FROM input ORDER BY length(b), 2 DESC",
        """WITH x AS (SELECT * FROM input WHERE c > 5) SELECT c+1 AS e, b FROM x WHERE b IS DISTINCT FROM 'ORDER BY'
        ORDER BY x.b, (c % 7) -- ORDER BY (c
        DESC /* , */, e LIMIT 20000 OFFSET 7""",
        "SELECT c, l FROM input ORDER BY l DESC, c LIMIT 100000",
        "FROM input SELECT c, b ORDER BY b, c LIMIT 30000",
        "SELECT * EXCLUDE (b) FROM input ORDER BY b, c DESC",
        "SELECT * REPLACE (-c AS c) FROM input ORDER BY d, input.c",
        "SELECT c FROM input t ORDER BY t.d, t.c",
        "SELECT c FROM (SELECT c, d AS q FROM input) ORDER BY q, c",
        "SELECT c, 'ä ORDER BY' AS \"ORDER BY\" FROM input ORDER BY CASE WHEN c % 2 = 0 THEN b END, coalesce(a, 3), c",
        "select c from input order/* */by d desc nulls last, c asc",
        "SELECT c FROM input WHERE false ORDER BY c",
    ],
)
def test_it_is_the_order_that_duckdb_has(sql: str, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.register("input", TABLE)
        wanted = connection.sql(sql).fetchall()
    found = rows(sql, tmp_path)
    assert repr(found) == repr(wanted)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT c FROM input",
        "SELECT c FROM input ORDER BY c LIMIT 5",
        "SELECT c FROM (SELECT c, a FROM input ORDER BY a) LIMIT 9",
        "SELECT c FROM (SELECT c, a FROM input ORDER BY a) ORDER BY c",
        "SELECT c FROM input ORDER BY b COLLATE nocase",
        "FROM input ORDER BY ALL",
        "FROM input t ORDER BY t.c",
        "SELECT DISTINCT b FROM input ORDER BY b",
        "SELECT b, count(*) FROM input GROUP BY b ORDER BY 2",
        "SELECT c, row_number() OVER () AS r FROM input ORDER BY c",
        "SELECT c FROM input QUALIFY row_number() OVER (PARTITION BY b ORDER BY c) = 1 ORDER BY c",
    ],
)
def test_what_duckdb_has_to_do_it_does(sql: str) -> None:
    assert ordering(parse("sql", sql)) is None


@pytest.mark.parametrize(
    ("sql", "said", "position"),
    [
        ("SELECT c FROM input ORDER BY e", "no column 'e'", 29),
        ("FROM input ORDER BY c, e + 1", "no column 'e'", 23),
        ("SELECT c, ä FROM input ORDER BY c", "no column 'ä'", 10),
        ("SELECT c FROM input WHERE bb > 1 ORDER BY d", "no column 'bb'", 26),
        ("SELECT c FROM input ORDER BY 3", "out of range", None),
        ("SELECT c, b AS x, d AS X FROM input ORDER BY a", "'X' is there already", 18),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(sql: str, said: str, position: int | None, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        rows(sql, tmp_path)
    assert caught.value.code == "bad_sql"
    assert position is None or caught.value.position == position


def test_what_cannot_be_computed_is_told_where_it_stands(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        rows("SELECT c FROM input ORDER BY c, cast(b AS integer)", tmp_path)
    assert caught.value.code == "bad_computation"
