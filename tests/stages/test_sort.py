"""Rows in the order of a key, in however little memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.stages.sort import RowMerge, Sort
from app.stages.sql_engine import QueryOptions
from app.stores.spool import Spool
from tests.stages.spooled import spooled

SMALL = 512 * 1024
ROWS = 60_000
Keyed = list[tuple[int, str, bytes]]


def batches(rows: Keyed, at_a_time: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, max(1, len(rows)), at_a_time):
        part = rows[start : start + at_a_time]
        columns = [pa.array([row[0] for row in part], pa.int64()), pa.array([row[1] for row in part], pa.string())]
        yield pa.RecordBatch.from_arrays(
            [*columns, pa.array([row[2] for row in part], pa.binary())], names=["n", "text", "key"]
        )


SHAPES: dict[str, Callable[[random.Random, int], bytes]] = {
    "ascending": lambda chance, i: b"%07d" % i,
    "descending": lambda chance, i: b"%07d" % (ROWS - i),
    "shuffled": lambda chance, i: b"%07d" % chance.randrange(10**7),
    "all the same": lambda chance, i: b"key",
    "three values": lambda chance, i: chance.choice([b"", b"a", b"b"]),
    "often the same": lambda chance, i: b"%d" % (int(chance.paretovariate(0.2)) % 10**9),
    "behind one another": lambda chance, i: b"%05d/%d" % (i // 4000, chance.randrange(900)),
    "of many lengths": lambda chance, i: b"x" * chance.randrange(200) + b"%d" % chance.randrange(90),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_come_in_the_order_of_their_keys(shape: str, tmp_path: Path) -> None:
    """Those with the same in theirs."""
    chance = random.Random(5)
    rows = [(i, "text" * (i % 5), SHAPES[shape](chance, i)) for i in range(ROWS)]
    with spooled(tmp_path) as spool:
        schema = next(batches(rows[:1], 1)).schema
        with closing(RowMerge(schema, memory_bytes=SMALL, spill=spool, look=lambda: None)) as merge:
            for batch in batches(rows, 700):
                merge.add(batch, batch.nbytes)
            found = [batch.column(0).to_pylist() for batch in merge.rows(20_000)]
            assert merge.spilled_bytes > SMALL
    assert [n for part in found for n in part] == [row[0] for row in sorted(rows, key=lambda row: row[2])]
    assert max(map(len, found)) < ROWS / 20


def test_rows_of_very_different_sizes(tmp_path: Path) -> None:
    chance = random.Random(6)
    rows = [(i, "x" * (100_000 if i % 900 == 0 else 3), b"%06d" % chance.randrange(10**6)) for i in range(9000)]
    with (
        spooled(tmp_path) as spool,
        closing(RowMerge(next(batches(rows, 1)).schema, memory_bytes=SMALL, spill=spool, look=lambda: None)) as merge,
    ):
        for batch in batches(rows, 90):
            merge.add(batch, batch.nbytes)
        found = [n for batch in merge.rows(20_000) for n in batch.column(0).to_pylist()]
    assert found == [row[0] for row in sorted(rows, key=lambda row: row[2])]


@pytest.mark.parametrize("shape", ["ascending", "shuffled", "three values"])
def test_memory_stays_within_what_is_declared(shape: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    memory_bytes = 8 << 20
    rows = [(i, "some text of a row, which is longer than its key", SHAPES[shape](chance, i)) for i in range(600_000)]
    made = [pa.concat_batches([batch]) for batch in batches(rows, 5000)]
    del rows
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    with (
        spooled(tmp_path) as spool,
        closing(RowMerge(made[0].schema, memory_bytes=memory_bytes, spill=spool, look=lambda: None)) as merge,
    ):
        pa.set_memory_pool(pool)
        try:
            for batch in made:
                merge.add(batch, batch.nbytes)
            count = sum(batch.num_rows for batch in merge.rows(64 * 1024))
        finally:
            pa.set_memory_pool(before)
        assert count == 600_000
        assert merge.spilled_bytes > 4 * memory_bytes
    # What waits to be sorted was allocated by whoever made it.
    assert (pool.max_memory() or 0) + memory_bytes / 4 < memory_bytes
    kept.append(pool)


kept: list[pa.MemoryPool] = []
"""A buffer that outlives its pool would crash the interpreter."""


def options(spool: Spool | None, whole_bytes: int = 0) -> QueryOptions:
    return QueryOptions(64 * 1024, 1, whole_bytes, spool)


def pages(rows: Keyed, at_a_time: int = 500) -> Iterator[Page]:
    for index, batch in enumerate(batches(rows, at_a_time)):
        rejects = (Reject(index + 1, 0, "bad", "", ""),) if index % 7 == 3 else ()
        yield Page(batch, max(1, batch.nbytes), batch.num_rows, first=index == 0, rejects=rejects)


@pytest.mark.parametrize(
    ("skip", "count"), [(0, None), (0, 0), (5, None), (0, 7), (1999, 10), (1990, 700), (5000, 3), (2000, None)]
)
def test_some_of_the_rows(skip: int, count: int | None, tmp_path: Path) -> None:
    rows = [(i, "", b"%d" % (i * 7919 % 1009)) for i in range(2000)]
    with spooled(tmp_path) as spool:
        found = list(Sort(options(spool), skip=skip, count=count).run(pages(rows, 90)))
    assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    assert found[0].payload.schema.names == ["n", "text"]
    wanted = [row[0] for row in sorted(rows, key=lambda row: row[2])]
    wanted = wanted[skip:] if count is None else wanted[skip : skip + count]
    assert [n for page in found for n in page.payload.column(0).to_pylist()] == wanted
    assert sum(len(page.rejects) for page in found) == sum(len(page.rejects) for page in pages(rows, 90))


def test_no_row_has_its_columns() -> None:
    found = list(Sort(options(None)).run(pages([])))
    assert [page.rows for page in found] == [0]
    assert found[0].payload.schema.names == ["n", "text"]


def test_without_a_disk_it_says_so() -> None:
    rows = [(i, "x" * 1000, b"%d" % i) for i in range(9000)]
    with pytest.raises(Refusal) as caught:
        list(Sort(options(None)).run(pages(rows)))
    assert caught.value.code == "state_too_large"


def test_a_full_disk_leaves_nothing_there(tmp_path: Path) -> None:
    rows = [(i, "x" * 1000, b"%d" % i) for i in range(9000)]
    with spooled(tmp_path, limit_bytes=4 << 20) as spool, pytest.raises(Refusal) as caught:
        list(Sort(options(spool)).run(pages(rows)))
    assert caught.value.code == "spool_full"


def test_what_the_input_raises_comes_out(tmp_path: Path) -> None:
    def broken() -> Iterator[Page]:
        yield from pages([(i, "x" * 1000, b"%d" % i) for i in range(9000)])
        raise Refusal("corrupt_input", "it ends too early")

    with spooled(tmp_path) as spool, pytest.raises(Refusal) as caught:
        list(Sort(options(spool)).run(broken()))
    assert caught.value.code == "corrupt_input"


def test_it_can_be_interrupted_while_it_merges(tmp_path: Path) -> None:
    rows = [(i, "x" * 1000, b"%05d" % (i * 7919 % 9973)) for i in range(9000)]
    with spooled(tmp_path) as spool:
        sort = Sort(options(spool))
        made = sort.run(pages(rows))
        assert [next(made).rows for _ in range(5)]
        sort.interrupt()
        with pytest.raises(CancelledError):
            list(made)
