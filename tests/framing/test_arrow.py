"""Arrow IPC: streams and files of every writer, every cut, what lies in its metadata, and memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page
from app.framing.arrow import reader, writer
from app.framing.batches import Cutter
from app.framing.ipc import MessageHeader
from tests.conformance.check_stage import (
    byte_cuts,
    check_memory,
    check_stage,
    outcome_of,
    pages_of,
    run_stages,
    table_cuts,
)

MIB = 1024 * 1024
TABLE = pa.table(
    {
        "id": pa.array([1, 2, None, 4], pa.int64()),
        "text": pa.array(["a", None, "", "ünï"]),
        "flag": pa.array([True, False, None, True]),
        "list": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int32())),
    }
)


def stream_of(table: pa.Table, *, rows: int = 2, compression: str | None = None, file: bool = False) -> bytes:
    sink = io.BytesIO()
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        out.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def read(data: bytes, *, page_bytes: int = 4096, max_message_bytes: int = MIB, cuts: Iterable[int] = ()) -> list[Page]:
    stages = reader(page_bytes=page_bytes, max_message_bytes=max_message_bytes)
    return list(run_stages(stages, pages_of(data, cuts)))


def rows_of(pages: list[Page]) -> list[dict[str, Any]]:
    return [row for page in pages for row in page.payload.to_pylist()]


@pytest.mark.parametrize("nest", ["plain", "list", "struct", "fixed", "dictionary", "sliced", "sliced struct"])
def test_what_stands_in_the_views_of_nulls_is_not_read(nest: str) -> None:
    long = "a text that is no short one"
    views = struct.pack("<i4sii", len(long), b"a te", 0, 0) + struct.pack("<i4sii", 0x7FFFFF00, b"", 9, 0x7FFFFFFF)
    buffers = [pa.py_buffer(b"\x01"), pa.py_buffer(views), pa.py_buffer(long.encode())]
    column = pa.Array.from_buffers(pa.string_view(), 2, buffers)
    expected: list[Any] = [long, None]
    if nest == "list":
        column, expected = pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), column), [expected, []]
    elif nest == "struct":
        column, expected = pa.StructArray.from_arrays([column], ["x"]), [{"x": text} for text in expected]
    elif nest == "fixed":
        column, expected = pa.FixedSizeListArray.from_arrays(column, 2), [expected]
    elif nest == "dictionary":
        column, expected = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1]), column), [None, long, None]
    elif nest == "sliced struct":
        column = pa.StructArray.from_arrays([column], ["x"], mask=pa.array([False, True])).slice(1)
        expected = [None]
    elif nest == "sliced":
        column, expected = column.slice(1), [None]
    batch = pa.RecordBatch.from_arrays([column], ["c"])
    cutter = Cutter(batch.schema, page_bytes=4096)
    assert [row["c"] for cut in cutter.cut(batch, room_bytes=MIB) for row in cut.to_pylist()] == expected


def refusal_of(data: bytes, *, page_bytes: int = 4096, max_message_bytes: int = MIB) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(data, page_bytes=page_bytes, max_message_bytes=max_message_bytes)
    return caught.value


@pytest.mark.parametrize(("file", "compression"), [(False, None), (True, "zstd"), (False, "lz4")])
def test_every_cut_gives_the_same_rows(file: bool, compression: str | None) -> None:
    make = lambda: reader(page_bytes=4096, max_message_bytes=MIB)  # noqa: E731
    check_stage(make, byte_cuts(stream_of(TABLE, compression=compression, file=file)), page_bytes=4096)
    assert rows_of(read(stream_of(TABLE, compression=compression, file=file))) == TABLE.to_pylist()


def test_every_cut_of_a_table_is_written_as_the_same_rows() -> None:
    for pages in table_cuts(TABLE):
        blob = b"".join(page.payload for page in run_stages(writer(), pages))
        assert pa.ipc.open_stream(blob).read_all().equals(TABLE)


def test_a_stage_of_the_engine_is_what_the_writer_is() -> None:
    one_cut = [next(iter(table_cuts(TABLE)))]
    outcome = check_stage(writer, one_cut)
    assert outcome.content.endswith(b"\xff\xff\xff\xff\0\0\0\0")


@pytest.mark.parametrize("table", [TABLE.slice(0, 0), pa.table({}), TABLE.select([])], ids=["no-rows", "{}", "rows"])
@pytest.mark.parametrize("file", [False, True])
def test_a_table_without_rows_or_columns_keeps_its_schema(table: pa.Table, file: bool) -> None:
    pages = read(stream_of(table, file=file))
    assert pages[0].first
    assert pa.Table.from_batches([page.payload for page in pages]).equals(table)
    blob = b"".join(page.payload for page in run_stages(writer(), pages))
    assert pa.ipc.open_stream(blob).read_all().schema.equals(table.schema)


@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "lz4"])
@pytest.mark.parametrize("method", ["write_ipc", "write_ipc_stream"])
def test_what_polars_writes_is_read(method: Any, compression: str) -> None:
    frame = pl.DataFrame({"s": ["p", "q" * 20, None], "l": [["u"], ["v", "w" * 30], None], "b": [b"1", b"\xff", None]})
    sink = io.BytesIO()
    getattr(frame, method)(sink, compression=compression)
    pages = read(sink.getvalue(), cuts=range(1, len(sink.getvalue())))
    assert rows_of(pages) == frame.to_dicts()
    assert pages[0].payload.schema.field("s").type == pa.string()


def test_a_file_with_its_dictionaries_at_the_end_is_refused_with_a_remedy() -> None:
    frame = pl.DataFrame({"c": pl.Series(["a", "b"], dtype=pl.Categorical)})
    sink = io.BytesIO()
    frame.write_ipc(sink)
    refusal = refusal_of(sink.getvalue())
    assert refusal.code == "unsupported_type"
    assert "write_ipc_stream" in refusal.detail
    sink = io.BytesIO()
    frame.write_ipc_stream(sink)
    assert rows_of(read(sink.getvalue())) == frame.to_dicts()


def test_dictionaries_come_out_plain_through_replacements_and_deltas() -> None:
    batches = [
        pa.record_batch({"d": pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values)})
        for indices, values in (([0, 1, None], ["a", "b"]), ([2, 0], ["a", "b", "c"]), ([0], ["z"]))
    ]
    for deltas in (False, True):
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        with pa.ipc.new_stream(sink, batches[0].schema, options=options) as out:
            for batch in batches:
                out.write_batch(batch)
        pages = read(sink.getvalue(), cuts=range(1, len(sink.getvalue())))
        assert [row["d"] for row in rows_of(pages)] == ["a", "b", None, "c", "a", "z"]
        assert pages[0].payload.schema.field("d").type == pa.string()


def test_nested_dictionaries_and_dictionaries_of_every_kind_come_out_plain() -> None:
    words = pa.array(["x", "y"]).dictionary_encode()
    table = pa.table(
        {
            "list": pa.ListArray.from_arrays([0, 1, 2], words),
            "struct": pa.StructArray.from_arrays([words], ["w"]),
            "ints": pa.array([7, None]).dictionary_encode(),
            "flags": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array([True, False])),
            "dates": pa.array([1, None], pa.date32()).dictionary_encode(),
        }
    )
    pages = read(stream_of(table))
    assert rows_of(pages) == table.to_pylist()
    assert not any(pa.types.is_dictionary(field.type) for field in pages[0].payload.schema)


def test_a_large_batch_is_cut_into_pages_and_no_row_is_lost() -> None:
    table = pa.table({"n": range(100_000), "s": ["x" * (n % 50) for n in range(100_000)]})
    pages = read(stream_of(table, rows=100_000), page_bytes=65536, max_message_bytes=8 * MIB)
    assert max(page.nbytes for page in pages) <= 2 * 65536
    assert len(pages) < 80
    assert pa.Table.from_batches([page.payload for page in pages]).equals(table.combine_chunks())


def test_one_long_value_among_short_ones_has_a_page_of_its_own() -> None:
    table = pa.table({"s": ["x"] * 1000 + ["y" * 6000] + ["z"] * 1000})
    pages = read(stream_of(table, rows=5000), page_bytes=4096)
    assert max(page.nbytes for page in pages) <= 8192
    assert [row["s"] for row in rows_of(pages)] == table["s"].to_pylist()
    assert refusal_of(stream_of(table), page_bytes=2048).code == "page_too_large"


def test_rows_without_bytes_are_cut_as_well() -> None:
    table = pa.table({"n": pa.nulls(100_000)})
    pages = read(stream_of(table, rows=100_000), page_bytes=1000)
    assert sum(page.rows for page in pages) == 100_000
    assert max(page.rows for page in pages) <= 2000


def test_what_a_dictionary_repeats_is_bounded_once_it_is_undone() -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int16()), pa.array(["x" * 1000]))
    pages = read(stream_of(pa.table({"d": long}), rows=1000), page_bytes=10_000)
    assert sum(page.rows for page in pages) == 1000
    assert max(page.nbytes for page in pages) <= 20_000


def test_what_views_repeat_is_bounded() -> None:
    text = b"0123456789abcdef" * 4000
    view = struct.pack("<i4sii", len(text), text[:4], 0, 0)
    views = pa.Array.from_buffers(pa.string_view(), 100, [None, pa.py_buffer(view * 100), pa.py_buffer(text)])
    blob = stream_of(pa.table({"v": views}), rows=100)
    assert len(blob) < 100_000
    refusal = refusal_of(blob, page_bytes=65536, max_message_bytes=MIB)
    assert refusal.code == "page_too_large"
    assert "views" in refusal.detail
    pages = read(blob, page_bytes=65536, max_message_bytes=8 * MIB)
    assert [row["v"] for row in rows_of(pages)] == [text.decode()] * 100


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_message_larger_than_the_limit_is_refused_before_it_is_decoded(compression: str | None) -> None:
    table = pa.table({"n": pa.array([0] * 50_000, pa.int64())})
    blob = stream_of(table, rows=50_000, compression=compression)
    before = pa.total_allocated_bytes()
    refusal = refusal_of(blob, max_message_bytes=300_000)
    assert pa.total_allocated_bytes() - before < 350_000
    assert refusal.code == "page_too_large"
    assert refusal.byte == blob.index(b"\xff\xff\xff\xff", 8)
    assert "more than" in refusal.detail
    assert sum(page.rows for page in read(blob, max_message_bytes=500_000)) == 50_000


def test_dictionaries_take_from_the_room_of_messages() -> None:
    values = pa.array([f"{n:050d}" for n in range(2000)])
    table = pa.table({"d": pa.DictionaryArray.from_arrays(pa.array(range(2000), pa.int16()), values)})
    blob = stream_of(table, rows=2000)
    assert refusal_of(blob, max_message_bytes=109_000).code == "page_too_large"
    assert sum(page.rows for page in read(blob, max_message_bytes=120_000)) == 2000


@pytest.mark.parametrize("file", [False, True])
def test_the_end_missing_at_any_byte_is_truncated_input(file: bool) -> None:
    blob = stream_of(TABLE, file=file)
    # A stream may end at the end of a message, without its end mark.
    ends = set() if file else {position for position in range(8, len(blob), 8) if blob[position:][:4] == b"\xff" * 4}
    assert file or len(ends) == 3
    for length in range(len(blob)):
        outcome = outcome_of(reader(page_bytes=4096, max_message_bytes=MIB), pages_of(blob[:length], ()))
        assert (outcome.refusal is None) == (length in ends), length
        assert outcome.refusal in (None, ("truncated_input", None, length, None))


def test_bytes_behind_the_end_mark_of_a_stream_are_corrupt() -> None:
    blob = stream_of(TABLE)
    make = lambda: reader(page_bytes=4096, max_message_bytes=MIB)  # noqa: E731
    assert check_stage(make, byte_cuts(blob + blob)).refusal == ("corrupt_input", None, len(blob), None)


@pytest.mark.parametrize(
    "data",
    [b"id,name\n1,a\n2,b\n", b"\xff\xff\xff\xff\xff\xff\xff\xff" * 4, b"ARROW1\0\0" + b"x" * 2_000_000],
    ids=["csv", "negative", "bare-for-ever"],
)
def test_what_is_not_arrow_is_corrupt(data: bytes) -> None:
    refusal = refusal_of(data, max_message_bytes=4 * MIB)
    assert refusal.code == "corrupt_input"
    assert refusal.byte in (0, 8)


def test_a_changed_byte_never_does_worse_than_a_refusal() -> None:
    blob = stream_of(TABLE, compression="lz4")
    for position in range(len(blob)):
        for value in (0x00, 0x7F, 0xFF):
            damaged = blob[:position] + bytes([value]) + blob[position + 1 :]
            outcome = outcome_of(reader(page_bytes=4096, max_message_bytes=MIB), pages_of(damaged, ()))
            assert outcome.refusal is None or outcome.refusal[0] in (
                "corrupt_input",
                "truncated_input",
                "page_too_large",
                "unsupported_type",
            )


def test_metadata_that_points_outside_is_not_followed() -> None:
    for data in (b"", b"\xff" * 8, b"\x04\0\0\0\xff\xff\xff\x7f" + bytes(20), b"\x00\x00\x00\x80" * 6):
        with pytest.raises(struct.error):
            MessageHeader.read(memoryview(data))


@pytest.mark.parametrize(
    "column",
    [
        pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["x"])),
        pa.array([[1], [2]], pa.list_view(pa.int8())),
        pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array([[1], [2]])),
    ],
    ids=["run-end", "list-view", "dictionary-of-lists"],
)
def test_columns_that_cannot_be_bounded_are_refused_by_name(column: pa.Array) -> None:
    sink = io.BytesIO()
    table = pa.table({"odd": column})
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    refusal = refusal_of(sink.getvalue())
    assert (refusal.code, refusal.column) == ("unsupported_type", "odd")


@given(
    rows=st.lists(st.tuples(st.integers(-(2**60), 2**60) | st.none(), st.text(max_size=9) | st.none()), max_size=40),
    chunk=st.integers(1, 40),
    cut=st.integers(1, 500),
)
@settings(max_examples=25, deadline=None)
def test_a_round_trip_gives_back_every_row(rows: list[tuple[int | None, str | None]], chunk: int, cut: int) -> None:
    table = pa.table(
        {"n": pa.array([n for n, _ in rows], pa.int64()), "s": pa.array([s for _, s in rows], pa.string())}
    )
    blob = stream_of(table, rows=chunk)
    pages = read(blob, page_bytes=100 + cut, cuts=range(cut, len(blob), cut))
    out = b"".join(page.payload for page in run_stages(writer(), pages))
    assert pa.ipc.open_stream(out).read_all().combine_chunks().equals(table)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_memory_stays_within_what_is_declared(compression: str | None) -> None:
    table = pa.table({"n": range(60_000), "s": [f"text {n % 1000}" for n in range(60_000)]})
    blob = stream_of(table, rows=20_000, compression=compression)
    page_bytes = 256 * 1024
    check_memory(
        lambda: reader(page_bytes=page_bytes, max_message_bytes=MIB),
        pages_of(blob, range(page_bytes, len(blob), page_bytes)),
    )
    check_memory(writer, read(blob, page_bytes=page_bytes))
