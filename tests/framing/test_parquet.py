"""Parquet: what is written, other engines read, and the reverse; row groups, footers, damage, and memory."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page
from app.framing.footer import Footer
from app.framing.parquet import batches, writer
from app.framing.parquet_room import read_page_header
from tests.conformance.check_stage import check_memory, check_stage, run_stages, table_cuts
from tests.inputs import Far, Near

MIB = 1024 * 1024
TABLE = pa.table(
    {
        "id": pa.array([1, 2, None, 4, 5], pa.int64()),
        "text": pa.array(["a", None, "", "ünï", "a"]),
        "when": pa.array([0, 1, None, 3, 4], pa.timestamp("us", "UTC")),
        "list": pa.array([[1], [], None, [2, 3], []], pa.list_(pa.int32())),
        "struct": pa.array([{"x": 1, "y": "p"}, None, {"x": None, "y": "q"}, {"x": 4, "y": None}, None]),
        "nothing": pa.nulls(5),
    }
)


def pages_of_table(table: pa.Table, rows: int) -> list[Page]:
    cut = table.to_batches(max_chunksize=rows) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return [Page(b, max(1, b.nbytes), rows=b.num_rows, first=i == 0) for i, b in enumerate(cut)]


def written(
    pages: Sequence[Page], *, row_group_bytes: int = MIB, page_bytes: int = 4096, compression: str = "snappy"
) -> bytes:
    stages = writer(page_bytes=page_bytes, row_group_bytes=row_group_bytes, compression=compression)
    return b"".join(page.payload for page in run_stages(stages, pages))


KINDS = (Near, Far)


def rows_of(
    data: bytes, *, kind: type[Near | Far] = Near, page_bytes: int = 4096, memory_bytes: int = 64 * MIB
) -> list[dict[str, Any]]:
    pages = list(batches(kind(data), page_bytes=page_bytes, memory_bytes=memory_bytes))
    return [row for page in pages for row in page.payload.to_pylist()]


def refusal_of(data: bytes, *, kind: type[Near | Far] = Near, memory_bytes: int = 64 * MIB) -> Refusal:
    with pytest.raises(Refusal) as caught:
        rows_of(data, kind=kind, memory_bytes=memory_bytes)
    return caught.value


@pytest.mark.parametrize("row_group_bytes", [1, 300, MIB])
def test_every_cut_of_a_table_is_written_as_the_same_rows(row_group_bytes: int) -> None:
    for pages in table_cuts(TABLE):
        blob = written(pages, row_group_bytes=row_group_bytes)
        assert pq.read_table(pa.BufferReader(blob)).equals(TABLE)
        assert rows_of(blob) == rows_of(blob, kind=Far) == TABLE.to_pylist()


def test_the_writer_keeps_the_contract_of_a_stage() -> None:
    one_cut = [pages_of_table(TABLE, 2)]
    outcome = check_stage(lambda: writer(page_bytes=64, row_group_bytes=200), one_cut, page_bytes=32)
    assert outcome.content[:4] == outcome.content[-4:] == b"PAR1"


def test_bytes_come_out_while_rows_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.framing.parquet._COLUMN_PAGES", 100)
    table = pa.table({"n": range(50_000)})
    rows, encode, join = writer(page_bytes=10_000, row_group_bytes=100_000)

    def feed(page: Page) -> list[Page]:
        return [out for some in rows.feed(page) for made in encode.feed(some) for out in join.feed(made)]

    fed = [feed(page) for page in pages_of_table(table, 5000)]
    assert [bool(pages) for pages in fed] == [False, False, True, False, False, True, False, False, True, False]
    assert fed[2][0].first
    assert max(page.nbytes for pages in fed for page in pages) <= 10_000
    last = [out for some in rows.flush() for made in encode.feed(some) for out in join.feed(made)]
    blob = b"".join(page.payload for pages in [*fed, last, list(join.flush())] for page in pages)
    metadata = pq.ParquetFile(pa.BufferReader(blob)).metadata
    assert [metadata.row_group(i).num_rows for i in range(4)] == [15_000, 15_000, 15_000, 5000]


def test_many_rows_without_bytes_do_not_make_one_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.framing.parquet._ROW_GROUP_ROWS", 1000)
    blob = written(pages_of_table(pa.table({"n": pa.nulls(2500)}), 500))
    assert pq.ParquetFile(pa.BufferReader(blob)).metadata.num_row_groups == 3


@pytest.mark.parametrize("column_pages", [0, 0.05, 100])
@pytest.mark.parametrize("groups", [1, 14, 15, 16, 40])
def test_columns_that_were_encoded_apart_are_one_file_to_every_engine(
    groups: int, column_pages: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.framing.parquet._COLUMN_PAGES", column_pages)
    table = pa.table(
        {
            "n": range(groups * 10),
            "word": [f"w{i % 3}" for i in range(groups * 10)],
            "list": [[i, {"a": i}["a"]] for i in range(groups * 10)],
        }
    )
    path = tmp_path / "joined.parquet"
    path.write_bytes(written(pages_of_table(table, 10), row_group_bytes=1))
    assert path.read_bytes().count(b"PAR1") == 2
    metadata = pq.ParquetFile(path).metadata
    assert (metadata.num_row_groups, metadata.num_rows) == (groups, groups * 10)
    assert pq.read_table(path).equals(table)
    assert pq.read_table(path, filters=[("n", ">=", groups * 10 - 5)])["n"].to_pylist() == list(
        range(groups * 10 - 5, groups * 10)
    )
    assert pl.read_parquet(path).to_dicts() == table.to_pylist()
    query = f"select sum(n), count(word), max(list[1]) from '{path}' where n >= 5"
    assert duckdb.connect().execute(query).fetchall() == [
        (sum(range(5, groups * 10)), groups * 10 - 5, groups * 10 - 1)
    ]
    assert [
        row
        for page in batches(Near(path.read_bytes()), page_bytes=100, memory_bytes=MIB * 64)
        for row in page.payload.to_pylist()
    ] == table.to_pylist()


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "lz4", "none"])
def test_every_compression_is_read_back_as_the_same_rows_by_every_engine(compression: str, tmp_path: Path) -> None:
    words = [f"word {i * i % 997} of line {i}" for i in range(4000)]
    table = pa.table(
        {
            "n": pa.array(range(4000), pa.int64()),
            "x": pa.array([None if i % 7 == 0 else i / 3 for i in range(4000)]),
            "words": pa.array([None if i % 11 == 0 else word for i, word in enumerate(words)]),
            "day": pa.array([i % 40 for i in range(4000)], pa.date32()),
            "list": pa.array([[i, None] if i % 3 else None for i in range(4000)]),
        }
    )
    path = tmp_path / "made.parquet"
    path.write_bytes(written(pages_of_table(table, 300), row_group_bytes=50_000, compression=compression))
    groups = pq.ParquetFile(path).metadata
    assert groups.num_row_groups > 2
    assert groups.row_group(0).column(0).compression == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    assert pq.read_table(path).equals(table)
    assert duckdb.connect().sql(f"FROM '{path}'").to_arrow_table().to_pylist() == table.to_pylist()
    assert pl.read_parquet(path).to_dicts() == table.to_pylist()


def test_gzip_is_written_at_the_level_that_keeps_up() -> None:
    """Arrow's own is the slowest."""
    table = pa.table({"words": [f"word {i * i % 997} of line {i}" for i in range(4000)]})

    def compressed_bytes(file: bytes | pa.Buffer) -> int:
        column = pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0).column(0)
        return int(column.total_compressed_size)

    def by_arrow(level: int) -> int:
        sink = pa.BufferOutputStream()
        pq.write_table(
            table, sink, compression="gzip", compression_level=level, use_dictionary=False, write_statistics=False
        )
        return compressed_bytes(sink.getvalue())

    found = compressed_bytes(written(pages_of_table(table, 4000), page_bytes=MIB, compression="gzip"))
    assert found == by_arrow(1) > by_arrow(9)


def test_offsets_move_and_zero_stays_zero_when_footers_are_joined() -> None:
    def file_of(table: pa.Table) -> tuple[bytes, bytes]:
        sink = io.BytesIO()
        pq.write_table(table, sink, use_dictionary=False)
        data = sink.getvalue()
        nbytes = int.from_bytes(data[-8:-4], "little")
        return data, data[-8 - nbytes : -8]

    def empty_footer() -> bytes:
        sink = io.BytesIO()
        pq.ParquetWriter(sink, TABLE.schema, use_dictionary=False).close()
        data = sink.getvalue()
        return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]

    nothing = empty_footer()
    one, first_half = file_of(TABLE.select([0, 1, 2]))
    two, second_half = file_of(TABLE.select([3, 4, 5]))
    footer = Footer(nothing)
    footer.add([(first_half, 0), (second_half, len(one))], 5)
    footer.add([(first_half, 0), (second_half, len(one))], 5)
    joined = footer.joined()
    both = one + two + joined + len(joined).to_bytes(4, "little") + b"PAR1"
    metadata = pq.ParquetFile(pa.BufferReader(both)).metadata
    alone = pq.ParquetFile(pa.BufferReader(two)).metadata.row_group(0).column(0)
    moved = metadata.row_group(1).column(3)
    assert moved.data_page_offset == alone.data_page_offset + len(one)
    assert moved.dictionary_page_offset is None
    assert metadata.row_group(0).column(0).file_offset == 0
    assert metadata.row_group(0).total_byte_size == sum(
        pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).total_byte_size for data in (one, two)
    )
    assert pq.read_table(pa.BufferReader(both)).equals(pa.concat_tables([TABLE, TABLE]))


def test_a_table_without_rows_is_a_valid_file_and_no_page_is_no_file() -> None:
    blob = written(pages_of_table(TABLE.slice(0, 0), 1))
    assert pq.read_table(pa.BufferReader(blob)).equals(TABLE.slice(0, 0))
    (page,) = batches(Near(blob), page_bytes=4096, memory_bytes=MIB * 64)
    assert (page.first, page.rows, page.payload.schema) == (True, 0, TABLE.schema)
    assert written([]) == b""


def test_dictionaries_that_differ_from_page_to_page_are_written() -> None:
    cut = [
        pa.record_batch({"d": pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values)})
        for indices, values in (([0, 1, None], ["a", "b"]), ([2, 0], ["x", "y", "z"]))
    ]
    pages = [Page(b, b.nbytes, rows=b.num_rows, first=i == 0) for i, b in enumerate(cut)]
    blob = written(pages)
    assert pq.read_table(pa.BufferReader(blob))["d"].to_pylist() == ["a", "b", None, "z", "x"]
    assert [row["d"] for row in rows_of(blob)] == ["a", "b", None, "z", "x"]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (pa.table({}), None),
        (pa.table({"ok": [1], "span": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), "span"),
    ],
    ids=["no-columns", "type"],
)
def test_what_parquet_does_not_have_is_refused_on_the_first_page(table: pa.Table, column: str | None) -> None:
    stage = writer(page_bytes=4096, row_group_bytes=MIB)[0]
    batch = table.to_batches()[0] if table.num_columns else pa.RecordBatch.from_pylist([], schema=table.schema)
    with pytest.raises(Refusal) as caught:
        list(stage.feed(Page(batch, 1, rows=batch.num_rows, first=True)))
    assert (caught.value.code, caught.value.column) == ("not_acceptable", column)


def test_columns_get_a_dictionary_where_values_repeat_and_statistics_where_they_are_short() -> None:
    table = pa.table(
        {
            "few": [f"w{i % 10}" for i in range(5000)],
            "many": [f"text {i}" for i in range(5000)],
            "number": range(5000),
            "flag": [i % 7 for i in range(5000)],
        }
    )
    group = pq.ParquetFile(pa.BufferReader(written(pages_of_table(table, 1000)))).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(4)}
    assert [name for name, column in columns.items() if column.has_dictionary_page] == ["few", "flag"]
    assert [name for name, column in columns.items() if column.is_stats_set] == ["number", "flag"]


@given(
    rows=st.lists(st.tuples(st.integers(-(2**60), 2**60) | st.none(), st.text(max_size=9) | st.none()), max_size=60),
    chunk=st.integers(1, 60),
    row_group_bytes=st.integers(1, 2000),
    page_bytes=st.integers(60, 2000),
)
@settings(max_examples=25, deadline=None)
def test_a_round_trip_gives_back_every_row(
    rows: list[tuple[int | None, str | None]], chunk: int, row_group_bytes: int, page_bytes: int
) -> None:
    schema = pa.schema([("n", pa.int64()), ("s", pa.string())])
    table = pa.Table.from_pylist([{"n": n, "s": s} for n, s in rows], schema=schema)
    blob = written(pages_of_table(table, chunk), row_group_bytes=row_group_bytes, page_bytes=page_bytes)
    pages = list(batches(Near(blob), page_bytes=page_bytes, memory_bytes=MIB * 64))
    assert pa.Table.from_batches([page.payload for page in pages]).combine_chunks().equals(table)
    assert [page.first for page in pages] == [True] + [False] * (len(pages) - 1)
    assert max(page.nbytes for page in pages) <= 2 * page_bytes


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_what_other_engines_write_is_read(engine: str, tmp_path: Path) -> None:
    path = str(tmp_path / "other.parquet")
    frame = pl.DataFrame(
        {"n": range(30_000), "s": [f"text {i % 1000}" for i in range(30_000)], "l": [[1.5, None]] * 30_000}
    )
    if engine == "polars":
        frame.write_parquet(path, row_group_size=7000)
    else:
        connection = duckdb.connect()
        connection.register("frame", frame.to_arrow())
        connection.execute(f"copy frame to '{path}' (format parquet, row_group_size 7000)")
    pages = list(batches(Near(Path(path).read_bytes()), page_bytes=65536, memory_bytes=MIB * 64))
    assert [row for page in pages for row in page.payload.to_pylist()] == frame.to_dicts()
    assert max(page.nbytes for page in pages) <= 2 * 65536


def test_pages_are_about_page_bytes_also_where_rows_grow_long_later() -> None:
    table = pa.table({"s": ["x" * (10 if i < 3000 else 400) for i in range(9000)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3000)
    pages = list(batches(Near(sink.getvalue()), page_bytes=20_000, memory_bytes=MIB * 64))
    assert max(page.nbytes for page in pages) <= 40_000
    assert sum(page.nbytes for page in pages) / len(pages) > 8000
    assert sum(page.rows for page in pages) == 9000


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_group_that_takes_too_much_memory_is_refused_by_how_much(kind: type[Near | Far]) -> None:
    sink = io.BytesIO()
    zeros = pa.table({"zeros": pa.array([0] * 1_000_000, pa.int64())})
    # A bomb: one page of 8 MB in a file of some kilobytes.
    options: dict[str, Any] = {"data_page_size": 64 * MIB, "max_rows_per_page": 10**9, "use_dictionary": False}
    pq.write_table(zeros, sink, compression="zstd", **options)
    assert len(sink.getvalue()) < 10_000
    refusal = refusal_of(sink.getvalue(), kind=kind, memory_bytes=4 * MIB)
    assert refusal.code == "page_too_large"
    assert "row group 0" in refusal.detail
    assert "more than" in refusal.detail
    assert len(rows_of(sink.getvalue(), kind=kind, memory_bytes=64 * MIB, page_bytes=MIB)) == 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_footer_that_takes_too_much_memory_is_refused(kind: type[Near | Far]) -> None:
    blob = written(pages_of_table(pa.table({"n": range(300)}), 1), row_group_bytes=1)
    refusal = refusal_of(blob, kind=kind, memory_bytes=MIB)
    assert refusal.code == "page_too_large"
    assert "footer" in refusal.detail


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "corrupt_input"),
        (b"id,name\n1,a\n", "corrupt_input"),
        (b"PAR1", "truncated_input"),
        (b"PAR1" + bytes(100), "truncated_input"),
        (b"PAR1" + bytes(8) + b"\xff\xff\xff\x7fPAR1", "corrupt_input"),
        (b"PAR1" + b"\xff" * 100 + b"\x40\0\0\0PAR1", "corrupt_input"),
        (b"PARE" + bytes(100) + b"\x08\0\0\0PARE", "unsupported_type"),
    ],
)
def test_what_is_not_parquet_is_refused(data: bytes, code: str) -> None:
    assert refusal_of(data).code == refusal_of(data, kind=Far).code == code


def test_the_end_missing_at_any_byte_is_refused() -> None:
    blob = written(pages_of_table(TABLE, 5))
    for length in range(4, len(blob)):
        assert refusal_of(blob[:length], kind=Far if length % 2 else Near).code == "truncated_input"


def test_a_changed_byte_never_does_worse_than_a_refusal() -> None:
    blob = written(pages_of_table(TABLE.select(["id", "text"]), 5))
    codes = set()
    for position in range(len(blob)):
        damaged = blob[:position] + bytes([blob[position] ^ 0x55]) + blob[position + 1 :]
        for kind in KINDS:
            try:
                rows_of(damaged, kind=kind)
            except Refusal as refusal:
                codes.add(refusal.code)
    assert "corrupt_input" in codes
    assert codes <= {"corrupt_input", "truncated_input", "page_too_large", "unsupported_type"}


def test_text_that_is_not_utf8_is_corrupt() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"s": pa.array([b"ok", b"\xff\xfe"])}).cast(pa.schema([("s", pa.binary())])), sink)
    broken = sink.getvalue()
    # A binary column that says it is a string.
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    sink = io.BytesIO()
    pq.write_table(pa.table({"s": text}), sink, write_statistics=False)
    assert rows_of(broken) == [{"s": b"ok"}, {"s": b"\xff\xfe"}]
    assert refusal_of(sink.getvalue()).code == "corrupt_input"


def test_page_headers_that_never_end_are_not_followed() -> None:
    with pytest.raises(ValueError, match="nested"):
        read_page_header(b"\x1c" * 1000)
    with pytest.raises(ValueError, match="negative"):
        read_page_header(b"\x15\x00\x15\x01\x15\x01\x00")
    with pytest.raises(IndexError):
        read_page_header(b"\x15\x00\x15")
    with pytest.raises(IndexError):
        read_page_header(b"\x19\xf2" + b"\xff" * 9 + b"\x01")  # a list of 2**63 booleans


def test_memory_stays_within_what_is_declared() -> None:
    noise = os.urandom(4 * MIB)
    table = pa.table({"n": pa.Array.from_buffers(pa.int64(), MIB // 2, [None, pa.py_buffer(noise)])})
    check_memory(lambda: writer(page_bytes=MIB // 4, row_group_bytes=MIB), pages_of_table(table, MIB // 32))
