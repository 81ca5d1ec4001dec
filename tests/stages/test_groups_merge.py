"""Totals of groups that come in parts are merged: each group once, in the order of its keys, in memory or through runs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page
from app.stages.groups import Total
from app.stages.groups_merge import GroupMerge, mergeable
from app.stages.sorted_runs import SortedRuns
from tests.stages.spooled import spooled

TOTALS = [Total("rows", pa.null()), Total("sum", pa.int64(), wide=True), Total("sum", pa.float64())]
TOTALS += [Total("min", pa.string()), Total("max", pa.decimal64(9, 2))]
TOTAL_FIELDS = [(f"t{i}", total.result_type) for i, total in enumerate(TOTALS)]
SMALL = 256 * 1024

TEXTS = st.none() | st.text(alphabet="aé", max_size=3)
ROWS = st.tuples(
    TEXTS,
    st.none() | st.integers(-3, 3),
    st.integers(1, 5),
    st.none() | st.integers(-(10**30), 10**30),
    st.none() | st.floats(-1e6, 1e6),
    TEXTS,
    st.none() | st.decimals(-1000, 1000, places=2),
)


def schema(keys: Sequence[pa.DataType]) -> pa.Schema:
    return pa.schema([*((f"key {i}", type_) for i, type_ in enumerate(keys)), *TOTAL_FIELDS])


def pages(rows: Sequence[tuple[Any, ...]], wanted: pa.Schema, page_rows: int) -> Iterator[Page]:
    for start in range(0, max(1, len(rows)), page_rows):
        columns = list(zip(*rows[start : start + page_rows], strict=True)) or [()] * len(wanted)
        arrays = [pa.array(column, type_) for column, type_ in zip(columns, wanted.types, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=wanted)
        yield Page(batch, batch.nbytes + 1, rows=batch.num_rows, first=start == 0)


@contextmanager
def merge(
    wanted: pa.Schema,
    directory: Path,
    totals: Sequence[Total] = TOTALS,
    *,
    spill_bytes: int = 1 << 30,
    look: Callable[[], None] = lambda: None,
) -> Iterator[GroupMerge]:
    """At the end nothing is left on disk."""
    with (
        spooled(directory, spill_bytes) as spool,
        closing(GroupMerge(wanted, totals, memory_bytes=SMALL, spill=spool, look=look)) as one,
    ):
        yield one


def merged(one: GroupMerge, parts: Iterator[Page]) -> list[tuple[Any, ...]]:
    made = list(one.pages(parts))
    assert [page.first for page in made] == [True] + [False] * (len(made) - 1)
    return [tuple(row.values()) for page in made for row in page.payload.to_pylist()]


def added(rows: Sequence[tuple[Any, ...]], keys: int) -> list[tuple[Any, ...]]:
    """The same by a loop."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    combine = [lambda a, b: a + b, lambda a, b: a + b, lambda a, b: a + b, min_of_texts, max]
    for row in rows:
        totals = found.setdefault(row[:keys], [None] * len(TOTALS))
        for i, value in enumerate(row[keys:]):
            if value is not None:
                totals[i] = value if totals[i] is None else combine[i](totals[i], value)
    order = sorted(found, key=lambda key: [(one is None, one.encode() if isinstance(one, str) else one) for one in key])
    return [(*key, *found[key]) for key in order]


def min_of_texts(one: str, other: str) -> str:
    return min(one, other, key=str.encode)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, max_size=60), page_rows=st.integers(1, 20))
def test_groups_come_once_and_in_order(rows: list[tuple[Any, ...]], page_rows: int, tmp_path: Path) -> None:
    wanted = schema([pa.string(), pa.int64()])
    with merge(wanted, tmp_path) as one:
        assert merged(one, pages(rows, wanted, page_rows)) == added(rows, 2)
        assert one.spilled_bytes == 0


def many(count: int, keys: int) -> list[tuple[Any, ...]]:
    """Halves, so that sums of floats are exact in any order."""
    return [
        (None if i % 97 == 0 else f"{(i * 7919) % keys:05}", i % 3, 1, i * 10**20, i / 2, f"{i % 11}", None)
        for i in range(count)
    ]


@pytest.mark.parametrize("page_rows", [500, 20_000])
@pytest.mark.parametrize("keys", [10, 2000, 20_000])
def test_what_does_not_fit_goes_through_runs(page_rows: int, keys: int, tmp_path: Path) -> None:
    wanted = schema([pa.string(), pa.int64()])
    rows = many(20_000, keys)
    with merge(wanted, tmp_path) as one:
        assert merged(one, pages(rows, wanted, page_rows)) == added(rows, 2)
        assert one.spilled_bytes > 0 or keys == 10


def test_many_runs_become_longer_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than eight of one length are open at once, and a run that was merged takes no disk."""
    wanted = schema([pa.int64()])
    rows = [((i * 7919) % 60_013, 1, i, i / 2, None, None) for i in range(60_000)]
    lengths: list[int] = []
    add = SortedRuns.add

    def watched(self: SortedRuns, blocks: Iterator[pa.RecordBatch], length: int = 0) -> None:
        lengths.append(length)
        add(self, blocks, length)
        assert self._spill.statistics().open_files <= 8 * (length + 2)

    monkeypatch.setattr(SortedRuns, "add", watched)
    with merge(wanted, tmp_path) as one:
        assert merged(one, pages(rows, wanted, 5000)) == added(rows, 1)
        assert max(lengths) >= 2
        row_bytes = 8 + 8 + 16 + 8 + 4 + 16
        assert one.spilled_bytes < 2.5 * len(rows) * row_bytes


SHAPES: dict[str, Callable[[random.Random, int], Any]] = {
    "ascending": lambda chance, i: f"{i // 2:07}",
    "descending": lambda chance, i: f"{-i // 3:07}",
    "often the same": lambda chance, i: f"{int(chance.paretovariate(0.2)) % 10**9}",
    "behind one another": lambda chance, i: f"{i // 4000}/{chance.randrange(900)}",
    "of many lengths": lambda chance, i: "x" * chance.randrange(200) + str(chance.randrange(90)),
    "null or not": lambda chance, i: chance.choice([None, "", f"{chance.randrange(5000)}"]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_keys_come_in_what_order(shape: str, tmp_path: Path) -> None:
    chance = random.Random(shape)
    wanted = schema([pa.string(), pa.int64()])
    rows = [(SHAPES[shape](chance, i), i % 2, 1, i, i / 2, None, None) for i in range(12_000)]
    with merge(wanted, tmp_path) as one:
        assert merged(one, pages(rows, wanted, 3000)) == added(rows, 2)
        assert one.spilled_bytes > 0


def test_sums_of_floats_do_not_depend_on_how_pages_are_cut(tmp_path: Path) -> None:
    totals = [Total("sum", pa.float64())]
    wanted = pa.schema([("key", pa.int64()), ("total", pa.float64())])
    rows = [((i * 31) % 7001, math.sin(i) * 1e9) for i in range(30_000)]
    found = []
    for page_rows in (333, 4096, 30_000):
        with merge(wanted, tmp_path, totals) as one:
            found.append(merged(one, pages(rows, wanted, page_rows)))
            assert one.spilled_bytes > 0
    assert found[0] == found[1] == found[2]


def test_large_keys_pass(tmp_path: Path) -> None:
    """Of which few fit."""
    wanted = schema([pa.string()])
    rows = [(letter * 9_000, 1, 1, 0.5, None, None) for letter in "qwertyuiopasdfghjklzxcvbnm" * 3]
    with merge(wanted, tmp_path) as one:
        assert merged(one, pages(rows, wanted, 5)) == added(rows, 1)


def test_a_group_that_is_too_large_by_itself_is_refused(tmp_path: Path) -> None:
    wanted = schema([pa.string()])
    with merge(wanted, tmp_path) as one, pytest.raises(Refusal) as caught:
        merged(one, pages([("x" * SMALL, 1, 1, 0.5, None, None)], wanted, 1))
    assert caught.value.code == "state_too_large"


def test_the_disk_is_bounded(tmp_path: Path) -> None:
    wanted = schema([pa.string(), pa.int64()])
    rows = many(20_000, 20_000)
    with merge(wanted, tmp_path, spill_bytes=500_000) as one, pytest.raises(Refusal) as caught:
        merged(one, pages(rows, wanted, 1000))
    assert caught.value.code == "spool_full"
    assert "SPOOL_LIMIT" in caught.value.detail
    assert one.spilled_bytes <= 500_000


def test_without_a_disk_it_is_refused() -> None:
    wanted = schema([pa.string(), pa.int64()])
    one = GroupMerge(wanted, TOTALS, memory_bytes=SMALL, spill=None, look=lambda: None)
    with pytest.raises(Refusal, match="no disk") as caught:
        merged(one, pages(many(20_000, 20_000), wanted, 1000))
    assert caught.value.code == "state_too_large"


def test_it_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """While it writes, while it merges runs to longer ones, and while groups come."""
    wanted = schema([pa.int64()])
    rows = [((i * 7919) % 60_013, 1, i, i / 2, None, None) for i in range(40_000)]

    class Over(Exception):
        pass

    def looks(after: int) -> int:
        seen = 0

        def look() -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                raise Over

        with merge(wanted, tmp_path, look=look) as one:
            merged(one, pages(rows, wanted, 5000))
        return seen

    total = looks(0)
    assert total > 100
    for after in (1, total // 4, total // 2, total - 3):
        with pytest.raises(Over):
            looks(after)


def test_what_has_no_order_is_not_merged() -> None:
    assert mergeable([pa.string(), pa.int8(), pa.decimal128(5, 1), pa.bool_(), pa.timestamp("ns", "UTC")])
    for type_ in (pa.null(), pa.month_day_nano_interval(), pa.string_view()):
        assert not mergeable([pa.int8(), type_])
    assert not mergeable([])
