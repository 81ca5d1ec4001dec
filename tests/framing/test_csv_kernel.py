"""What C reads is what pyarrow reads, or it is left to pyarrow."""

from __future__ import annotations

import random
import struct

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.framing.csv_kernel import CsvKernel, kernel
from tests.framing.native import each_build

__all__ = ["each_build"]

TYPES = [
    pa.int64(),
    pa.int32(),
    pa.float64(),
    pa.date32(),
    pa.bool_(),
    pa.string(),
    pa.timestamp("s"),
    pa.timestamp("us"),
    pa.timestamp("ns"),
    pa.timestamp("ms", "UTC"),
    pa.decimal128(9, 2),
    pa.decimal128(38, 0),
]
# fmt: off
WORDS = [
    "", '""', "0", "-0", "7", "-7", "007", "+7", " 7", "7 ", "12345678", "123456789", "-1234567890123456",
    "2147483648", "999999999999999999", "9223372036854775807", "99999999999999999999", "0x1F", "1_0", "1.", ".5",
    "-.5", "0.04", "-12.50", "21168.23", "1234567.89", "12345678.9", "1234567890.12345", "0.1234567890123456789",
    "9007199254740993.0", "1e5", "1E-7", "1e400", "1e", "1e+", "--1", "1.2.3", "nan", "inf", "-inf", "infinity",
    "NaN", "NULL", "N/A", "true", "False", "TRUE", "t", "yes", "1970-01-01", "2000-02-29", "1900-02-29", "0000-01-01",
    "9999-12-31", "2020-13-01", "2020-1-1", "20200101", "2020-01-31 10:00:00", "2020-01-31T23:59:59",
    "2020-01-31 10:00:00.5", "2020-01-31 10:00:00.123456789", "1677-01-01 00:00:00", "2020-01-31 24:00:00",
    "2020-01-31 10:00:60", "2020-01-31 10:00", "2020-01-31 10:00:00Z", "2020-01-31 10:00:00+01:00", "a", "ä",
    "\U0001f600", "ÿÿÿÿÿÿÿÿÿ", "sixteen letters!", "seventeen letters", 'qu"ote', '"quoted"', '"a,b"', '"say ""hi"""',
    '"a\nb"', '""""', '"a"b', '"', '"open', "\r", "a\rb", "\ufeff", '"7"', '"1.5"', '" 7"', '"2020-01-31"', '"true"',
    '""""""', '"ü,"', "\x00",
]
# fmt: on
VALUES = st.one_of(
    st.sampled_from(WORDS),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.text(alphabet='a1.-,"\n\r ä\x7f', max_size=20),
)


def made(schema: pa.Schema, names: list[str], delimiter: bytes = b",") -> CsvKernel:
    found = kernel(schema, names, delimiter=delimiter, quote=b'"', most_bytes=1 << 24)
    assert found is not None, "the library is not there, or the types are not known"
    return found


def by_pyarrow(data: bytes, schema: pa.Schema, names: list[str], delimiter: str = ",") -> pa.RecordBatch:
    if not data.strip(b"\r\n") and (len(names) > 1 or not data):
        return pa.RecordBatch.from_pylist([], schema=schema)
    table = pa_csv.read_csv(
        pa.py_buffer(data),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=len(names) > 1
        ),
        convert_options=pa_csv.ConvertOptions(
            include_columns=schema.names,
            column_types={field.name: field.type for field in schema},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ).combine_chunks()
    assert table.schema.equals(schema)
    return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=schema)


def same(found: pa.RecordBatch, wanted: pa.RecordBatch) -> None:
    found.validate(full=True)
    assert found.equals(wanted)
    for one, other in zip(found.columns, wanted.columns, strict=True):
        assert one.null_count == other.null_count
        if pa.types.is_floating(one.type):
            assert [struct.pack("d", x) for x in one.drop_null().to_pylist()] == [
                struct.pack("d", x) for x in other.drop_null().to_pylist()
            ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=5),
    st.data(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from([",", "\t", "x"]),
)
def test_it_reads_what_pyarrow_reads_or_nothing(
    types: list[pa.DataType], data: st.DataObject, end: str, ended: bool, delimiter: str
) -> None:
    names = [f"c{index}" for index in range(len(types))]
    schema = pa.schema(zip(names, types, strict=True))
    values = data.draw(st.lists(st.lists(VALUES, min_size=len(types), max_size=len(types)), max_size=6))
    # pyarrow takes an empty field at the very end for quoted where the one before it was: the newline is put there.
    ended = ended or any(row[-1] == "" for row in values)
    text = end.join(delimiter.join(row) for row in values) + (end if ended else "")
    text = text.replace(",", delimiter) if delimiter != "x" else text
    encoded = text.encode(errors="replace")
    wanted_names = data.draw(st.sets(st.sampled_from(names), min_size=1))
    wanted = pa.schema([field for field in schema if field.name in wanted_names])
    found = made(wanted, names, delimiter.encode()).read(encoded, 5000)
    if found is not None:
        same(found, by_pyarrow(encoded, wanted, names, delimiter))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
@example(b"\xff,1\n")
@example(b"\xed\xa0\x80,1\n")
@example(b"\xf4\x90\x80\x80,1\n")
@example(b"\xe0\x80\x80,1\n")
@example(b"ab\xc3")
def test_any_bytes_are_read_alike_or_not_at_all(data: bytes) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    found = made(schema, ["a", "b"]).read(data, 5000)
    if found is not None:
        same(found, by_pyarrow(data, schema, ["a", "b"]))


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_each_word_alone(type_: pa.DataType) -> None:
    schema, read = pa.schema([("a", type_), ("b", pa.string())]), 0
    for word in WORDS:
        # Between other rows, and as the very end of the data, where nothing may be read beyond it.
        for data in (f"{word},x\n1,y\n" if pa.types.is_string(type_) else f"{word},x\n", f"z,{word}"):
            names = ["a", "b"] if data.startswith(word) else ["b", "a"]
            found = made(schema, names).read(data.encode(), 5000)
            if found is not None:
                same(found, by_pyarrow(data.encode(), schema, names).select(["a", "b"]))
                read += 1
    assert read >= 3


def test_what_is_plain_is_read_by_c() -> None:
    shuffled = random.Random(1)
    rows = [
        (
            n,
            f"{n / 7:.2f}",
            f"2021-{n % 12 + 1:02}-{n % 28 + 1:02}",
            f'"x, ""{n}"""' if n % 3 else "plain",
            n % 2 == 0,
            repr(shuffled.random()),
        )
        for n in range(5000)
    ]
    types = [pa.int64(), pa.float64(), pa.date32(), pa.string(), pa.bool_(), pa.float64()]
    names = list("abcdef")
    schema = pa.schema(zip(names, types, strict=True))
    for end in ("\n", "\r\n"):
        data = "".join(",".join(str(value).lower() for value in row) + end for row in rows).encode()
        for some in (schema, pa.schema([schema.field(3)]), pa.schema([schema.field(5), schema.field(0)])):
            found = made(some, names).read(data, 5000)
            assert found is not None
            same(found, by_pyarrow(data, some, names))


def test_rows_that_differ_in_width_are_not_read() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    for data in (b"1\n", b"1,2,3\n", b"1,2\n3\n", b"1,2\n3,4,5\n6\n", b"1,2,3\n4\n", b'1,"2\n'):
        assert made(schema, ["a", "b"]).read(data, 5000) is None


def test_room_is_bounded() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    small = kernel(schema, ["a", "b"], delimiter=b",", quote=b'"', most_bytes=4096)
    assert small is not None
    assert small.read(b"1,2\n" * 10, 10) is not None
    assert small.read(b"1,2\n" * 1000, 5000) is None


def test_other_types_are_pyarrows() -> None:
    for type_ in (pa.time64("us"), pa.binary(), pa.int8(), pa.timestamp("us", "Europe/Berlin"), pa.float32()):
        assert kernel(pa.schema([("a", type_)]), ["a"], delimiter=b",", quote=b'"', most_bytes=4096) is None


@pytest.mark.parametrize("word", ['"a"b', '"a"', '""', 'a"b', "\r", '"a\r"', '"a""b"', '"""', "a\r", "ä"])
def test_wherever_a_word_stands(word: str) -> None:
    """Bytes are looked at 64 at a time."""
    names = ["a", "b", "c"]
    schema = pa.schema([(name, pa.string()) for name in names])
    for width in range(140):
        for row in (f"{'x' * width},{word},y\n", f"{'x' * width},y,{word}\n", f"{'x' * width},y,{word}\r\nz,z,z\n"):
            data = (row + f"{'x' * 70},1,2\n").encode()
            found = made(schema, names).read(data, 5000)
            if found is not None:
                same(found, by_pyarrow(data, schema, names))
            assert (found is not None) == (word not in ('"a"b', '"""', "\r", "a\r")) or word in ("\r", "a\r")
