"""Which Parquet files a query may read by itself, and which rows of them; all others come as batches."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import Refusal
from app.core.page import Page
from app.framing.needs import Condition, Constant, Needs, PassedOver
from app.framing.parquet_scan import FileScan, pages
from tests.inputs import Far, Near

MIB = 1024 * 1024
ROWS = 5000
PLAIN = pa.table(
    {
        "n": pa.array(range(ROWS), pa.int64()),
        "few": [f"word {n % 7}" for n in range(ROWS)],
        "many": [f"word {n * 7919 % 4001}" for n in range(ROWS)],
        "real": [n / 7 for n in range(ROWS)],
        "small": pa.array([n % 100 for n in range(ROWS)], pa.int8()),
        "day": pa.array(range(ROWS), pa.date32()),
        "at": pa.array(range(ROWS), pa.timestamp("us")),
        "price": pa.array([Decimal(n) / 100 for n in range(ROWS)], pa.decimal128(15, 2)),
        "yes": pa.array([n % 3 == 0 for n in range(ROWS)]),
    }
)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def opened(
    data: bytes,
    needs: Needs = Needs(),  # noqa: B008
    *,
    memory_bytes: int = 16 * MIB,
    grows: float | None = 2.0,
    kind: type[Near | Far] = Near,
) -> tuple[Iterator[Page], PassedOver]:
    passed_over = PassedOver()
    found = pages(
        kind(data),
        page_bytes=MIB,
        memory_bytes=memory_bytes,
        needs=needs,
        passed_over=passed_over,
        scan_grows=grows,
    )
    return found, passed_over


def is_scanned(data: bytes, needs: Needs = Needs(), **options: Any) -> bool:  # noqa: B008
    found, _ = opened(data, needs, **options)
    return isinstance(next(found).payload, FileScan)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_plain_file_is_one_page(compression: str, version: str, use_dictionary: bool) -> None:
    data = parquet(PLAIN, compression=compression, data_page_version=version, use_dictionary=use_dictionary)
    found, passed_over = opened(data)
    page = next(found)
    scan = page.payload
    assert isinstance(scan, FileScan)
    assert (page.rows, page.first, passed_over.rows) == (ROWS, True, 0)
    assert (scan.schema.names, scan.first_row, scan.rows, scan.all_rows) == (PLAIN.column_names, 0, ROWS, ROWS)
    assert next(found).nbytes == 0  # a chance to stop: the file is held
    scan.over.set()
    assert list(found) == []


OTHERS: dict[str, pa.Array] = {
    "zone": pa.array([1], pa.timestamp("us", "UTC")),
    "milliseconds": pa.array([1], pa.timestamp("ms")),
    "unsigned": pa.array([1], pa.uint64()),
    "half": pa.array([1.5], pa.float16()),
    "bytes": pa.array([b"a"]),
    "list": pa.array([[1]]),
    "struct": pa.array([{"a": 1}]),
    "time": pa.array([1], pa.time64("us")),
    "words": pa.array(["a"]).dictionary_encode(),
    "wide": pa.array([Decimal(1)], pa.decimal256(40, 2)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_types_come_as_batches(kind: str) -> None:
    data = parquet(pa.table({"n": [1], kind: OTHERS[kind]}))
    assert not is_scanned(data)
    flat_elsewhere = kind not in ("list", "struct")
    assert is_scanned(data, Needs(frozenset({(b"n",)}))) == flat_elsewhere


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["a", "A"], {}),
        (["a", "a"], {}),
        (["filename", "b"], {}),
        (["File_Row_Number", "b"], {}),
        (["", "b"], {}),
        (["a", "b"], {"compression": "gzip"}),
        (["a", "b"], {"compression": "lz4"}),
        (["a", "b"], {"use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"}),
        (["a", "b"], {"use_dictionary": False, "column_encoding": "BYTE_STREAM_SPLIT"}),
    ],
)
def test_other_names_and_encodings_come_as_batches(names: list[str], options: dict[str, Any]) -> None:
    columns = [pa.array([1, 2, 3], pa.int64())] * 2
    assert is_scanned(parquet(pa.table(columns, names=["a", "b"])))
    assert not is_scanned(parquet(pa.table(columns, names=names), **options))


def test_int96_comes_as_batches() -> None:
    assert not is_scanned(
        parquet(pa.table({"at": pa.array([1], pa.timestamp("us"))}), use_deprecated_int96_timestamps=True)
    )


def test_text_whose_prefixes_are_shared_comes_as_batches() -> None:
    table = pa.table({"text": ["x" * 1000 + str(n) for n in range(3000)]})
    data = parquet(table, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    assert not is_scanned(data)


def test_only_a_query_over_a_file_of_this_machine_reads_it() -> None:
    data = parquet(PLAIN)
    assert not is_scanned(data, kind=Far)
    assert not is_scanned(data, grows=None)
    assert not is_scanned(parquet(PLAIN.slice(0, 0)))


@pytest.mark.parametrize(("use_dictionary", "grows"), [(True, 2.0), (False, 2.0)])
def test_there_must_be_room_for_what_a_query_has_in_hand(use_dictionary: bool, grows: float) -> None:
    # 2,048 rows with the longest text are 8 MB; of the short ones, 0.1 MB.
    long = pa.table({"text": [f"{n % 10}" * 4000 for n in range(ROWS)]})
    short = pa.table({"text": [f"{n % 10}" * 40 for n in range(ROWS)]})
    options: dict[str, Any] = {"use_dictionary": use_dictionary, "data_page_size": 64 * 1024}
    assert is_scanned(parquet(short, **options), grows=grows)
    assert not is_scanned(parquet(long, **options), grows=grows)
    assert is_scanned(parquet(long, **options), grows=grows, memory_bytes=64 * MIB)
    assert not is_scanned(parquet(long, **options), grows=20 * grows, memory_bytes=64 * MIB)


def test_pages_that_are_too_large_are_refused_as_ever() -> None:
    table = pa.table({"n": pa.array([hash((n, 1)) for n in range(1_000_000)], pa.int64())})
    data = parquet(table, compression="none", use_dictionary=False, data_page_size=32 * MIB, max_rows_per_page=10**9)
    with pytest.raises(Refusal) as caught:
        list(opened(data)[0])
    assert caught.value.code == "page_too_large"


def between(low: int, high: int) -> Needs:
    values = (Constant("integer", str(low)), Constant("integer", str(high)))
    return Needs(conditions=(Condition(b"n", "between", values),))


@pytest.mark.parametrize(
    ("low", "high", "first_row", "rows"),
    [(0, ROWS, 0, ROWS), (0, 1, 0, 1000), (1500, 2500, 1000, 2000), (4999, 10**6, 4000, 1000)],
)
def test_only_row_groups_that_are_needed_are_read(low: int, high: int, first_row: int, rows: int) -> None:
    found, passed_over = opened(parquet(PLAIN, row_group_size=1000), between(low, high))
    page = next(found)
    assert (page.payload.first_row, page.payload.rows, page.rows) == (first_row, rows, rows)
    assert passed_over.rows == ROWS - rows


def test_row_groups_apart_come_as_batches() -> None:
    table = pa.table({"n": list(itertools.chain(range(1000), range(5000, 6000), range(1000)))})
    data = parquet(table, row_group_size=1000)
    assert not is_scanned(data, between(0, 10))
    assert not is_scanned(data, between(10**6, 10**7))
    found, passed_over = opened(data, between(0, 10))
    assert (sum(page.rows for page in found), passed_over.rows) == (2000, 1000)


def test_a_file_that_is_doubted_is_read_as_any_other() -> None:
    data = bytearray(parquet(PLAIN, compression="snappy", use_dictionary=False))
    data[200:400] = bytes(200)
    found, _ = opened(bytes(data))
    scan = next(found).payload
    assert isinstance(scan, FileScan)
    scan.doubted = True
    scan.over.set()
    with pytest.raises(Refusal) as caught:
        list(found)
    assert caught.value.code == "corrupt_input"
