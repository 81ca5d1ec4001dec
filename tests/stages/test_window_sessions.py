"""Session windows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.stages.window_sessions import SessionWindow
from app.stages.window_text import parse
from tests.conformance.check_stage import check_memory
from tests.stages.test_window import PAGE, events, pages


def run(argument: str, table: pa.Table, rows: int = 10_000, keep: Any = None) -> tuple[pa.Table, SessionWindow]:
    window = SessionWindow(parse(argument), page_bytes=PAGE, keep=keep)
    found = [page for given in pages(table, rows) for page in window.feed(given)] + list(window.flush())
    assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    assert not window._open
    assert window._state.num_rows == 0
    return pa.Table.from_batches([page.payload for page in found]), window


def micros(time: datetime) -> int:
    return int((time - datetime(1970, 1, 1)) / timedelta(microseconds=1))


def by_hand(table: pa.Table, gap: int, late: int) -> tuple[list[tuple[int, int, Any, list[int]]], int]:
    """Sessions in microseconds with their rows, and how many rows are late: as slowly as one likes."""
    sessions: list[list[Any]] = []  # start, end, key, rows, is open
    latest, lost = None, 0
    for index, row in enumerate(table.select(["ts", "k"]).to_pylist()):
        time = micros(row["ts"])
        for session in sessions:
            if latest is not None and session[1] + gap <= latest - late:
                session[4] = False
        near = [s for s in sessions if s[4] and s[2] == row["k"] and s[0] - gap < time < s[1] + gap]
        if not near and latest is not None and time + gap <= latest - late:
            lost += 1
            continue
        joined = [time, time, row["k"], [index], True]
        for session in near:
            sessions.remove(session)
            joined[0], joined[1] = min(joined[0], session[0]), max(joined[1], session[1])
            joined[3] = session[3] + joined[3]
        sessions.append(joined)
        latest = time if latest is None else max(latest, time)
    return [(start, end, key, rows) for start, end, key, rows, _ in sessions], lost


@pytest.mark.parametrize(("gap", "late", "jitter"), [(1, 0, 0), (1, 0, 2), (1, 1, 3), (2, 5, 3), (0.3, 0, 1)])
def test_every_row_is_in_the_session_that_was_open(gap: float, late: float, jitter: float) -> None:
    table = events(900, jitter)
    wanted, lost = by_hand(table, int(gap * 1e6), int(late * 1e6))
    found, window = run(f"count(*) as c, sum(n) as s, max(d) as d gap {gap}s on ts late {late}s by k", table)
    assert window.rejected["late_row"] == lost
    assert (lost > 0) == (jitter > late + gap / 2)
    numbers = table.column("n").to_pylist()
    rows = {(micros(row["window_start"]), row["k"]): row for row in found.to_pylist()}
    assert len(rows) == found.num_rows == len(wanted)
    for start, end, key, indices in wanted:
        row = rows[start, key]
        there = [numbers[index] for index in indices if numbers[index] is not None]
        assert micros(row["window_end"]) == end + int(gap * 1e6)
        assert (row["c"], row["s"]) == (len(indices), sum(there) if there else None)


@pytest.mark.parametrize("late", ["", "late 2s"])
def test_nothing_depends_on_how_the_stream_is_cut(late: str) -> None:
    table = events(900, 2)
    argument = f"sum(n) as s, count(x) as c, min(x) as lo, max(k) as mk gap 700ms on ts {late} by k"
    wanted, whole = run(argument, table)
    for rows in (1, 7, 100, 333):
        found, window = run(argument, table, rows)
        assert found.sort_by([("window_start", "ascending"), ("k", "ascending")]).equals(
            wanted.sort_by([("window_start", "ascending"), ("k", "ascending")])
        )
        assert window.rejected == whole.rejected
    ordered = events(900, 0)
    wanted, _ = run(f"sum(x) as sx gap 700ms on ts {late} by k", ordered)
    for rows in (1, 7, 333):
        found, _ = run(f"sum(x) as sx gap 700ms on ts {late} by k", ordered, rows)
        order = [("window_start", "ascending"), ("k", "ascending")]
        assert found.sort_by(order).equals(wanted.sort_by(order))


def test_a_session_is_given_once_the_watermark_is_a_gap_behind_it() -> None:
    kept: list[Reject] = []
    window = SessionWindow(parse("count(*) as n gap 10s on ts"), page_bytes=PAGE, keep=kept.extend)
    seen: list[list[int]] = []
    for second in (0, 5, 20, 1, 29, 27, 45):
        batch = pa.record_batch({"ts": pa.array([second], pa.timestamp("s"))})
        given = window.feed(Page(batch, 8, 1, first=second == 0))
        seen.append([n for page in given for n in page.payload["n"].to_pylist()])
    # 20 s is 15 s behind 5 s; 1 s is late for the session that ended with 5 s.
    assert seen == [[], [], [2], [], [], [], [3]]
    assert [reject.code for reject in kept] == ["late_row"]
    assert [page.payload["n"].to_pylist() for page in window.flush()] == [[1]]


def test_a_row_between_two_sessions_makes_them_one() -> None:
    table = pa.table({"ts": pa.array([0, 15, 8, 40], pa.timestamp("s")), "x": [1.5, 2.5, 3.5, 0.0]})
    for rows in (1, 2, 4):
        found, _ = run("sum(x) as s, first(x) as f, last(x) as l gap 10s on ts late 30s", table, rows)
        assert found.select(["s", "f", "l"]).to_pylist()[0] in (
            {"s": 7.5, "f": 1.5, "l": 3.5},
            {"s": 7.5, "f": 1.5, "l": 2.5},
        )
        assert found.num_rows == 2


def test_memory_is_bounded() -> None:
    asked = parse("sum(x) as s gap 1s on ts late 1s by k")
    check_memory(lambda: [SessionWindow(asked, page_bytes=PAGE)], list(pages(events(8000, 1), 1300)))
    many = pa.table({"ts": pa.array([0] * 60_000, pa.timestamp("s")), "k": range(60_000)})
    with pytest.raises(Refusal, match="open sessions take") as caught:
        run("count(*) as n gap 10s on ts by k", many, 5000)
    assert caught.value.code == "state_too_large"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("sum(x) gap 5s", "'on' is missing"),
        ("sum(x) gap 5s every 3s on ts", "say one of them"),
        ("sum(x) gap 5s on ts slide 3s", "say one of them"),
        ("sum(x) gap 0s on ts", "no duration"),
    ],
)
def test_an_argument_that_cannot_be_read(argument: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        parse(argument)
