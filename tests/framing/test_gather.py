"""Rows by their numbers, beside Arrow's take."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import app.framing.native.gather
from app.framing.native.gather import Taken, take_rows, text_span_bytes

COLUMNS: list[pa.Array] = [
    pa.array([1, None, -3, 4, 5, 6, 7, 8, 9], pa.int64()),
    pa.array([1, 2, 3, 4, 5, 6, 7, 8, 9], pa.int32()),
    pa.array([1, None, 3, 4, 5, 6, 7, 8, 9], pa.int16()),
    pa.array([1, 2, 3, 4, 5, 6, 7, 8, 9], pa.uint8()),
    pa.array([0.5, None, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]),
    pa.array([True, None, False, True, True, False, True, False, True]),
    pa.array(["", "a", None, "ä" * 40, "b" * 31, "c" * 33, "d", "e" * 100, "f"]),
    pa.array([b"", b"a", None, b"x" * 64, b"b", b"c", b"d", b"e", b"f"], pa.binary()),
    pa.array([date(1970, 1, 1), None, *[date(2024, 2, 29)] * 7]),
    pa.array([Decimal("1.50"), None, *[Decimal("-2.25")] * 7], pa.decimal128(20, 2)),
    pa.array([None] * 9, pa.string()),
    # What C leaves to Arrow.
    pa.array(["a", None, *"bcdefgh"], pa.large_string()),
    pa.array([[1], None, *[[2, 3]] * 7], pa.list_(pa.int64())),
    pa.nulls(9),
]


def taken(rows: list[int], offset: int, *, may_miss: bool) -> list[list[Any]]:
    columns = [column.slice(offset) for column in COLUMNS]
    places = pa.array(rows, pa.int32()).buffers()[1] or pa.py_buffer(b"")
    text_bytes = len(rows) * sum(map(text_span_bytes, columns))
    arrays = take_rows([Taken(column, places, may_miss) for column in columns], len(rows), text_bytes)
    for array, column in zip(arrays, columns, strict=True):
        array.validate(full=True)
        assert array.type == column.type
        assert array.null_count == sum(value is None for value in array.to_pylist())
    return [array.to_pylist() for array in arrays]


@given(st.lists(st.integers(-1, 5), max_size=40), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_rows_are_those_that_were_asked_for(rows: list[int], offset: int) -> None:
    wanted = [[None if row < 0 else column[offset + row].as_py() for row in rows] for column in COLUMNS]
    assert taken(rows, offset, may_miss=True) == wanted
    if -1 not in rows:
        assert taken(rows, offset, may_miss=False) == wanted


def test_without_the_library_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    by_c = taken([3, -1, 0, 5, 5], 2, may_miss=True)
    monkeypatch.setattr(app.framing.native.gather, "LIBRARY", None)
    assert taken([3, -1, 0, 5, 5], 2, may_miss=True) == by_c


def test_of_a_column_without_rows_all_can_be_missing() -> None:
    places = pa.array([-1, -1], pa.int32()).buffers()[1]
    for column in COLUMNS:
        (array,) = take_rows([Taken(column.slice(9), places, may_miss=True)], 2, 0)
        array.validate(full=True)
        assert array.to_pylist() == [None, None]


def test_what_is_left_of_a_large_room_is_copied() -> None:
    """A page that keeps more alive than it says would not be paid for."""
    column = pa.array(["x" * 100_000, "y"])
    places = pa.array([1], pa.int32()).buffers()[1]
    (array,) = take_rows([Taken(column, places, may_miss=False)], 1, text_span_bytes(column))
    before = pa.total_allocated_bytes()
    assert array.to_pylist() == ["y"]
    assert array.get_total_buffer_size() < 100
    assert array.buffers()[2].parent is None
    assert pa.total_allocated_bytes() == before
