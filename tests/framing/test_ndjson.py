"""NDJSON and JSON: types, bad lines with their places, every cut, memory, and the way back."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.interfaces import Stage
from app.core.page import Page
from app.framing import json as json_array
from app.framing.ndjson import reader, writer
from app.framing.ndjson_table import NdjsonTable
from app.framing.schema import parse_types
from tests.conformance.check_stage import (
    Outcome,
    byte_cuts,
    check_memory,
    check_stage,
    outcome_of,
    pages_of,
    table_cuts,
)

PAGE = 4096
MIB = 1024 * 1024
UTC = datetime.UTC


def make(types: str = "", *, page_bytes: int = PAGE, max_line_bytes: int = PAGE) -> list[Stage]:
    chosen: Mapping[str, Any] = parse_types(types) if types else {}
    return reader(page_bytes=page_bytes, max_line_bytes=max_line_bytes, types=chosen)


def read(data: bytes, types: str = "") -> Outcome:
    return check_stage(lambda: make(types), byte_cuts(data), page_bytes=PAGE)


def rows(data: bytes, types: str = "") -> list[dict[str, Any]]:
    outcome = read(data, types)
    assert not outcome.rejects
    assert outcome.refusal is None
    names = {"datetime": datetime, "Decimal": Decimal, "zoneinfo": __import__("zoneinfo")}
    return eval(outcome.content[1], names)


def places(data: bytes, types: str = "") -> list[tuple[int, int, str, str | None]]:
    return [(r.line, r.byte, r.code, r.column) for r in read(data, types).rejects]


def test_objects_in_lines() -> None:
    data = '\ufeff\r\n{"a":1,"b":"ü\\n🙂","c":{"d":[1,2.5]}}\r\n\n {"b":null} \n{"a":-2,"c":{"d":[]}}'.encode()
    assert rows(data) == [
        {"a": 1, "b": "ü\n🙂", "c": {"d": [1.0, 2.5]}},
        {"a": None, "b": None, "c": None},
        {"a": -2, "b": None, "c": {"d": []}},
    ]


def test_types_by_look_only_where_all_values_look_alike() -> None:
    data = (
        b'{"day":"2020-01-31","at":"2020-01-31T10:00:00Z","fine":"2020-01-31 10:00:00.25","mixed":"2020-01-31"}\n'
        b'{"day":"2020-02-01","at":"2020-02-01T10:00:00Z","fine":"2020-02-01 10:00:00.5","mixed":"2020-01-31T10:00:00"}\n'
    )
    first = rows(data)[0]
    assert first["day"] == datetime.date(2020, 1, 31)
    assert first["at"] == datetime.datetime(2020, 1, 31, 10, tzinfo=UTC)
    assert first["fine"] == datetime.datetime(2020, 1, 31, 10, 0, 0, 250_000)
    assert first["mixed"] == "2020-01-31"


def test_large_whole_numbers_keep_their_digits() -> None:
    assert rows(b'{"n":18446744073709551615}\n{"n":1}\n')[0] == {"n": Decimal(18446744073709551615)}


def test_types_that_the_user_sets_also_of_columns_to_come() -> None:
    data = b'{"a":1}\n{"a":2.25,"d":"2020-01-31","t":"10:00:00"}\n'
    assert rows(data, "a:decimal(9,2),d:date,t:time")[1] == {
        "a": Decimal("2.25"),
        "d": datetime.date(2020, 1, 31),
        "t": datetime.time(10),
    }


def test_bad_lines_tell_their_places() -> None:
    lines = [
        b'{"a":1,"s":"x"}',
        b'{"a":"x"}',
        b'{"a":1',
        b'{"a":2}{"a":3}',
        b"[1]",
        b"7",
        b'{"b\xff":1}',
        b'{"a":1,"a":2}',
        b'{"a":',
        b"4}",
        b'{"a":5}',
    ]
    data = b"\n".join(lines)
    offsets = [sum(len(line) + 1 for line in lines[:index]) for index in range(len(lines))]
    found = places(data)
    assert [(line, byte) for line, byte, _, _ in found] == [(index + 1, offsets[index]) for index in range(1, 10)]
    assert [code for _, _, code, _ in found] == [
        "bad_value",
        *["bad_json"] * 4,
        "bad_encoding",
        *["bad_json"] * 3,
    ]
    assert found[0][3] == "a"


def test_a_field_that_the_first_page_does_not_have() -> None:
    data = b'{"a":1,"o":{"x":1}}\n' * 400 + b'{"a":1,"new":2}\n{"o":{"y":1}}\n'
    outcome = check_stage(make, [pages_of(data, ()), pages_of(data, range(100, len(data), 100))])
    assert [(r.line, r.code, r.column) for r in outcome.rejects] == [
        (401, "unexpected_field", "new"),
        (402, "unexpected_field", "o"),
    ]
    assert "types=new:TYPE" in outcome.rejects[0].detail


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", ("empty_input", None, None, None)),
        (b"\xef\xbb\xbf\n", ("empty_input", None, None, None)),
        (b'{"a":"' + b"x" * 50_000 + b'"}\n', ("record_too_long", 1, 0, None)),
        (b"".join(b'{"k%d":1}\n' % n for n in range(330)), ("page_too_large", None, None, None)),
    ],
)
def test_what_cannot_be_read_at_all(data: bytes, refusal: tuple[Any, ...]) -> None:
    assert check_stage(make, [pages_of(data, ()), pages_of(data, range(3, len(data), 7))]).refusal == refusal


def test_null_is_no_object() -> None:
    for data in (b'null\n{"a":1}\n', b'{"a":1}\nnull\n', b"\n \nnull\n", b"null", b'null{"a":1}\n', b"\x0c\n"):
        assert [reject.code for reject in read(data).rejects] == ["bad_json"], data
    data = b'{"a":1}\n' * 600 + b"null\n" * 600
    outcome = check_stage(make, [pages_of(data, ()), pages_of(data, range(5, len(data), 5))])
    assert [(r.line, r.code) for r in outcome.rejects] == [(line, "bad_json") for line in range(601, 1201)]


def test_deep_nesting_is_a_bad_line() -> None:
    deep = b'{"a":' + b"[" * 500 + b"]" * 500 + b"}\n"
    for data in (deep, deep + b'{"a":[1]}\n'):
        edges = (*range(1, 9), *range(503, 508), *range(len(deep) - 4, len(data)))
        cuts = ((), *((edge,) for edge in edges), range(1, len(data)))
        rejects = check_stage(make, (pages_of(data, cut) for cut in cuts), page_bytes=PAGE).rejects
        assert [(r.line, r.byte, r.code, r.column) for r in rejects] == [(1, 0, "bad_value", "a")]


def test_deep_nesting_later_is_a_bad_line() -> None:
    data = b'{"a":1}\n' * 600 + b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}\n"
    outcome = outcome_of(make(), pages_of(data, ()))
    assert [(r.line, r.code) for r in outcome.rejects] == [(601, "bad_value")]


TABLE = pa.table(
    {
        "n": pa.array([1, None, -3], pa.int64()),
        "s": pa.array(['a "q" \\ \r\n\x01', None, "ü🙂"]),
        "d": pa.array([0, None, 20000], pa.date32()),
        "t": pa.array([0, None, 1_600_000_000], pa.timestamp("s", "UTC")),
        "f": pa.array([0.1, None, float("nan")]),
        "b": pa.array([True, None, False]),
        "m": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(9, 2)),
        "o": pa.array([{"x": [1, None]}, None, {"x": []}], pa.struct([("x", pa.list_(pa.int64()))])),
    }
)
OBJECTS = [
    {
        "n": 1,
        "s": 'a "q" \\ \r\n\x01',
        "d": "1970-01-01",
        "t": "1970-01-01T00:00:00Z",
        "f": 0.1,
        "b": True,
        "m": 1.50,
        "o": {"x": [1, None]},
    },
    dict.fromkeys(TABLE.column_names),
    {
        "n": -3,
        "s": "ü🙂",
        "d": "2024-10-04",
        "t": "2020-09-13T12:26:40Z",
        "f": None,
        "b": False,
        "m": -2.25,
        "o": {"x": []},
    },
]


def test_what_is_written() -> None:
    text = check_stage(lambda: writer(page_bytes=PAGE), table_cuts(TABLE)).content
    assert [json.loads(line) for line in text.splitlines()] == OBJECTS
    assert b'"m":1.50' in text


def test_an_array_is_written() -> None:
    assert json.loads(check_stage(lambda: json_array.writer(page_bytes=PAGE), table_cuts(TABLE)).content) == OBJECTS
    assert (
        json.loads(check_stage(lambda: json_array.writer(page_bytes=PAGE), table_cuts(TABLE.slice(0, 0))).content) == []
    )


def test_an_array_is_not_closed_unless_the_flow_ended_well() -> None:
    stages = json_array.writer(page_bytes=PAGE)
    pages = next(iter(table_cuts(TABLE)))
    for stage in stages:
        pages = [result for page in pages for result in stage.feed(page)]
    assert not b"".join(page.payload for page in pages).rstrip().endswith(b"]")


JSON = st.fixed_dictionaries(
    {},
    optional={
        "i": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "s": st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
        "b": st.one_of(st.none(), st.booleans()),
    },
)


@given(st.lists(JSON, max_size=12), st.booleans(), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_what_json_dumps_writes_is_read_and_written_back(objects: list[dict[str, Any]], ascii: bool, cut: int) -> None:
    objects = [{"i": 1, "s": "text", "b": True}, *objects]
    text = "".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in objects).encode()
    cuts = (cut,) if 0 < cut < len(text) else ()
    outcome = outcome_of([*make(), *writer(page_bytes=PAGE)], pages_of(text, cuts))
    assert not outcome.rejects
    found = [json.loads(line) for line in outcome.content.splitlines()]
    assert found == [{key: row.get(key) for key in ("i", "s", "b")} for row in objects]


def test_memory_stays_within_what_is_declared() -> None:
    page = MIB // 4
    flat = b"".join(b'{"id":%d,"name":"customer %d","price":%d.25,"flag":true}\n' % (n, n, n) for n in range(30_000))
    lists = b"".join(b'{"v":[%s]}\n' % b",".join([b"1"] * 500) for _ in range(1500))
    short = b'{"a":1}\n' * (MIB // 4)
    days = b'{"d":"2020-01-31","e":"2020-01-31"}\n' * 40_000
    bad = b'{"a":1}\n{"a":"x"}\n' * 20_000
    small = page // 8  # for each bad line is looked at by itself, which takes long
    for data, size in ((flat, page), (lists, page), (short, page), (days, page), (bad[:small], small)):
        pages = pages_of(data[: 4 * page], range(size, min(len(data), 4 * page), size))
        # What is cut comes in pages of the source, what is parsed goes in those of the flow.
        check_memory(lambda size=size: make(page_bytes=size, max_line_bytes=size)[:1], pages, page_bytes=size)
        check_memory(lambda size=size: make(page_bytes=size, max_line_bytes=size), pages, page_bytes=2 * size)


@pytest.mark.parametrize(
    ("line", "code", "column", "said"),
    [
        ('{"k":1,"m":[1,"a"]}', "bad_value", "m", "the elements of a list"),
        ('{"k":1,"m":[{"a":1},{"a":"x"}]}', "bad_value", "m", "the same field of several objects"),
        ('{"k":1,"k":2}', "bad_json", None, "the key 'k' twice"),
        ('{"k":{"x":1,"x":2}}', "bad_json", None, "the key 'x' twice"),
    ],
)
def test_the_first_line_is_not_blamed_for_what_it_is_not(line: str, code: str, column: str | None, said: str) -> None:
    [cut, parse] = make()
    data = line.encode() + b"\n"
    pages = [
        result for page in (*cut.feed(Page(data, len(data), first=True)), *cut.flush()) for result in parse.feed(page)
    ]
    [reject] = [reject for page in pages for reject in page.rejects]
    assert (reject.code, reject.column, reject.line) == (code, column, 1)
    assert said in reject.detail


WORDS = [
    "1",
    "-0",
    "1.5",
    "1e5",
    "123456789012345678901",
    "null",
    "true",
    '""',
    '"x"',
    '"2024-01-02"',
    '"2024-01-02T03:04"',
]
WORDS += ['"2024-01-02T03:04:05Z"', '"2024-01-02 03:04:05.6"', "[1]", '{"a": 1}', '{"a": "2024-01-02"}', "01", "{}"]


@settings(max_examples=300)
@given(
    first=st.lists(st.dictionaries(st.sampled_from("ab"), st.sampled_from(WORDS)), min_size=1, max_size=4),
    others=st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from(WORDS)), max_size=3),
)
def test_what_the_first_lines_tell_is_what_all_do(first: list[dict[str, str]], others: list[dict[str, str]]) -> None:
    """Or nothing."""
    table = NdjsonTable(page_bytes=1 << 16, max_line_bytes=1 << 16, types={})
    lines = [b"{" + b", ".join(f'"{k}": {v}'.encode() for k, v in row.items()) + b"}\n" for row in [*first, *others]]
    text, sample_bytes = b"".join(lines), sum(map(len, lines[: len(first)]))
    found = table._like_the_first(text, sample_bytes)
    assert found is None or found == table._inferred(text)


def test_the_first_lines_are_enough_where_all_are_like_them() -> None:
    table = NdjsonTable(page_bytes=1 << 20, max_line_bytes=1 << 16, types={})
    line = b'{"n": 1, "x": 1.5, "d": "2024-01-02", "t": "2024-01-02T03:04:05Z", "s": "x", "o": {"f": true}}\n'
    assert table._like_the_first(100 * line, len(line)) == table._inferred(line)
    assert table._like_the_first(100 * line + line.replace(b'"x"', b"7"), len(line)) is None
