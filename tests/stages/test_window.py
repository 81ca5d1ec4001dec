"""Windows of event time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.framing.native import LIBRARY
from app.stages import groups, panes
from app.stages.window import Window
from app.stages.window_sessions import SessionWindow
from app.stages.window_text import parse
from tests.conformance.check_stage import check_memory

PAGE = 1 << 16
START = 1_700_000_000_000_000


def events(count: int, jitter_s: float, seed: int = 2) -> pa.Table:
    chance = random.Random(seed)
    times = [START + n * 100_000 + int(chance.uniform(-jitter_s, jitter_s) * 1e6) for n in range(count)]
    return pa.table(
        {
            "ts": pa.array(times, pa.timestamp("us")),
            "k": [chance.choice(["a", "b", None]) for _ in range(count)],
            "n": pa.array([chance.choice([None, *range(-9, 99)]) for _ in range(count)], pa.int32()),
            "x": [chance.random() * 10.0 ** chance.randrange(-9, 12) for _ in range(count)],
            "d": pa.array([chance.randrange(10**6) for _ in range(count)]).cast(pa.decimal128(21, 2)),
        }
    )


def pages(table: pa.Table, rows: int) -> Iterator[Page]:
    for index, batch in enumerate(
        table.combine_chunks().to_batches(rows) or [pa.RecordBatch.from_pylist([], table.schema)]
    ):
        yield Page(batch, max(1, batch.nbytes), batch.num_rows, first=index == 0)


def run(argument: str, table: pa.Table, rows: int = 10_000, keep: Any = None) -> tuple[pa.Table, Window]:
    window = Window(parse(argument), page_bytes=PAGE, keep=keep)
    found = [page for given in pages(table, rows) for page in window.feed(given)] + list(window.flush())
    assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    return pa.Table.from_batches([page.payload for page in found]), window


def by_hand(table: pa.Table, every: int, slide: int, late: int) -> tuple[dict[tuple[int, Any], list[int]], int]:
    """The rows of each window and group in microseconds, row by row; and how many are late."""
    windows: dict[tuple[int, Any], list[int]] = {}
    latest, lost = None, 0
    for index, row in enumerate(table.select(["ts", "k"]).to_pylist()):
        time = int((row["ts"] - datetime(1970, 1, 1)) / timedelta(microseconds=1))
        start, counted = time // slide * slide, False
        while start > time - every:
            if latest is None or start + every > latest - late:
                windows.setdefault((start, row["k"]), []).append(index)
                counted = True
            start -= slide
        lost += not counted
        latest = time if latest is None else max(latest, time)
    return windows, lost


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("every", "slide", "late", "jitter"),
    [(10, 10, 0, 0), (10, 10, 0, 6), (60, 10, 1, 20), (7, 3, 2, 9), (3, 2, 100, 9)],
)
def test_every_row_is_in_the_windows_that_were_open(every: int, slide: int, late: int, jitter: float) -> None:
    table = events(1500, jitter)
    wanted, lost = by_hand(table, every * 10**6, slide * 10**6, late * 10**6)
    argument = "count(*) as c, sum(n) as s, min(x) as lo, first(x) as f, last(n) as l"
    argument += f" every {every}s on ts slide {slide}s late {late}s by k"
    found, window = run(argument, table)
    assert window.rejected["late_row"] == lost
    assert (lost > 0) == (late < 100 and 2 * jitter > every + late)
    assert found.num_rows == len(wanted)
    numbers, values = table.column("n").to_pylist(), table.column("x").to_pylist()
    order = []
    for row in found.to_pylist():
        start = int((row["window_start"] - datetime(1970, 1, 1)) / timedelta(microseconds=1))
        rows = wanted[start, row["k"]]
        assert row["window_end"] - row["window_start"] == timedelta(seconds=every)
        there = [numbers[index] for index in rows if numbers[index] is not None]
        assert row["c"] == len(rows)
        assert row["s"] == (sum(there) if there else None)
        assert row["lo"] == min(values[index] for index in rows)
        if slide == every:  # otherwise they are by pane first
            assert (row["f"], row["l"]) == (values[rows[0]], numbers[rows[-1]])
        order.append((row["window_end"], row["k"] is None, row["k"] or ""))
    assert order == sorted(order)


@pytest.fixture(params=["C", "Python"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIBRARY is not None
    if request.param == "Python":
        monkeypatch.setattr(groups, "LIBRARY", None)
        monkeypatch.setattr(panes, "LIBRARY", None)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("late", ["", "late 1s", "late 30s"])
@pytest.mark.parametrize("shape", ["every 10s on ts", "every 60s on ts slide 10s", "every 7s on ts slide 3s"])
def test_nothing_depends_on_how_the_stream_is_cut(shape: str, late: str) -> None:
    table = events(600, 15)
    argument = (
        f"sum(x) as sx, avg(x) as ax, sum(d) as sd, count(n) as c, max(k) as mk, first(k) as fk {shape} {late} by k"
    )
    wanted, whole = run(argument, table)
    assert wanted.num_rows > 5
    for rows in (1, 7, 100, 599):
        found, window = run(argument, table, rows)
        assert found.equals(wanted), rows  # floats too, to the last bit
        assert window.rejected == whole.rejected


def test_the_answer_is_duckdbs_where_nothing_is_late() -> None:
    table = events(3000, 5)
    found, window = run("sum(d) as d, count(x) as c, avg(n) as a every 10s on ts late 1h by k", table, 100)
    with duckdb.connect() as connection:
        connection.register("t", table)
        wanted = connection.sql(
            """SELECT time_bucket(INTERVAL '10s', ts) AS s, s + INTERVAL '10s' AS e, k, sum(d) AS d, count(x) AS c, avg(n) AS a
            FROM t GROUP BY ALL ORDER BY s, k NULLS LAST"""
        ).fetchall()
    assert [tuple(row.values()) for row in found.to_pylist()] == wanted
    assert not window.rejected


def test_a_window_is_given_as_soon_as_the_watermark_passes() -> None:
    window = Window(parse("count(*) as n every 10s on ts late 2s"), page_bytes=PAGE)
    seen: list[list[int]] = []
    for second in (0, 5, 11, 12, 9, 22, 100):
        batch = pa.record_batch({"ts": pa.array([second], pa.timestamp("s"))})
        seen.append(
            [n for page in window.feed(Page(batch, 8, 1, first=second == 0)) for n in page.payload["n"].to_pylist()]
        )
    # At 12 s the first one ends; 9 s came too late for it. At 100 s both that are open end.
    assert seen == [[], [], [], [2], [], [2], [1]]
    assert window.rejected == {"late_row": 1}
    assert [page.payload["n"].to_pylist() for page in window.flush()] == [[1]]


@pytest.mark.parametrize(
    "type_",
    [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.date32()],
    ids=str,
)
def test_times_of_every_type(type_: pa.DataType) -> None:
    days = [date(1969, 12, 30), date(1969, 12, 31), date(1970, 1, 1), date(1970, 1, 2)]
    table = pa.table({"ts": pa.array(days).cast(pa.timestamp("s")).cast(type_)})
    found, _ = run("count(*) as n every 2d on ts", table)
    zone = UTC if type_ == pa.timestamp("us", "UTC") else None
    starts = [datetime(1969, 12, 30, tzinfo=zone), datetime(1970, 1, 1, tzinfo=zone)]
    assert [row["window_start"] for row in found.to_pylist()] == starts
    assert found.column("n").to_pylist() == [2, 2]


def test_rows_without_a_time_and_late_ones_are_told() -> None:
    kept: list[Reject] = []

    def keep(rejects: Sequence[Reject]) -> None:
        kept.extend(rejects)

    table = pa.table({"ts": pa.array([100, None, 5, 101], pa.timestamp("s")), "k": ["a", "b", "c", "d"]})
    found, window = run("count(*) as n every 10s on ts", table, 2, keep)
    assert found.column("n").to_pylist() == [2]
    assert window.rejected == {"bad_value": 1, "late_row": 1}
    assert [(reject.code, reject.line, reject.text) for reject in kept] == [
        ("bad_value", 0, '{"ts":null,"k":"b"}'),
        ("late_row", 0, '{"ts":"1970-01-01T00:00:05","k":"c"}'),
    ]


def test_a_stream_that_leaps_gives_no_windows_between() -> None:
    table = pa.table({"ts": pa.array([-5, 4, 10**9, 10**9 + 1, 5 * 10**9], pa.timestamp("s")), "n": [1, 2, 4, 8, 16]})
    for rows in (1, 5):
        found, _ = run("sum(n) as s every 3s on ts slide 2s", table, rows)
        starts = [int(row["window_start"].replace(tzinfo=UTC).timestamp()) for row in found.to_pylist()]
        leaps = [10**9 - 2, 10**9, 5 * 10**9 - 2, 5 * 10**9]
        assert (starts, found.column("s").to_pylist()) == ([-6, 2, 4, *leaps], [1, 2, 2, 4, 12, 16, 16])


def test_keys_and_totals_of_rare_types() -> None:
    texts = ["a", "b", None, "a"]
    table = pa.table(
        {
            "ts": pa.array([0, 1, 2, 3], pa.timestamp("s")),
            "k": texts,
            "z": pa.nulls(4),
            "f": pa.array([0.0, 1.0, math.nan, -0.0], pa.float16()),
            "b": [True, False, None, False],
        }
    )
    argument = "min(b) as least, max(f) as most, last(k) as l, count(z) as there every 9s on ts by k, z"
    for rows in (1, 4):
        found, _ = run(argument, table, rows)
        assert found.column("k").to_pylist() == found.column("l").to_pylist() == ["a", "b", None]
        assert found.column("least").to_pylist() == [False, False, None]
        assert [str(number) for number in found.column("most").to_pylist()] == ["-0.0", "1.0", "nan"]
        assert found.column("there").to_pylist() == [0, 0, 0]
    with pytest.raises(Refusal, match="of which there is no max"):
        run("max(l) as m every 9s on ts", table.append_column("l", pa.array([[1]] * 4)))
    with pytest.raises(Refusal, match="and cannot be a group"):
        run("count(*) as n every 9s on ts by l", table.append_column("l", pa.array(texts).dictionary_encode()))


@pytest.mark.parametrize("kind", [Window, SessionWindow])
def test_a_row_without_a_time_ends_the_run_where_bad_rows_do(kind: type[Window | SessionWindow]) -> None:
    asked = parse("count(*) as n gap 10s on ts" if kind is SessionWindow else "count(*) as n every 10s on ts")
    table = pa.table({"ts": pa.array([datetime(2024, 1, 1), None])})
    window = kind(asked, page_bytes=PAGE, tolerant=False)
    with pytest.raises(Refusal, match="ts is null in a row") as refused:
        [result for page in pages(table, 10) for result in window.feed(page)]
    assert (refused.value.code, refused.value.column) == ("bad_value", "ts")


def test_an_empty_input_has_the_columns_of_a_result() -> None:
    found, _ = run("sum(n) as s, avg(n) as a every 10s on ts by k", events(0, 1))
    assert found.num_rows == 0
    assert [(field.name, str(field.type)) for field in found.schema] == [
        ("window_start", "timestamp[us]"),
        ("window_end", "timestamp[us]"),
        ("k", "null" if found.schema.field("k").type == pa.null() else "string"),
        ("s", "int64"),
        ("a", "double"),
    ]


def test_memory_is_bounded_by_what_is_declared() -> None:
    table = events(20_000, 3)
    check_memory(
        lambda: [Window(parse("sum(x) as s, max(d) as m every 60s on ts slide 10s by k, n"), page_bytes=PAGE)],
        list(pages(table, 1300)),
    )
    for shape, keys in (
        ("every 30s on ts slide 10s", 30_000),
        ("every 10s on ts", 90_000),
        ("every 9s on ts late 1d", 15_000),
    ):
        rows = 150_000
        full = pa.table(
            {
                "ts": pa.array(range(0, 90 * 10**6, 90 * 10**6 // rows), pa.timestamp("us")),
                "k": [f"customer-{n * n % keys:09}" for n in range(rows)],
                "x": pa.array(range(rows)),
            }
        )
        argument = f"sum(x) as s, max(k) as m {shape} by k" if "slide" in shape else f"sum(x) as s {shape} by k"
        check_memory(lambda argument=argument: [Window(parse(argument), page_bytes=PAGE)], list(pages(full, 1300)))
    many = pa.table({"ts": pa.array([0] * 400_000, pa.timestamp("s")), "k": range(400_000)})
    with pytest.raises(Refusal, match="groups of open windows take") as caught:
        run("count(*) as n every 10s on ts by k", many, 5000)
    assert caught.value.code == "state_too_large"


def test_a_sum_that_outgrows_its_type_is_refused() -> None:
    table = pa.table({"ts": pa.array([0] * 4, pa.timestamp("s")), "n": [2**62] * 4})
    with pytest.raises(Refusal, match="derive the column as DOUBLE") as caught:
        run("sum(n) as s every 10s on ts", table, 1)
    assert caught.value.code == "bad_computation"


@pytest.mark.parametrize(
    ("argument", "said", "position"),
    [
        ("sum(x) on ts", "'every' is missing", 0),
        ("sum(x) every 10s", "'on' is missing", 0),
        ("sum(x) every soon on ts", "no duration", 13),
        ("sum(x) every 0s on ts", "no duration", 13),
        ("sum(x) every 5s on ts slide 10s", "longer than every", 28),
        ("sum(x) every 5s on ts, k", "one column", 19),
        ("sum(x) every 5s on ts by k + 1", "no column", 27),
        ("sum(x) as s, median(x) every 5s on ts", "none of count, sum", 13),
        ("sum(x * 2) as s every 5s on ts", "derive what is computed", 0),
        ("sum() every 5s on ts", "takes a column", 0),
        ("sum(DISTINCT x) every 5s on ts", "DISTINCT", 0),
        ("sum(x) as s, max(x) as S every 5s on ts", "there already", 13),
        ("x every 5s on ts", "none of count", 0),
    ],
)
def test_an_argument_that_cannot_be_read(argument: str, said: str, position: int) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        parse(argument)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("sum(x) every 5s on seen", "no column 'seen'; columns are ts, k"),
        ("sum(x) every 5s on n", "int32 and not a time; derive="),
        ("sum(k) every 5s on ts", "of which there is no sum"),
        ("sum(x) every 5s on ts by zz", "no column 'zz'"),
        ("sum(zz) every 5s on ts", "no column 'zz'"),
        ("sum(x) every 0.0000015s on ts", "no whole number of us"),
        ("count(*) as k every 5s on ts by k", "two columns would be called 'k'"),
    ],
)
def test_what_does_not_fit_the_columns(argument: str, said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        run(argument, events(10, 1))
    assert caught.value.code == "bad_argument"
