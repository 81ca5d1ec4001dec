"""Parquet out of an input of random access: what is asked of it, what is held of it, and what is left out."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import Refusal
from app.framing.needs import Condition, Constant, Needs, PassedOver
from app.framing.parquet_footer import ordered_leaves, row_groups, statistics_of
from app.framing.parquet_pages import batches
from app.framing.parquet_windows import GAP_BYTES, TAIL_BYTES, ranges, span_bytes
from tests.inputs import Far, Near

MIB = 1024 * 1024
COLUMNS = [f"c{index}" for index in range(8)]


def noise(rows: int, salt: int) -> list[int]:
    return [hash((n, salt)) for n in range(rows)]


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "none", "use_dictionary": False, **options})
    return sink.getvalue()


@pytest.fixture(scope="module")
def wide() -> tuple[pa.Table, bytes]:
    """Four row groups of eight columns with 800,000 bytes each."""
    table = pa.table({name: pa.array(noise(400_000, salt), pa.int64()) for salt, name in enumerate(COLUMNS)})
    return table, parquet(table, row_group_size=100_000)


def needing(*names: str) -> Needs:
    return Needs(frozenset((name.encode(),) for name in names))


def read(input: Far | Near, needs: Needs, memory_bytes: int = 64 * MIB) -> pa.Table:
    pages = batches(input, page_bytes=MIB // 4, memory_bytes=memory_bytes, needs=needs)
    return pa.Table.from_batches([page.payload for page in pages])


@pytest.mark.parametrize(
    ("names", "requests"),
    [
        # Of 16 MiB that may be held: two row groups of 6.4 MB at a time, none of whose ranges is larger than 8 MiB.
        (COLUMNS, 1 + 4),
        # Neighbours are one range.
        (["c2", "c3", "c4"], 1 + 4),
        (["c1", "c5", "c6"], 1 + 2 * 4),
        (["c0"], 1 + 4),
    ],
)
def test_chunks_are_read_in_few_ranges(wide: tuple[pa.Table, bytes], names: list[str], requests: int) -> None:
    table, data = wide
    far = Far(data)
    assert read(far, needing(*names)).equals(table.select(names))
    assert len(far.asked) == requests
    chunk_bytes = 4 * len(names) * 800_000
    assert chunk_bytes <= far.asked_bytes - TAIL_BYTES <= chunk_bytes * 1.01 + 4096
    assert max(nbytes for _, nbytes in far.asked) <= 8 * MIB


def test_ranges_are_asked_for_together_where_that_is_offered(wide: tuple[pa.Table, bytes]) -> None:
    class Together(Far):
        lots = 0

        def read_several(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
            self.lots += 1
            return [self.read_at(*place) for place in places]

    table, data = wide
    together = Together(data)
    assert read(together, needing("c1", "c5")).equals(table.select(["c1", "c5"]))
    assert (together.lots, len(together.asked)) == (1, 1 + 2 * 4)
    assert read(together, Needs()).equals(table)
    assert max(nbytes for _, nbytes in together.asked) <= 4 * MIB


def test_small_row_groups_are_fetched_together(wide: tuple[pa.Table, bytes]) -> None:
    table = wide[0].slice(0, 100_000)
    data = parquet(table, row_group_size=1000)
    far = Far(data)
    assert read(far, Needs()).equals(table)
    assert len(far.asked) <= 4
    assert far.asked_bytes < len(data) + TAIL_BYTES
    # Gaps of 56 KB are bridged: one range for all, though an eighth of it is wanted.
    far = Far(data)
    assert read(far, needing("c3")).equals(table.select(["c3"]))
    assert len(far.asked) <= 3


def test_a_small_file_is_one_read(wide: tuple[pa.Table, bytes]) -> None:
    far = Far(parquet(wide[0].slice(0, 1000)))
    assert read(far, Needs()).num_rows == 1000
    assert len(far.asked) == 1


def test_a_long_footer_takes_one_read_more() -> None:
    table = pa.table({name: range(1500) for name in COLUMNS})
    data = parquet(table, row_group_size=1)
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    assert footer_bytes > TAIL_BYTES
    far = Far(data)
    assert read(far, needing("c0"), memory_bytes=256 * MIB).num_rows == 1500
    assert len([offset for offset, _ in far.asked if offset >= len(data) - footer_bytes - 8]) == 2


def test_chunks_that_cannot_be_held_are_read_through_windows_each_byte_once(wide: tuple[pa.Table, bytes]) -> None:
    table, data = wide
    far = Far(data)
    # 3 MiB may be held, which is 384 KiB of each column: 800,000 bytes are three windows.
    assert read(far, Needs(), memory_bytes=12 * MIB).equals(table)
    assert len(far.asked) <= 2 + 4 * 8 * 3
    assert far.asked_bytes <= len(data) * 1.01 + TAIL_BYTES
    assert max(nbytes for _, nbytes in far.asked) <= TAIL_BYTES


@pytest.mark.parametrize("data_page_bytes", [1000, 100_000, 600_000])
@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_windows_of_any_size_show_the_same(compression: str, data_page_bytes: int) -> None:
    texts = [f"{hash(n)}" * (n % 7) for n in range(40_000)]
    table = pa.table({"n": noise(40_000, 1), "text": texts, "few": [f"w{n % 50}" for n in range(40_000)]})
    data = parquet(
        table, compression=compression, data_page_size=data_page_bytes, use_dictionary=["few"], row_group_size=25_000
    )
    for memory_bytes in (5 * MIB, 6 * MIB, 7 * MIB, 9 * MIB):
        assert read(Far(data), Needs(), memory_bytes).equals(table), memory_bytes


def test_what_is_held_is_bounded(wide: tuple[pa.Table, bytes]) -> None:
    data = wide[1]
    for memory_bytes in (12 * MIB, 32 * MIB):
        far = Far(data)
        before = pa.total_allocated_bytes()
        most = 0
        for _ in batches(far, page_bytes=MIB // 4, memory_bytes=memory_bytes):
            most = max(most, pa.total_allocated_bytes() - before)
        assert most < memory_bytes
        assert max(nbytes for _, nbytes in far.asked) <= max(TAIL_BYTES, memory_bytes // 8)


def test_a_page_that_is_too_large_is_refused_when_its_header_comes_by() -> None:
    zeros = pa.array([0] * 1_000_000, pa.int64())
    tables = [pa.table({"n": pa.array(noise(1_000_000, 1), pa.int64()), "zeros": zeros})]
    data = parquet(
        tables[0], compression={"n": "none", "zeros": "zstd"}, data_page_size=32 * MIB, max_rows_per_page=10**9
    )
    # The first row group of 8 MB goes through windows, and both its pages have 8 MB.
    with pytest.raises(Refusal) as caught:
        read(Far(data), Needs(), memory_bytes=16 * MIB)
    assert caught.value.code == "page_too_large"
    assert "row group 0" in caught.value.detail


def test_no_page_header_is_overlooked_because_its_chunk_is_at_the_end() -> None:
    rows = 300
    table = pa.table(
        {
            "noise": [os.urandom(100_000) for _ in range(rows)],
            "bomb": [b"%09d" % n + bytes(100_000) for n in range(rows)],
        }
    )
    options: dict[str, Any] = {"use_dictionary": ["bomb"], "dictionary_pagesize_limit": 64 * MIB, "write_batch_size": 1}
    data = parquet(table, compression={"noise": "none", "bomb": "zstd"}, data_page_size=100_000, **options)
    bomb = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(1)
    assert bomb.dictionary_page_offset > len(data) - TAIL_BYTES
    with pytest.raises(Refusal) as caught:
        read(Far(data), Needs())
    assert caught.value.code == "page_too_large"
    assert read(Far(data), needing("noise")).equals(table.select(["noise"]))


def test_what_the_input_refuses_comes_out_as_it_is(wide: tuple[pa.Table, bytes]) -> None:
    class Changed(Far):
        fails_at = 0

        def read_at(self, offset: int, nbytes: int) -> bytes:
            if len(self.asked) == self.fails_at:
                raise Refusal("object_changed", "on purpose")
            return super().read_at(offset, nbytes)

    class Short(Far):
        def read_at(self, offset: int, nbytes: int) -> bytes:
            return super().read_at(offset, nbytes)[: -1 if len(self.asked) > 1 else None]

    for fails_at, memory_bytes in itertools.product((0, 1, 3), (12 * MIB, 64 * MIB)):
        changed = Changed(wide[1])
        changed.fails_at = fails_at
        with pytest.raises(Refusal) as caught:
            read(changed, Needs(), memory_bytes)
        assert caught.value.code == "object_changed"
    with pytest.raises(Refusal) as caught:
        read(Short(wide[1]), Needs())
    assert caught.value.code == "source_failed"


def test_ranges_bridge_small_gaps_and_are_cut() -> None:
    def chunks(*places: tuple[int, int]) -> Any:
        return [type("Chunk", (), {"at": at, "nbytes": nbytes}) for at, nbytes in places]

    assert ranges(chunks((0, 10), (10 + GAP_BYTES, 5), (5, 2))) == [(0, 15 + GAP_BYTES)]
    assert ranges(chunks((0, 10), (11 + GAP_BYTES, 5))) == [(0, 10), (11 + GAP_BYTES, 16 + GAP_BYTES)]
    assert ranges(chunks((0, 10)), most_bytes=4) == [(0, 4), (4, 8), (8, 10)]
    assert span_bytes(chunks((0, 10), (20, 10))) == 30


TABLE = pa.table(
    {
        "Name": ["a", "b", "c"],
        "point": [{"x": 1, "y": {"z": 2}}, None, {"x": 3, "y": None}],
        "point.x": [1.5, 2.5, 3.5],
        "map": pa.array([[(1, "p")], [], None], pa.map_(pa.int32(), pa.string())),
        "list": [[1], [], None],
        "id": [1, 2, 3],
        "tiny": pa.array([True, False, True]),
        "ünï": [1, 2, 3],
    }
)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([("name",)], ["Name"]),
        ([("id",), ("name",)], ["Name", "id"]),
        ([("point",)], ["point"]),
        ([("point", "x")], ["point"]),
        ([("point", "y", "z")], ["point"]),
        ([("input", "point", "x")], ["point"]),
        ([("input", "id")], ["id"]),
        ([("point.x",)], ["point.x"]),
        ([("map",), ("list",)], ["map", "list"]),
        ([("ünï",)], ["ünï"]),
        ([], ["tiny"]),
        # Whoever asks for what is not there shall see what is.
        ([("nmae",)], TABLE.column_names),
        ([("id",), ("point", "q")], TABLE.column_names),
        ([("id", "x")], TABLE.column_names),
        ([("ÜNÏ",)], TABLE.column_names),
    ],
)
@pytest.mark.parametrize("kind", [Near, Far])
def test_columns_are_found_as_sql_finds_them(
    kind: type[Near | Far], paths: list[tuple[str, ...]], names: list[str]
) -> None:
    needs = Needs(frozenset(tuple(name.encode() for name in path) for path in paths))
    assert read(kind(parquet(TABLE, row_group_size=2)), needs).equals(TABLE.select(names))


def test_a_name_that_is_given_is_read_where_the_input_has_it() -> None:
    needs = Needs(frozenset({(b"id",)}), frozenset({b"name", b"new"}))
    assert read(Near(parquet(TABLE)), needs).column_names == ["Name", "id"]


def test_a_column_that_cannot_be_read_is_no_matter_where_it_is_not_needed() -> None:
    table = pa.table({"id": [1, 2], "views": pa.array([[1], [2]], pa.list_view(pa.int64()))})
    data = parquet(table)
    assert read(Near(data), needing("id")).num_rows == 2


def test_rows_that_are_passed_over_are_counted() -> None:
    data = parquet(pa.table({"n": range(10_000)}), row_group_size=1000)
    passed_over = PassedOver()
    needs = Needs(conditions=(Condition(b"n", "between", (Constant("integer", "2500"), Constant("integer", "3500"))),))
    pages = list(batches(Far(data), page_bytes=MIB, memory_bytes=64 * MIB, needs=needs, passed_over=passed_over))
    assert [page.payload["n"][0].as_py() for page in pages] == [2000, 3000]
    assert passed_over.rows == 8000
    nothing = Needs(conditions=(Condition(b"n", "<", (Constant("integer", "0"),)),))
    (page,) = batches(Far(data), page_bytes=MIB, memory_bytes=64 * MIB, needs=nothing, passed_over=passed_over)
    assert (page.rows, page.first, passed_over.rows) == (0, True, 18_000)


def damaged(data: bytes) -> Iterator[bytes]:
    footer_at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for position in range(footer_at, len(data) - 8):
        for flip in (0x01, 0x55, 0xFF):
            yield data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]


def test_a_broken_footer_never_does_worse_than_a_refusal() -> None:
    table = pa.table({"n": [1, 2, 3], "s": ["a", "b", "c"], "d": pa.array([1, 2, 3], pa.date32())})
    constants = {b"n": Constant("integer", "9"), b"s": Constant("string", "x"), b"d": Constant("date", "2024-01-01")}
    conditions = tuple(Condition(name, ">", (constant,)) for name, constant in constants.items())
    codes = set()
    for kind, data in zip(itertools.cycle((Near, Far)), damaged(parquet(table, row_group_size=2)), strict=False):
        for needs in (Needs(frozenset({(b"s",)}), conditions=conditions), needing("n", "d")):
            try:
                pages = list(batches(kind(data), page_bytes=4096, memory_bytes=8 * MIB, needs=needs))
                codes.add("" if pages[0].first else "no page")
            except Refusal as refusal:
                codes.add(refusal.code)
    assert {"", "corrupt_input"} <= codes
    assert codes <= {"", "corrupt_input", "truncated_input", "page_too_large", "unsupported_type"}


@pytest.mark.parametrize("kind", [Near, Far])
def test_a_row_group_without_rows_needs_no_pages(kind: type[Near | Far]) -> None:
    table = pa.table({"yes": pa.array([], pa.bool_()), "n": pa.array([], pa.int64())})
    assert pq.ParquetFile(io.BytesIO(parquet(table))).metadata.num_row_groups == 1
    assert read(kind(parquet(table)), Needs()).equals(table)


def test_statistics_are_read_as_arrow_reads_them() -> None:
    table = pa.table(
        {"n": pa.array([5, None, -7], pa.int64()), "s": ["b", "a", None], "none": pa.array([None] * 3, pa.int8())}
    )
    data = parquet(table)
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    (group,) = row_groups(footer)
    n, s, none = (statistics_of(footer, chunk) for chunk in group.chunks)
    assert (n.nulls, n.low, n.high) == (1, (-7).to_bytes(8, "little", signed=True), (5).to_bytes(8, "little"))
    assert (s.nulls, s.low, s.high) == (1, b"a", b"b")
    assert (none.nulls, none.low, none.high) == (3, None, None)
    assert ordered_leaves(footer) == {0, 1, 2}
    assert [chunk.values for chunk in group.chunks] == [3, 3, 3]
