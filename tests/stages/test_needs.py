"""What steps need of their input, as their text tells it."""

from __future__ import annotations

import pytest

from app.framing.needs import Condition, Constant
from app.stages.needs import needs

Steps = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("steps", "paths"),
    [
        ([("select", "ID, b*2 AS c")], "id b"),
        ([("select", "point.X AS x, input.id, 1 AS one")], "point.x input.id"),
        ([("select", "1 AS one")], ""),
        ([("where", "a > 1"), ("limit", "3"), ("select", "b")], "a b"),
        # What a step before made is no column of the input, and what a select gave is all there is from then on.
        ([("derive", "a + 1 AS c"), ("where", "c > d"), ("select", "c")], "a d"),
        ([("select", "a AS b, b + 1 AS c"), ("where", "z > 1"), ("select", "*")], "a"),
        # A lambda sees its own element only.
        ([("select", "list_transform(l, lambda e: e + 1) AS m")], "l"),
        ([("sample", "0.5"), ("select", "a"), ("select", "a AS q")], "a"),
    ],
)
def test_the_columns_that_are_used(steps: Steps, paths: str) -> None:
    assert needs(steps).paths == {tuple(part.encode() for part in path.split(".")) for path in paths.split()}


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [("where", "a > 1")],
        [("derive", "a AS b")],
        [("limit", "1")],
        [("select", "*")],
        [("select", "a, * EXCLUDE (b)")],
        [("select", "COLUMNS('x.*')")],
        [("select", "input AS whole")],
        [("derive", "a + 1"), ("select", "a")],  # whose name may be that of a column
        [("derive", "{'k': a} AS s"), ("select", "s.q AS q")],  # which may not be there
        [("upper", ""), ("select", "a")],
    ],
)
def test_where_all_columns_are_needed(steps: Steps) -> None:
    assert needs(steps).paths is None


def test_names_that_are_given_are_told() -> None:
    assert needs([("derive", "a AS Name"), ("select", "a, b AS c")]).given_names == {b"name", b"c"}


def integer(text: str) -> Constant:
    return Constant("integer", text)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("A < 24", [Condition(b"a", "<", (integer("24"),))]),
        ("24 < a", [Condition(b"a", ">", (integer("24"),))]),
        ("a BETWEEN -1 AND 0.5", [Condition(b"a", "between", (integer("-1"), Constant("decimal", "0.5")))]),
        ("a IN ('x', 'y')", [Condition(b"a", "in", (Constant("string", "x"), Constant("string", "y")))]),
        ("a IS NULL AND (b IS NOT NULL AND c = 1e3)", [
            Condition(b"a", "is null"),
            Condition(b"b", "is not null"),
            Condition(b"c", "=", (Constant("double", "1e3"),)),
        ]),
        ("day >= DATE '2024-02-29'", [Condition(b"day", ">=", (Constant("date", "2024-02-29"),))]),
        ("t = TIMESTAMP '2024-02-29 00:00:00'", [Condition(b"t", "=", (Constant("timestamp", "2024-02-29 00:00:00"),))]),
        # One side of an AND is enough; what is not plain tells nothing.
        ("f(a) = 1 AND b > 2".replace("f", "abs"), [Condition(b"b", ">", (integer("2"),))]),
        ("a = 1 OR b = 2", []),
        ("NOT a = 1", []),
        ("a <> 1", []),
        ("a NOT IN (1, 2)", []),
        ("a IN (1, NULL)", []),
        ("a NOT BETWEEN 1 AND 2", []),
        ("a = b", []),
        ("s.x = 1", []),
        ("a = TRY_CAST('x' AS DATE)", []),
        ("a COLLATE NOCASE = 'x'", []),
        ("CAST(a AS INTEGER) = 1", []),
    ],
)  # fmt: skip
def test_comparisons_with_constants_are_conditions(text: str, conditions: list[Condition]) -> None:
    assert list(needs([("where", text)]).conditions) == conditions


@pytest.mark.parametrize("step", [("limit", "1"), ("offset", "1"), ("sample", "0.1"), ("derive", "b AS c")])
def test_conditions_behind_a_step_that_counts_or_computes_are_none(step: tuple[str, str]) -> None:
    before, behind = ("where", "a = 1"), ("where", "b = 2")
    assert [condition.column for condition in needs([before, step, behind]).conditions] == [b"a"]


def test_a_condition_on_a_renamed_column_is_one_on_the_column() -> None:
    found = needs(
        [("select", "A AS b, c"), ("where", "B = 1 AND c = 2 AND a = 3"), ("select", "b + 1 AS b"), ("where", "b = 9")]
    )
    assert [condition.column for condition in found.conditions] == [b"a", b"c"]
