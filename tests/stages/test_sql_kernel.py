"""Steps on rows by C: to the last bit what Arrow makes of them, however rows lie in memory."""

from __future__ import annotations

import functools
import math
import random
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from app.stages import sql_kernel, sql_rows, sql_totals
from app.stages.sql_bound_rows import BoundRows
from app.stages.sql_kernel import ProgramKernel
from app.stages.sql_levels import levels
from app.stages.sql_program import row_program
from app.stages.sql_text import parse
from bench.tables.questions import STEPS
from tests.framing.native import each_build

__all__ = ["each_build"]

Clauses = Sequence[tuple[str, str]]
SIZES = [0, 1, 1023, 1024, 1025, 5000]
TYPES = {
    "a": pa.int64(),
    "b": pa.int32(),
    "c": pa.int8(),
    "h": pa.int16(),
    "x": pa.float64(),
    "y": pa.float64(),
    "t": pa.string(),
    "v": pa.binary(),
    "d": pa.date32(),
    "u": pa.timestamp("us"),
    "f": pa.bool_(),
    "m": pa.decimal128(12, 2),
    "z": pa.uint64(),
    "e": pa.float32(),
    "n": pa.null(),
}
STEPS_ON_ROWS: list[Clauses] = [
    [("where", "x < 24")],
    [("where", "x >= 24 AND (a > 0 OR b IS NULL)")],
    [("where", "NOT x < 24 OR f")],
    [("where", "x < 24"), ("select", "a, x * (1 - y) AS z, t")],
    [("where", "x > -1000")],  # all but nulls
    [("where", "x IS NOT NULL OR x IS NULL")],
    [("where", "x > 1e300")],
    [("where", "a > 50"), ("derive", "a + 1 AS p, b - b AS q, a / 4 AS r"), ("where", "p < 80 AND r > 14")],
    [("derive", "x < 24 AS p, a BETWEEN 3 AND 60 AS q, b * 2 AS r, f = true AS w, p AND q AS s")],
    [("derive", "a IS NULL AS p, x + y IS NULL AS q, m IS NOT NULL AS r, t IS NULL AS s, p = true AS w")],
    [("where", "t LIKE 'ab%' OR t LIKE '%b' OR contains(t, 'ba') OR t = 'ä' OR t > 'b' OR t <> 'abc'")],
    [("where", "t NOT LIKE '%a%'"), ("select", "t, v, t AS again, a")],
    [("select", "t = 'ab' AS p, t <> 'ab' AS q, t < 'ab' AS r, t >= 'ab' AS s, t <= '' AS w, contains(t, '') AS k")],
    [("where", "m >= 3.5 OR m < -9 OR m = 0 OR m <> 1.25")],
    [("where", "m BETWEEN -5 AND 5")],
    [("where", "d >= DATE '1970-01-20' AND u < TIMESTAMP '1970-01-01 00:00:50'"), ("select", "d, u, m, f, z, e, n")],
    [("where", "c IN (1, 5, 7) OR h NOT IN (3, 4)"), ("select", "c, h, c < h AS p, c = b AS q, a <> h AS r")],
    [("where", "f"), ("where", "NOT f IS NULL"), ("where", "a < b OR x >= 50")],
    [("where", "f <> (x < 24)"), ("select", "x, x AS w")],
    [("select", "x - 1 AS p, 1 - x AS q, x / y AS r, b / 2 AS s, a / 4 * 0.5 AS w, 2 * b + a AS k, x + a AS j")],
]


def texts(chance: random.Random, rows: int) -> list[str]:
    return [chance.choice(["", "a", "ab", "abc", "ä", "ba" * 30, "b" * chance.randrange(70)]) for _ in range(rows)]


@functools.cache
def table(nulls: float, rows: int = 6000) -> pa.RecordBatch:
    chance = random.Random(rows)
    odd = [float("nan"), float("inf"), -0.0, 0.0, 24.0]
    values: dict[str, list[Any]] = {
        name: [chance.randrange(100) for _ in range(rows)] for name in ("a", "b", "c", "h", "d", "u", "z", "e")
    }
    values |= {name: [chance.choice([*odd, chance.uniform(0, 100)]) for _ in range(rows)] for name in ("x", "y")}
    values |= {"t": texts(chance, rows), "v": [text.encode() for text in texts(chance, rows)]}
    values |= {"f": [chance.random() < 0.5 for _ in range(rows)]}
    columns = []
    for name, type_ in TYPES.items():
        if name == "m":
            array = pa.array([Decimal(value - 50) / 4 for value in values["a"]], type_)
        elif name == "n":
            array = pa.nulls(rows)
        elif name in ("d", "u", "e"):
            array = pa.array(values[name], pa.int32() if name == "d" else pa.int64())
            array = pc.multiply(array, pa.scalar(10**6)).cast(type_) if name == "u" else array.cast(type_)
        else:
            array = pa.array(values[name], type_)
        if nulls and name != "n":
            # What stands below a null is not nothing.
            bits = pa.array([chance.random() >= nulls for _ in range(rows)]).buffers()[1]
            array = pa.Array.from_buffers(type_, rows, [bits, *array.buffers()[1:]])
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(list(TYPES.items())))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether C gave something, for each of its runs."""
    seen: list[bool] = []
    run = ProgramKernel.run

    def watched(kernel: ProgramKernel, batch: pa.RecordBatch) -> Any:
        made = run(kernel, batch)
        seen.append(made is not None)
        return made

    monkeypatch.setattr(ProgramKernel, "run", watched)
    return seen


def in_c(clauses: Clauses, schema: pa.Schema) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    program, made = row_program([parse(kind, text) for kind, text in clauses], schema)
    return lambda batch: pa.RecordBatch.from_arrays(program.run(batch), [str(i) for i in range(len(made))])


def in_arrow(clauses: Clauses, schema: pa.Schema) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_kernel, "LIBRARY", None)
        return in_c(clauses, schema)


def by_c(clauses: Clauses, batch: pa.RecordBatch) -> pa.RecordBatch:
    return in_c(clauses, batch.schema)(batch)


def by_arrow(clauses: Clauses, batch: pa.RecordBatch) -> pa.RecordBatch:
    return in_arrow(clauses, batch.schema)(batch)


def exact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """In which floats are their bits, and all NaNs the same."""
    columns = [
        pc.if_else(pc.is_nan(array), math.nan, array).view(pa.int64()) if array.type == pa.float64() else array
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


@pytest.mark.parametrize("nulls", [0, 0.01, 0.5, 1])
@pytest.mark.parametrize("clauses", STEPS_ON_ROWS, ids=lambda clauses: " | ".join(text for _, text in clauses))
def test_it_is_what_arrow_makes_of_them(clauses: Clauses, nulls: float, runs: list[bool]) -> None:
    by_c, by_arrow = in_c(clauses, table(nulls).schema), in_arrow(clauses, table(nulls).schema)
    for rows in SIZES:
        for start in (0, 13):
            batch = table(nulls).slice(start, rows)
            made = by_c(batch)
            made.validate(full=True)
            assert exact(made).equals(exact(by_arrow(batch))), (rows, start)
    assert runs == [rows > 0 for rows in SIZES for _ in range(2)]


def test_a_filter_that_drops_nothing_before_a_late_chunk(runs: list[bool]) -> None:
    for late in (1023, 1024, 3000, 4999):
        batch = pa.RecordBatch.from_pydict(
            {
                "a": [int(row == late) for row in range(5000)],
                "t": [None if row % 7 == 3 else f"text {row}" for row in range(5000)],
                "f": [row % 3 == 0 for row in range(5000)],
            }
        )
        for condition in ("a = 0", "a = 1", "a < 2"):
            clauses = [("where", condition), ("derive", "a + 1 AS b")]
            assert by_c(clauses, batch).equals(by_arrow(clauses, batch)), (late, condition)
    assert all(runs)


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("text", ["n + 1", "n - 1", "2 * n", "n * n", "-1 * n"])
@pytest.mark.parametrize("type_", [pa.int32(), pa.int64()], ids=str)
def test_it_gives_up_where_a_number_is_too_large(text: str, null: bool, type_: pa.DataType, runs: list[bool]) -> None:
    edge = 2 ** (type_.bit_width - 1)
    for number in (edge - 1, -edge, edge // 2, -edge // 2, edge // 2 - 1):
        values = pa.array([1] * 1500 + [number] + [3] * 7, type_)
        if null:
            bits = pa.array([row != 1500 for row in range(len(values))]).buffers()[1]
            values = pa.Array.from_buffers(type_, len(values), [bits, values.buffers()[1]])
        batch = pa.RecordBatch.from_arrays([values], ["n"])
        clauses = [("derive", f"{text} AS m")]
        runs.clear()
        try:
            expected = by_arrow(clauses, batch)
        except pa.ArrowInvalid:
            with pytest.raises(pa.ArrowInvalid):
                by_c(clauses, batch)
            assert runs == [False]
        else:
            assert by_c(clauses, batch).equals(expected)
            assert runs == [True]


def test_what_it_gives_is_as_large_as_it_says() -> None:
    """No bytes of others are below nulls, or behind what is used, and no page holds on to room for rows that are gone."""
    batch = table(0.3)
    for condition in ("x < 1e9", "x < 90", "x < 50", "a = 7"):
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        made = by_c([("where", condition)], batch)
        held = tracemalloc.take_snapshot().statistics("lineno")
        tracemalloc.stop()
        rooms = sum(one.size for one in held if one.traceback[0].filename.endswith(("unset.py", "room.py")))
        assert rooms >= made.nbytes / 2
        assert rooms + pa.total_allocated_bytes() - before < 1.2 * made.nbytes + 1024
        for array in made.columns:
            validity, *parts = array.buffers()
            assert validity is None or validity.size == (len(array) + 7) // 8
            if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
                assert parts[1].size == struct.unpack_from("i", parts[0], 4 * len(array))[0]
            elif array.type not in (pa.bool_(), pa.null()):
                below = pa.Array.from_buffers(array.type, len(array), [None, *parts]).filter(array.is_null())
                assert parts[0].size == len(array) * array.type.bit_width // 8
                assert not any(below.buffers()[1].to_pybytes()), array.type


@pytest.mark.parametrize(
    "clauses",
    [
        [("select", "t > t AS p")],
        [("where", "a > 0"), ("select", "a, l")],
        [("derive", "w IS NULL AS p")],
    ],
)
def test_what_it_does_not_know_is_left_to_arrow(clauses: Clauses, runs: list[bool]) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"a": [1, 0], "t": ["a", None], "l": [[1], None], "w": pa.array(["a", None], pa.large_string())}
    )
    assert by_c(clauses, batch).equals(by_arrow(clauses, batch))
    assert not runs


def test_what_needs_more_registers_than_there_are_is_left_to_arrow(runs: list[bool]) -> None:
    batch = pa.RecordBatch.from_pydict({f"c{i}": [i + 0.5] for i in range(40)})
    for columns, is_known in ((20, True), (40, False)):
        entries = [f"c{i} * {times} AS m{times}_{i}" for times in (2, 3) for i in range(columns)]
        clauses = [("select", ", ".join(entries))]
        runs.clear()
        assert by_c(clauses, batch).equals(by_arrow(clauses, batch))
        assert runs == [True] * is_known


def test_columns_that_stay_as_they_are_need_no_run(runs: list[bool]) -> None:
    batch = table(0)
    made = by_c([("select", "t, a AS b, t AS again")], batch)
    assert made.column(0).buffers()[2].address == batch["t"].buffers()[2].address
    assert not runs


def lineitem() -> pa.RecordBatch:
    """As it is read from CSV."""
    chance = random.Random(1)
    columns: dict[str, Any] = {
        name: [chance.randrange(100) / 2 for _ in range(4000)]
        for name in ("l_quantity", "l_extendedprice", "l_discount", "l_tax")
    }
    columns |= {name: [chance.choice("ANR") for _ in range(4000)] for name in ("l_returnflag", "l_linestatus")}
    columns |= {"l_shipmode": [chance.choice(["AIR", "MAIL"]) for _ in range(4000)], "l_orderkey": list(range(4000))}
    columns |= {"l_shipdate": pa.array([chance.randrange(8000, 10600) for _ in range(4000)], pa.date32())}
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize("question", ["q1", "q6", "filter"])
def test_the_questions_of_the_benchmark_are_its(question: str, runs: list[bool]) -> None:
    def rows_of() -> BoundRows:
        if "sql" not in STEPS[question]:
            return sql_rows._bound([parse(kind, text) for kind, text in STEPS[question].items()], batch.schema)
        apart = levels(parse("sql", STEPS[question]["sql"]))
        assert apart is not None
        rows = sql_totals._bound(apart, batch.schema).rows
        assert rows is not None
        return rows

    batch = lineitem()
    made = rows_of().made_of(batch)
    assert runs == [True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_kernel, "LIBRARY", None)
        assert made.equals(rows_of().made_of(batch))
    assert runs == [True]
