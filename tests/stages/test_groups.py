"""Groups are those of a plain loop over the rows, to the last bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.framing.native import LIBRARY
from app.stages import groups
from app.stages.groups import Groups, Kind, Total, supported

MOST = 1 << 22
TEXT = st.text(alphabet="ab", max_size=3) | st.text(max_size=40) | st.sampled_from(["x" * n for n in range(12, 20)])
BINARY = st.binary(max_size=2) | st.binary(min_size=250, max_size=260)
DECIMALS = st.decimals(min_value=-(10**10), max_value=10**10, places=2, allow_nan=False)
INTS = st.sampled_from([0, 1, 2, 3, 5]) | st.integers(-128, 127)
FLOATS = st.sampled_from([0.0, -0.0, math.nan, 1.5, -2.25, 1e300, math.inf, -math.inf]) | st.floats(width=32)
MOMENTS = st.datetimes(datetime(1969, 1, 1), datetime(1971, 1, 1))
OF_TYPE: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): INTS,
    pa.int16(): INTS,
    pa.int32(): INTS,
    pa.int64(): INTS | st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.uint16(): st.integers(0, 5),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): FLOATS,
    pa.float64(): FLOATS | st.floats(),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(date(1969, 12, 1), date(1970, 2, 1)),
    pa.timestamp("us"): MOMENTS,
    pa.time64("us"): st.times(),
    pa.decimal128(20, 2): DECIMALS,
    pa.decimal256(50, 2): DECIMALS,
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.binary(): BINARY,
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.null(): st.none(),
}
KINDS = ("rows", "valid", "sum", "min", "max", "first", "last")
COUNTS = ("rows", "valid")


def bits(value: Any) -> Any:
    """Equal for the same value to the last bit; NaNs are all the same."""
    return ("nan" if math.isnan(value) else struct.pack("d", value)) if isinstance(value, float) else value


def as_key(value: Any) -> Any:
    return ("nan" if math.isnan(value) else value + 0.0) if isinstance(value, float) else value


def by_hand(keys: Sequence[list[Any]], values: Sequence[list[Any]], totals: Sequence[Total], rows: int) -> list[Any]:
    """Keys, then totals, of each group in the order in which it first came."""
    found: dict[Any, list[int]] = {}
    for row in range(rows):
        found.setdefault(tuple(as_key(key[row]) for key in keys), []).append(row)
    return [
        (
            *(bits(as_key(key)) for key in group),
            *(bits(one(t, [v[r] for r in of])) for t, v in zip(totals, values, strict=True)),
        )
        for group, of in found.items()
    ]


def one(total: Total, values: list[Any]) -> Any:
    there = [value for value in values if value is not None]
    if total.kind in COUNTS:
        return len(values if total.kind == "rows" else there)
    if total.kind in ("first", "last"):
        return values[0 if total.kind == "first" else -1]
    if not there:
        return None
    if total.kind == "sum":
        found = 0.0 if isinstance(there[0], float) else 0
        with localcontext(prec=80):
            for value in there:
                found += value
        return found
    chosen = there[0]
    for value in there[1:]:
        less, more = (chosen, value) if total.kind == "min" else (value, chosen)
        is_better = less < more or (more != more and less == less)
        chosen = chosen if is_better else value  # of 0.0 and -0.0 the later one, as in DuckDB
    return chosen


def rows_of(batch: pa.RecordBatch) -> list[Any]:
    batch.validate(full=True)
    return list(zip(*([bits(value) for value in column.to_pylist()] for column in batch.columns), strict=True))


def added(table: Groups, keys: Sequence[pa.Array], values: Sequence[pa.Array | None]) -> Iterator[pa.RecordBatch]:
    """Adds all rows, and gives what is taken meanwhile."""
    rows = len(keys[0])
    row = 0
    while row < rows:
        taken = table.add([k.slice(row) for k in keys], [None if v is None else v.slice(row) for v in values])
        row += taken
        if row < rows:
            assert len(table), "it took nothing, although it was empty"
            yield table.take()


@pytest.fixture(params=["C", "Python"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIBRARY is not None
    if request.param == "Python":
        monkeypatch.setattr(groups, "LIBRARY", None)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[pa.Array], list[Total], list[pa.Array]]:
    key_types = draw(st.lists(st.sampled_from(list(OF_TYPE)), min_size=1, max_size=3))
    pairs = [(kind, type_) for kind in KINDS for type_ in OF_TYPE if supported(kind, type_)]
    totals = [Total(*pair) for pair in draw(st.lists(st.sampled_from(pairs), max_size=4))]
    rows = draw(st.integers(1, 40))

    def column(type_: pa.DataType, few: int) -> pa.Array:
        pool = draw(st.lists(st.none() | OF_TYPE[type_], min_size=1, max_size=few))
        return pa.array([pool[draw(st.integers(0, len(pool) - 1))] for _ in range(rows)], type_)

    before = draw(st.integers(0, 9))
    keys = [column(type_, 4).slice(min(before, rows - 1)) for type_ in key_types]
    return keys, totals, [column(total.type, 8).slice(min(before, rows - 1)) for total in totals]


@settings(max_examples=100, deadline=None)
@given(tables(), st.data())
def test_groups_are_those_of_a_plain_loop_however_they_are_cut(
    table: tuple[list[pa.Array], list[Total], list[pa.Array]], data: st.DataObject
) -> None:
    keys, totals, values = table
    rows = len(keys[0])
    wanted: list[Any] | None = by_hand([k.to_pylist() for k in keys], [v.to_pylist() for v in values], totals, rows)
    for i, total in enumerate(totals):
        if total.kind == "sum" and pa.types.is_integer(total.type):
            sums = [group[len(keys) + i] or 0 for group in wanted or ()]
            wanted = wanted if all(-(2**63) <= found < 2**63 for found in sums) else None
    cuts = sorted(data.draw(st.sets(st.integers(1, rows))) | {0, rows})
    made = Groups([key.type for key in keys], totals, most_bytes=MOST)
    for start, end in pairwise(cuts):
        given_values = [
            None if total.kind == "rows" else value.slice(start, end - start)
            for total, value in zip(totals, values, strict=True)
        ]
        assert made.add([key.slice(start, end - start) for key in keys], given_values) == end - start
    if wanted is None:
        with pytest.raises(OverflowError):
            made.take()
        return
    assert len(made) == len(wanted)
    found = made.take()
    assert found.schema.types == [*(key.type for key in keys), *(total.result_type for total in totals)]
    assert rows_of(found) == wanted
    assert (len(made), made.take().num_rows) == (0, 0)
    assert made.add(keys, values) == rows
    assert rows_of(made.take()) == wanted


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("type_", [pa.int64(), pa.string(), pa.decimal128(21, 2)], ids=str)
def test_many_rows_and_many_groups(rows: int, type_: pa.DataType) -> None:
    numbers = [n * n % 3331 - 7 for n in range(rows)]
    texts = [None if n % 97 == 0 else str(n) * (n % 9) for n in numbers]
    keys = pa.array(texts if type_ == pa.string() else numbers).cast(type_)
    totals = [Total("sum", pa.float64()), Total("last", pa.string()), Total("max", pa.int16())]
    values = [pa.array([n / 7 for n in numbers]), pa.array(texts), pa.array(numbers, pa.int16())]
    made = Groups([type_], totals, most_bytes=MOST)
    assert made.add([keys], values) == rows
    assert rows_of(made.take()) == by_hand([keys.to_pylist()], [v.to_pylist() for v in values], totals, rows)


@pytest.mark.parametrize("type_", [pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("kind", ["min", "max"])
@pytest.mark.parametrize("zeros", [[0.0, -0.0], [-0.0, 0.0]])
def test_of_two_zeros_the_later_one_is_taken(zeros: list[float], kind: Kind, type_: pa.DataType) -> None:
    totals = [Total(kind, type_)]
    made = Groups([pa.int8()], totals, most_bytes=MOST)
    assert made.add([pa.array([1, 1], pa.int8())], [pa.array(zeros, type_)]) == 2
    assert rows_of(made.take()) == by_hand([[1, 1]], [zeros], totals, 2) == [(1, bits(zeros[1]))]


@settings(max_examples=50, deadline=None)
@given(tables(), st.data())
def test_what_is_taken_meanwhile_and_merged_again_changes_nothing(
    table: tuple[list[pa.Array], list[Total], list[pa.Array]], data: st.DataObject
) -> None:
    """With leads, which are keys as others are; sums go on where they were, and need only fit in the end."""
    keys, totals, values = table
    rows = len(keys[0])
    leads = pa.array(
        data.draw(st.lists(st.integers(-2, 2) | st.just(-(2**63)), min_size=rows, max_size=rows)), pa.int64()
    )
    whole, other = (Groups([key.type for key in keys], totals, most_bytes=MOST, led=True) for _ in range(2))
    assert whole.add(keys, values, leads) == rows
    for row in range(rows):
        taken = other.add([key.slice(row, 1) for key in keys], [v.slice(row, 1) for v in values], leads.slice(row, 1))
        assert taken == 1
        if data.draw(st.booleans()):
            partial = other.take_partial()
            assert other.merge(partial) == partial.num_rows
    try:
        wanted = whole.take()
    except OverflowError:
        with pytest.raises(OverflowError):
            other.take()
        return
    assert rows_of(other.take()) == rows_of(wanted)
    by_lead = by_hand(
        [leads.to_pylist(), *(k.to_pylist() for k in keys)], [v.to_pylist() for v in values], totals, rows
    )
    assert rows_of(wanted) == by_lead


@pytest.mark.parametrize("keys", [[pa.int64()], [pa.string()], [pa.string(), pa.int32()]], ids=str)
@pytest.mark.parametrize("most_bytes", [5_000, 30_000, 100_000])
def test_a_full_table_takes_the_others_once_it_is_empty(keys: list[pa.DataType], most_bytes: int) -> None:
    rows = 3000
    columns = [pa.array([n * n % 1009 for n in range(rows)]).cast(type_) for type_ in keys]
    texts = pa.array([f"{n:>{n % 50}}" for n in range(rows)])
    totals = [Total("rows", pa.int64()), Total("max", pa.string())]
    made = Groups(keys, totals, most_bytes=most_bytes)
    parts = []
    for part in added(made, columns, [None, texts]):
        assert made.nbytes <= most_bytes
        parts.append(part)
    parts.append(made.take())
    assert len(parts) > 2
    kept_bytes = made.nbytes
    merged = pa.Table.from_batches(parts).group_by(parts[0].schema.names[: len(keys)], use_threads=False)
    found = merged.aggregate([("t0", "sum"), ("t1", "max")]).combine_chunks().to_batches()[0]
    wanted = by_hand([c.to_pylist() for c in columns], [[None] * rows, texts.to_pylist()], totals, rows)
    assert sorted(rows_of(found)) == sorted(wanted)  # pyarrow gives groups in another order
    list(added(made, columns, [None, texts]))
    assert made.nbytes <= max(kept_bytes, most_bytes)


def test_a_row_that_is_larger_than_the_table_is_refused() -> None:
    for key, value in (("x" * 9000, "y"), ("x", "y" * 9000)):
        made = Groups([pa.string()], [Total("min", pa.string())], most_bytes=8000)
        with pytest.raises(Refusal, match="one group alone takes more") as refused:
            made.add([pa.array([key])], [pa.array([value])])
        assert refused.value.code == "state_too_large"


def test_without_keys_all_rows_are_one_group() -> None:
    made = Groups([], [Total("rows", pa.null()), Total("sum", pa.int8())], most_bytes=MOST)
    assert made.take().num_rows == 0
    assert made.add([], [None, pa.array([100, None, 100], pa.int8())]) == 3
    assert made.take().to_pylist() == [{"t0": 3, "t1": 200}]


def test_a_sum_fails_only_where_the_whole_does_not_fit() -> None:
    for type_, most in ((pa.int64(), 2**63 - 1), (pa.uint64(), 2**64 - 1)):
        made = Groups([], [Total("sum", type_)], most_bytes=MOST)
        made.add([], [pa.array([most, most], type_)])
        with pytest.raises(OverflowError):
            made.take()
    made = Groups([], [Total("sum", pa.int64())], most_bytes=MOST)
    made.add([], [pa.array([2**63 - 1, 2**63 - 1, -(2**63)])])
    assert made.take().to_pylist() == [{"t0": 2**63 - 2}]


def test_a_sum_of_decimals_has_38_digits() -> None:
    most = Decimal("9" * 38)
    for values in ([most, Decimal(1)], [most] * 5):
        made = Groups([], [Total("sum", pa.decimal128(38, 0))], most_bytes=MOST)
        with pytest.raises(OverflowError):  # noqa: PT012, some are found at once, others in the end
            made.add([], [pa.array(values, pa.decimal128(38, 0))])
            made.take()
    made = Groups([], [Total("sum", pa.decimal128(38, 0))], most_bytes=MOST)
    made.add([], [pa.array([most, Decimal(1), Decimal(-1)], pa.decimal128(38, 0))])
    assert made.take().to_pylist() == [{"t0": most}]


def test_what_cannot_be_grouped() -> None:
    for kind, type_ in (
        ("key", pa.list_(pa.int64())),
        ("key", pa.struct([("x", pa.int64())])),
        ("key", pa.dictionary(pa.int32(), pa.string())),
        ("sum", pa.string()),
        ("sum", pa.bool_()),
        ("sum", pa.date32()),
        ("max", pa.binary(3)),
        ("first", pa.list_(pa.int64())),
    ):
        assert not supported(kind, type_)
        with pytest.raises(ValueError, match="there is no"):
            Groups([type_] if kind == "key" else [], [] if kind == "key" else [Total(kind, type_)], most_bytes=MOST)
