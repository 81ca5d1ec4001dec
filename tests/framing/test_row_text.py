"""Rows of text as C writes them are those that pyarrow makes."""

from __future__ import annotations

import datetime
import decimal
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.framing import csv_write, json_text, row_text
from app.framing.csv_write import CsvWrite
from tests.framing.native import each_build

__all__ = ["each_build"]

OBJECT = pa.struct([("x", pa.int64()), ("y", pa.string())])
# fmt: off
VALUES: dict[pa.DataType, st.SearchStrategy[object]] = {
    pa.string(): st.text(max_size=40) | st.text(alphabet='a"\\\n\r,\t\x00\x1fä', max_size=40),
    pa.large_string(): st.text(max_size=5),
    pa.binary(): st.text(max_size=5).map(str.encode),
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-1000, 1000),
    pa.int32(): st.integers(-(2**31), 2**31 - 1) | st.integers(-101, 101),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(min_value=datetime.datetime(1, 1, 2)),
    pa.decimal128(12, 2): st.decimals("-9999999999", "9999999999", places=2),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["a", 'b"', "c\n"]),
    OBJECT: st.fixed_dictionaries({"x": st.integers(0, 9), "y": st.text(max_size=3)}),
    pa.list_(pa.string()): st.lists(st.text(max_size=3), max_size=3),
}
# fmt: on


def texts(batch: pa.RecordBatch) -> tuple[bytes, bytes]:
    return bytes(json_text.rows_text(batch)), bytes(CsvWrite(b",").text(batch, b"head\n"))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=5), st.integers(0, 12), st.integers(0, 3), st.data()
)
def test_rows_are_those_of_pyarrow(types: list[pa.DataType], rows: int, skipped: int, data: st.DataObject) -> None:
    arrays = [
        pa.array(data.draw(st.lists(st.none() | VALUES[type_], min_size=rows, max_size=rows)), type_) for type_ in types
    ]
    names = [f'c"{index}' for index in range(len(types))]
    batch = pa.RecordBatch.from_arrays(arrays, names).slice(skipped, 5)
    by_c = texts(batch)
    with pytest.MonkeyPatch.context() as patch:
        for module in (json_text, csv_write):
            patch.setattr(module, "row_text", lambda *_, **__: None)
        assert texts(batch) == by_c


def test_every_day_of_four_digits() -> None:
    first, count = datetime.date(1, 1, 1), 3_652_059
    days = pa.array(range(0, count, 17), pa.int32())
    start = (first - datetime.date(1970, 1, 1)).days
    batch = pa.RecordBatch.from_arrays(
        [pa.array([day.as_py() + start for day in days], pa.int32()).cast(pa.date32())], ["d"]
    )
    lines = bytes(CsvWrite(b",").text(batch, b"")).split()
    assert lines == [day.isoformat().encode() for day in batch.column(0).to_pylist()]


def test_other_years_are_pyarrows() -> None:
    for days in (-719_469, 2_932_897):
        batch = pa.RecordBatch.from_arrays([pa.array([days], pa.int32()).cast(pa.date32())], ["d"])
        column = row_text.Column(batch.column(0), b"", row_text.Quoting.PLAIN)
        assert row_text.row_text([column], null=b"", end=b"\n") is None
        assert bytes(CsvWrite(b",").text(batch, b"")) == batch.column(0).cast(pa.string())[0].as_py().encode() + b"\n"


def test_numbers_and_escapes() -> None:
    numbers = [0, 9, 10, 99, 100, -1, -10, 12345, 2**63 - 1, -(2**63)]
    special = "".join(map(chr, range(35))) + '\\"x'
    batch = pa.RecordBatch.from_pydict({"n": numbers, "t": [special * n for n in range(10)]})
    rows = [json.loads(line) for line in bytes(json_text.rows_text(batch)).splitlines()]
    assert rows == batch.to_pylist()


def test_the_result_takes_no_more_than_it_says() -> None:
    batch = pa.RecordBatch.from_pydict({"n": [1] * 100_000})
    before = pa.total_allocated_bytes()
    text = json_text.rows_text(batch)
    assert len(text) == 800_000
    assert pa.total_allocated_bytes() - before < 900_000


def test_decimals_and_nulls() -> None:
    batch = pa.RecordBatch.from_pydict({"d": [decimal.Decimal("1.50"), None], "s": [None, ""]})
    assert bytes(json_text.rows_text(batch)) == b'{"d":1.50,"s":null}\n{"d":null,"s":""}\n'
    assert bytes(CsvWrite(b",").text(batch, b"")) == b'1.50,\n,""\n'
