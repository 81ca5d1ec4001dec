"""Rows with what a lookup table has for their key."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import app.framing.native.gather
import app.stages.lookup
from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.stages.enrich import Enrich, Enrichment, parse
from app.stages.lookup import Lookup, key_of
from tests.conformance.check_stage import check_memory, check_stage, run_stages, table_cuts

PAGE = 1 << 16
CITIES = Lookup(
    "cities",
    pa.record_batch({"name": ["berlin", "paris", "new york"], "Land": ["de", "fr", "us"], "pop": [3, 2, None]}),
)
ROWS = pa.table({"id": [1, 2, 3, 4], "city": ["paris", "rome", None, "new york"]})


def stages(argument: str, lookup: Lookup = CITIES, page_bytes: int = PAGE) -> list[Stage]:
    return [Enrich(parse(argument), lookup, page_bytes=page_bytes)]


def run(argument: str, table: pa.Table = ROWS, lookup: Lookup = CITIES) -> list[dict[str, Any]]:
    pages = [Page(b, max(1, b.nbytes), b.num_rows, first=i == 0) for i, b in enumerate(table.to_batches())]
    return [row for page in run_stages(stages(argument, lookup), pages) for row in page.payload.to_pylist()]


def test_missing_keys_are_null_or_dropped_or_fail() -> None:
    assert run("cities on city=name") == [
        {"id": 1, "city": "paris", "Land": "fr", "pop": 2},
        {"id": 2, "city": "rome", "Land": None, "pop": None},
        {"id": 3, "city": None, "Land": None, "pop": None},
        {"id": 4, "city": "new york", "Land": "us", "pop": None},
    ]
    assert run("cities ON City = NAME add LAND missing drop") == [
        {"id": 1, "city": "paris", "Land": "fr"},
        {"id": 4, "city": "new york", "Land": "us"},
    ]
    with pytest.raises(Refusal, match=r"cities has no name 'rome', .* \{\"id\":2") as caught:
        run("cities on city=name missing fail")
    assert (caught.value.code, caught.value.column) == ("missing_key", "city")


def test_however_the_input_is_cut() -> None:
    for argument in ("cities on city=name", "cities on city=name add pop missing drop"):
        check_stage(lambda argument=argument: stages(argument), table_cuts(ROWS))


KEYS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int64": (pa.int64(), [0, -1, 2**63 - 1, -(2**63), 7]),
    "int8 and uint32": (pa.uint32(), [0, 1, 2, 100, 127]),
    "string": (pa.string(), ["", "a", "ä", "a" * 100, "a" * 8]),
    "large_string": (pa.large_string(), ["", "a", "ä"]),
    "date": (pa.date32(), [date(1970, 1, 1), date(1, 1, 1), date(9999, 12, 31)]),
    "timestamp": (pa.timestamp("us", "UTC"), [0, 1, -1]),
    "decimal": (pa.decimal128(20, 3), [Decimal("1.5"), Decimal("-0.001"), Decimal(0)]),
    "bool": (pa.bool_(), [True, False]),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("native", [True, False], ids=["c", "pyarrow"])
def test_every_type_of_key(kind: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(app.stages.lookup, "LIBRARY", None)
        monkeypatch.setattr(app.framing.native.gather, "LIBRARY", None)
    type_, values = KEYS[kind]
    left_type = pa.int8() if kind == "int8 and uint32" else type_
    lookup = Lookup("t", pa.record_batch({"k": pa.array(values, type_), "at": pa.array(range(len(values)))}))
    wanted = [*values[::-1], None, values[0]]
    table = pa.table({"k": pa.array(wanted, left_type)})
    found = [row["at"] for row in run("t on k", table, lookup)]
    assert found == [*range(len(values))[::-1], None, 0]
    # A slice, as a limit leaves it.
    assert [row["at"] for row in run("t on k", table.slice(1), lookup)] == found[1:]
    dropped = run("t on k missing drop", table, lookup)
    assert [row["at"] for row in dropped] == [at for at in found if at is not None]
    assert [row["k"] for row in dropped] == [row["k"] for row in run("t on k", table, lookup) if row["at"] is not None]


def test_many_keys_and_two_of_them() -> None:
    shuffled = random.Random(3)
    numbers = [shuffled.randrange(10**12) for _ in range(20_000)]
    pairs = list({(number % 1000, f"{number // 1000}") for number in numbers})
    table = pa.record_batch({"a": [a for a, _ in pairs], "b": [b for _, b in pairs], "at": range(len(pairs))})
    rows = pa.table({"x": [a for a, _ in pairs[:5000]] + [1], "y": [b for _, b in pairs[:5000]] + ["none"]})
    assert [row["at"] for row in run("t on x=a, y=b", rows, Lookup("t", table))] == [*range(5000), None]


def test_two_keys_do_not_run_into_each_other() -> None:
    one, other = key_of([pa.array(["a:1", "a"]), pa.array(["b", "1:b"])])
    assert one != other


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"k": ["a", "b", "a"]}, "'a' is there twice, again in row 3"),
        ({"k": [5, 6, 7, 6]}, "'6' is there twice, again in row 4"),
        ({"k": [1, None]}, "the key 'k' is null in row 2"),
    ],
)
@pytest.mark.parametrize("native", [True, False], ids=["c", "pyarrow"])
def test_keys_that_cannot_be_are_refused(
    columns: dict[str, Sequence[Any]], said: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(app.stages.lookup, "LIBRARY", None)
    with pytest.raises(Refusal, match=said) as caught:
        Lookup("t", pa.record_batch(columns)).index(["k"])
    assert caught.value.code == "bad_lookup"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("cities on town=name", "no column 'town'; columns are id, city"),
        ("cities on city=town", "cities has no column 'town'"),
        ("cities on id=name", "'id' is int64, and 'name' of cities is string"),
        ("cities on city=name add name, name", "a column 'name' is there already"),
        ("cities on city=name add nope", "no column 'nope'"),
    ],
)
def test_what_does_not_fit_is_refused(argument: str, said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        run(argument)
    assert caught.value.code == "bad_argument"


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(Refusal, match="'Land' is there already"):
        run("cities on city=name", ROWS.append_column("land", [["x"] * 4]))


@pytest.mark.parametrize(
    ("argument", "said", "position"),
    [
        ("cities", "names no key", 0),
        ("on a", "begins with table", 0),
        ("my cities on a", "no name of a lookup table", 0),
        ("cities on a=b=c", "not COLUMN or COLUMN=COLUMN", 10),
        ("cities on a, ", "a column is missing", 12),
        ("cities on a add b, c d", "in double quotes", 19),
        ("cities on a missing maybe", "not one of null, drop, fail", 20),
    ],
)
def test_an_argument_that_cannot_be_read(argument: str, said: str, position: int) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        parse(argument)
    assert caught.value.position == position


def test_names_in_quotes() -> None:
    assert parse('t on "a, b"="c=d", e add "on", f') == Enrichment(
        "t", (("a, b", "c=d"), ("e", "e")), ("on", "f"), "null"
    )


def test_pages_that_grow_are_cut() -> None:
    lookup = Lookup("t", pa.record_batch({"k": range(10), "text": ["x" * 2000 * number for number in range(10)]}))
    table = pa.table({"k": [number % 10 for number in range(5000)]})
    page = Page(table.to_batches()[0], table.nbytes, 5000, first=True)
    found = list(run_stages(stages("t on k", lookup), [page]))
    assert sum(page.rows for page in found) == 5000
    assert max(page.nbytes for page in found) <= 2 * PAGE
    assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    short = Page(page.payload.slice(0, 500), 4000, 500, first=True)
    check_memory(lambda: stages("t on k", lookup), [short], page_bytes=2 * PAGE)
    huge = Lookup("t", pa.record_batch({"k": [1], "text": ["x" * 3 * PAGE]}))
    with pytest.raises(Refusal, match="one row becomes") as caught:
        run("t on k", table, huge)
    assert caught.value.code == "page_too_large"
