"""Bad rows: fail at the first, skip or keep them, and how many are too many."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.stages.tolerance import Tolerance


def reject(line: int, code: str = "bad_value") -> Reject:
    return Reject(line, line * 10, code, "not a number", "text", "price")


def pages(*bad: int) -> list[Page]:
    return [Page(b"", 1, rows=10, first=n == 0, rejects=(reject(line),)) for n, line in enumerate(bad)]


def run(tolerance: Tolerance, given: Sequence[Page]) -> list[Page]:
    out = [result for page in given for result in tolerance.feed(page)]
    return [*out, *tolerance.flush()]


def test_fail_tells_line_byte_and_column() -> None:
    with pytest.raises(Refusal) as caught:
        run(Tolerance("fail", None, None), pages(7, 9))
    refusal = caught.value
    assert (refusal.code, refusal.line, refusal.byte, refusal.column) == ("bad_value", 7, 70, "price")


def test_skip_counts_and_drops() -> None:
    tolerance = Tolerance("skip", None, None)
    out = run(tolerance, pages(7, 9))
    assert [page.rejects for page in out] == [(), ()]
    assert tolerance.rejected == {"bad_value": 2}


def test_quarantine_keeps_them_in_order() -> None:
    kept: list[Reject] = []
    run(Tolerance("quarantine", None, kept.extend), pages(7, 9))
    assert [entry.line for entry in kept] == [7, 9]


def test_a_number_of_errors_is_judged_at_once() -> None:
    assert len(run(Tolerance("skip", 2, None), pages(1, 2))) == 2
    with pytest.raises(Refusal) as caught:
        run(Tolerance("skip", 2, None), pages(1, 2, 3))
    assert (caught.value.code, caught.value.line) == ("too_many_rejects", 3)
    with pytest.raises(Refusal, match="max_errors"):
        run(Tolerance("skip", 0, None), pages(1))


def test_a_share_of_errors_is_judged_at_the_end() -> None:
    assert len(run(Tolerance("skip", 0.1, None), pages(1, 2))) == 2  # 2 of 22
    with pytest.raises(Refusal) as caught:
        run(Tolerance("skip", 0.09, None), pages(1, 2))
    assert caught.value.code == "too_many_rejects"
