from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.pipeline import FlowStatistics, StageClock
from app.runs.record import (
    Committed,
    Failed,
    Prepared,
    Progressed,
    Released,
    Restarted,
    Run,
    RunEvent,
    Started,
    State,
    advance,
    bottleneck,
    run_of_document,
)

NEW = Run(id="x", mode="stream", pipeline="upper", source="bytes", target="bytes", created_at=0.0)


def seen(*clocks: StageClock) -> FlowStatistics:
    return FlowStatistics(10, 20, 0, 5, 0.25, clocks, ())


def progressed(*clocks: StageClock) -> Progressed:
    return Progressed(seen(*clocks), rows_in=3, rows_out=2, rejected={"bad_value": 1}, spooled_bytes=0, lanes=4)


def test_the_way_to_success() -> None:
    run = advance(NEW, Started(0.5))
    assert (run.state, run.admission_wait_s) == ("running", 0.5)
    run = advance(run, progressed(StageClock("upper", busy_s=1.0)))
    assert (run.state, run.input_bytes, run.rows_rejected, run.first_byte_s) == ("running", 10, 1, 0.75)
    run = advance(run, Committed(Receipt(20, "ab")))
    assert (run.state, run.digest, run.error) == ("succeeded", "ab", None)
    assert run.document()["stages"][0]["busy_s"] == 1.0


@pytest.mark.parametrize(
    ("code", "state"), [("bad_value", "failed"), ("client_gone", "cancelled"), ("cancelled", "cancelled")]
)
def test_failures(code: str, state: str) -> None:
    for run in (NEW, advance(NEW, Started(0.0))):
        ended = advance(run, Failed(Refusal(code, "why", line=7)))
        assert ended.state == state
        assert ended.error is not None
        assert (ended.error.code, ended.error.line) == (code, 7)


def test_a_final_state_is_final() -> None:
    done = advance(advance(NEW, Started(0.0)), Committed(Receipt(1)))
    for event in (Started(0.0), Committed(Receipt(1)), Failed(Refusal("cancelled", "")), progressed()):
        with pytest.raises(ValueError, match="succeeded"):
            advance(done, event)
    with pytest.raises(ValueError, match="accepted"):
        advance(NEW, Committed(Receipt(1)))


EVENTS: dict[type[RunEvent], RunEvent] = {
    type(event): event
    for event in (
        Prepared(7),
        Started(0.5),
        progressed(),
        Committed(Receipt(1, "ab")),
        Failed(Refusal("bad_value", "why")),
        Restarted(),
        Released(),
    )
}
ALLOWED: dict[State, dict[type[RunEvent], State]] = {
    "accepted": {
        Prepared: "accepted",
        Started: "running",
        Failed: "failed",
        Restarted: "accepted",
        Released: "accepted",
    },
    "running": {
        Progressed: "running",
        Committed: "succeeded",
        Failed: "failed",
        Restarted: "accepted",
        Released: "accepted",
    },
    "succeeded": {},
    "failed": {},
    "cancelled": {},
}


@given(st.lists(st.sampled_from(list(EVENTS.values())), max_size=12))
def test_every_history_goes_by_the_table_and_what_it_forbids_changes_nothing(events: list[RunEvent]) -> None:
    run, attempt = NEW, 1
    for event in events:
        before = run
        if (state := ALLOWED[run.state].get(type(event))) is None:
            with pytest.raises(ValueError, match=f"{run.state} cannot have {type(event).__name__}"):
                advance(run, event)
            assert run == before
            continue
        run = advance(run, event)
        attempt += isinstance(event, Restarted)
        assert (run.state, run.attempt) == (state, attempt)
        assert (run.id, run.created_at) == (NEW.id, NEW.created_at)
        assert (run.error is not None) == (state == "failed")
        if isinstance(event, Restarted | Released):  # nothing of the attempt before is left
            assert run == replace(NEW, attempt=attempt)
        assert run_of_document(orjson.loads(orjson.dumps(run))) == run


def test_a_record_of_another_version_is_read() -> None:
    assert run_of_document({**NEW.document(), "of_later": 1}) == NEW


def test_an_error_that_json_cannot_hold_is_held_all_the_same() -> None:
    ended = advance(NEW, Failed(Refusal("bad_value", "half \ud800 of a pair, and \U0001f642")))
    assert ended.error is not None
    assert ended.error.detail == "half ? of a pair, and \U0001f642"
    orjson.dumps(ended)


def test_the_bottleneck() -> None:
    slow = StageClock("slow", busy_s=9.0, idle_s=0.5, blocked_s=0.5)
    wide = StageClock("wide", parallel=True, busy_s=12.0, idle_s=1.0, blocked_s=5.0)
    assert bottleneck(seen(wide, slow), lanes=4) == "slow"
    assert bottleneck(seen(StageClock("a", busy_s=1, idle_s=8)), lanes=4) == "source"
    assert bottleneck(seen(StageClock("a", busy_s=1, blocked_s=8)), lanes=4) == "sink"
    assert bottleneck(seen(), lanes=4) is None
