"""What C reads is what pyarrow reads, or it is left to pyarrow."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.page import Page
from app.framing.ndjson import NdjsonParse
from app.framing.ndjson_kernel import NdjsonKernel, kernel
from app.framing.ndjson_table import NdjsonTable
from tests.framing.native import each_build
from tests.framing.test_csv_kernel import TYPES, same

__all__ = ["each_build"]

# fmt: off
WORDS = [
    "null", "nul", "nulll", "true", "false", "True", "tru", "falsey", "0", "-0", "7", "-7", "007", "-01", "+7", "-",
    "12345678", "123456789", "-1234567890123456", "2147483648", "-2147483648", "999999999999999999",
    "9223372036854775807", "99999999999999999999", "0x1F", "1_0", "1.", ".5", "-.5", "0.5", "00.5", "0.04", "-12.50",
    "21168.23", "1234567.89", "12345678.9", "1234567890.12345", "0.1234567890123456789", "-0.0", "1.e5",
    "9007199254740993.0", "1e5", "1E-7", "1e400", "1e", "1e+", "1e+2", "--1", "1.2.3", "NaN", "Infinity", "-Infinity",
    '""', '"a"', '"ä"', '"\U0001f600"', '"sixteen letters!"', '"seventeen letters"', '"a much longer text, of 37 letters"',
    r'"say \"hi\""', r'"\\"', r'"\/\b\f\n\r\t"', r'"\u00e4"', r'"\u0000"', r'"\ud83d\ude00"', r'"\ud83d"', r'"\ude00"',
    r'"\ud83d\u0041"', r'"\ud83dA"', r'"\u12"', r'"\x"', r'"\u12G4"', r'"\uFFFF"', '"a\tb"', '"\x7f"', '"\x00"', '"open',
    '"a"b', "'a'", "a", "", '"1"', '"1.5"', '"true"', '"null"',
    '"1970-01-01"', '"2000-02-29"', '"1900-02-29"', '"0000-01-01"', '"9999-12-31"', '"2020-13-01"', '"2020-1-1"',
    '"20200101"', '"2020-01-31 10:00:00"', '"2020-01-31T23:59:59"', '"2020-01-31 10:00:00.5"',
    '"2020-01-31 10:00:00.123456789"', '"1677-01-01 00:00:00"', '"2020-01-31 24:00:00"', '"2020-01-31 10:00:60"',
    '"2020-01-31 10:00"', '"2020-01-31 10:00:00Z"', '"2020-01-31 10:00:00+01:00"', r'"2020-01-3\u0031"', '" 2020-01-31"',
    "{}", "[]", "[1]", '{"x": 1}', '{"x": 1, "y": "b"}', '{"y": "b"}', '{"x": null}', '{"x": "1"}', '{"z": 1}',
    '{"x": 1, "x": 2}', '{"x": 1,}', '{"x" 1}', '{x: 1}', '{"x": {}}', "1 2", "1,", ",",
]
# fmt: on
OBJECT = pa.struct([("x", pa.int64()), ("y", pa.string())])
ALL_TYPES = [*TYPES, OBJECT, pa.struct([("x", OBJECT)])]
VALUES = st.one_of(
    st.sampled_from(WORDS),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
    st.dates().map(lambda day: f'"{day}"'),
    st.datetimes().map(lambda moment: f'"{moment}"'),
    st.text(max_size=20).map(json.dumps),
    st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3) | st.lists(inner, max_size=2),
        max_leaves=4,
    ).map(json.dumps),
)
BLANKS = st.sampled_from(["", "", "", " ", "  ", "\t", " \t", "\r"])


def made(schema: pa.Schema, wanted: list[int] | None = None) -> NdjsonKernel:
    found = kernel(schema, list(range(len(schema))) if wanted is None else wanted, most_bytes=1 << 24)
    assert found is not None, "the library is not there, or the types are not known"
    return found


def by_pyarrow(data: bytes, schema: pa.Schema) -> pa.RecordBatch | None:
    """The rows, if there is no bad line among them."""
    table = NdjsonTable(
        page_bytes=1 << 20, max_line_bytes=1 << 20, types=dict(zip(schema.names, schema.types, strict=True))
    )
    names = json.dumps(dict.fromkeys(schema.names)).encode() + b"\n"
    assert table.open(names, 1, 0, final=True) is not None
    assert table.schema.equals(schema)
    table.kernel = None
    [page] = NdjsonParse(table).feed(Page(data, len(data), data.count(b"\n"), 0, 1, True))
    return None if page.rejects else page.payload


def check(data: bytes, schema: pa.Schema, wanted: list[int] | None = None) -> bool:
    """Whether C read it; if it did, pyarrow has to read the same."""
    found = made(schema, wanted).read(data, data.count(b"\n"))
    if found is None:
        return False
    rows = by_pyarrow(data, schema)
    assert rows is not None
    same(found, rows if wanted is None else rows.select([schema.names[index] for index in wanted]))
    return True


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ALL_TYPES), min_size=1, max_size=4), st.data(), st.sampled_from(["\n", "\r\n"]))
def test_it_reads_what_pyarrow_reads_or_nothing(types: list[pa.DataType], data: st.DataObject, end: str) -> None:
    schema = pa.schema([(f"c{index}", type_) for index, type_ in enumerate(types)])
    lines = []
    for _ in range(data.draw(st.integers(1, 5))):
        fields = data.draw(
            st.lists(st.tuples(st.sampled_from([*schema.names, *schema.names, "d"]), VALUES), max_size=5)
        )
        blank = data.draw(BLANKS)
        lines.append(blank + "{" + f"{blank},".join(f'{blank}"{n}"{blank}:{blank}{v}' for n, v in fields) + "}" + blank)
    text = end.join(lines) + data.draw(st.sampled_from(["", end]))
    wanted = data.draw(st.none() | st.lists(st.integers(0, len(types) - 1), min_size=1, unique=True).map(sorted))
    check(text.encode(errors="surrogatepass"), schema, wanted)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 40), st.integers(0, 10))
@example(b"\xff", 6, 0)
def test_any_bytes_are_read_alike_or_not_at_all(junk: bytes, at: int, over: int) -> None:
    line = b'{"a": "text", "b": {"x": 12, "y": null}}\n'
    schema = pa.schema([("a", pa.string()), ("b", OBJECT)])
    check(line + line[:at] + junk + line[at + over :] + line, schema)


@pytest.mark.parametrize("type_", ALL_TYPES, ids=str)
def test_each_word_alone(type_: pa.DataType) -> None:
    """In the middle, and as the very end of the data, where nothing may be read beyond it."""
    schema = pa.schema([("a", type_), ("b", pa.string())])
    read = sum(
        check(line.encode(), schema)
        for word in WORDS
        for line in (f'{{"a":{word},"b":"text behind it"}}\n{{}}\n', f'{{"b":"x","a":{word}}}')
    )
    assert read >= 4


def test_what_is_plain_is_read_by_c() -> None:
    drawn = random.Random(1)
    rows = []
    for n in range(3000):
        row = {
            "a": n - 1000,
            "b": drawn.random() * 10**6,
            "c": f"2021-{n % 12 + 1:02}-{n % 28 + 1:02}",
            "d": 'x, "quoted"\n and ä' if n % 3 else "plain",
            "e": n % 2 == 0,
            "f": {"x": n, "y": None if n % 5 else "inner"} if n % 7 else None,
        }
        keys = list(row)
        if n % 11 == 0:
            drawn.shuffle(keys)
        rows.append({key: row[key] for key in keys if n % 13 or drawn.random() > 0.3})
    schema = pa.schema(
        zip("abcdef", [pa.int64(), pa.float64(), pa.date32(), pa.string(), pa.bool_(), OBJECT], strict=True)
    )
    for ascii_only in (True, False):
        for separators in ((",", ":"), (", ", ": ")):
            text = "\n".join(json.dumps(row, ensure_ascii=ascii_only, separators=separators) for row in rows).encode()
            for wanted in (None, [3], [0, 5]):
                assert check(text, schema, wanted)
                assert check(text + b"\n\n \r\n", schema, wanted)


@pytest.mark.parametrize("word", [r"\"", r"\\", r"\u00e4", "\\", "\n", "ä", "\x01", '"'])
def test_wherever_a_word_stands(word: str) -> None:
    """Texts are looked at 16 bytes at a time."""
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    for width in range(40):
        good = check(f'{{"a":"{"x" * width}{word}y","b":"z"}}\n{{"a":"{"y" * 40}"}}\n'.encode(), schema)
        assert good == (word not in ("\\", "\n", "\x01", '"'))


def test_unwanted_columns_are_judged() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.date32()), ("c", OBJECT)])
    assert check(b'{"a":1,"b":"2020-01-01","c":{"x":1}}\n', schema, [0])
    for line in (b'{"a":1,"b":"2020-13-01"}\n', b'{"a":1,"c":{"x":"1"}}\n', b'{"a":1,"d":0}\n', b'{"a":1,"a":2}\n'):
        assert not check(line, schema, [0])


def test_room_is_bounded() -> None:
    schema = pa.schema([("a", pa.string())])
    small = kernel(schema, [0], most_bytes=4096)
    assert small is not None
    assert small.read(b'{"a":""}\n' * 10, 10) is not None
    assert small.read(b'{"a":""}\n' * 1000, 1000) is None


def test_what_else_is_pyarrows() -> None:
    for type_ in (pa.time64("us"), pa.int8(), pa.list_(pa.int64()), pa.struct([]), pa.struct([("x", pa.null())])):
        assert kernel(pa.schema([("a", type_)]), [0], most_bytes=4096) is None
    for name in ('"', "\\", "a\nb"):
        assert kernel(pa.schema([(name, pa.int64())]), [0], most_bytes=4096) is None
    assert kernel(pa.schema([(f"c{n}", pa.int64()) for n in range(257)]), [0], most_bytes=4096) is None
