"""Corners of RFC 4180 and RFC 8259: what each of them is read as, in every cut. Nothing crashes or passes wrong."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from app.framing import csv, ndjson
from app.framing.dialect import CsvDialect
from tests.conformance.check_stage import Outcome, byte_cuts, check_stage, pages_of

PAGE = 4096


def read(format: str, data: bytes, page_bytes: int = PAGE) -> Outcome:
    sizes = {"page_bytes": page_bytes, "max_line_bytes": page_bytes}
    few = [pages_of(data, ()), pages_of(data, range(7, len(data), 7)), pages_of(data, (len(data) // 2,))]
    streams = byte_cuts(data) if len(data) < 200 else few
    if format == "csv":
        return check_stage(lambda: csv.reader(dialect=CsvDialect(), types={}, **sizes), streams)
    return check_stage(lambda: ndjson.reader(types={}, **sizes), streams)


def rows(format: str, data: bytes) -> list[dict[str, Any]]:
    outcome = read(format, data)
    assert outcome.refusal is None
    assert not outcome.rejects, outcome.rejects
    found: list[dict[str, Any]] = eval(outcome.content[1], {"Decimal": Decimal, "nan": math.nan, "inf": math.inf})
    return found


def faults(format: str, data: bytes) -> list[tuple[int, str]]:
    outcome = read(format, data)
    assert outcome.refusal is None
    return [(reject.line, reject.code) for reject in outcome.rejects]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b", []),
        (b"a,b\r\n", []),
        (b"a,b\n\n\n", []),
        (b"a\n", []),
        (b"a,b\n1,2", [{"a": 1, "b": 2}]),
        (b"a,b\r\n1,2\r\n", [{"a": 1, "b": 2}]),
        (b"a,b\n1,2\r\n3,4\n", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        (b'a,b\n"1\r2","x\r\ny"\n', [{"a": "1\r2", "b": "x\r\ny"}]),
        (b'a,b\nx"y,"x""y"\n', [{"a": 'x"y', "b": 'x"y'}]),
        (b'a,b\n"x"y,z\n', [{"a": "xy", "b": "z"}]),
        (b'a,b\n"""",""\n', [{"a": '"', "b": ""}]),
        (b'a,b\n1,2\n"",3\n', [{"a": "1", "b": 2}, {"a": "", "b": 3}]),
        (b'a,b\n,""\n', [{"a": None, "b": ""}]),
        (b'"a\nb",c\n1,2\n', [{"a\nb": 1, "c": 2}]),
        (b"\xef\xbb\xbfa\n1\n", [{"a": 1}]),
        (b'\xef\xbb\xbf"a"\n1\n', [{"a": 1}]),
        (b"a\n\xef\xbb\xbfx\n", [{"a": "\ufeffx"}]),
        (b"a\n\n1\n\n", [{"a": None}, {"a": 1}, {"a": None}]),
        (b"a,b\n\n1,2\n\n", [{"a": 1, "b": 2}]),
        (b"\n\r\na,b\n1,2\n", [{"a": 1, "b": 2}]),
        (b"a , b\n 1 , x \n", [{"a ": 1, " b": " x "}]),
        (b'a,b\n 1, "x"\n', [{"a": 1, "b": ' "x"'}]),
        (b"a,a,a\n1,2,3\n", [{"a": 1, "a_1": 2, "a_2": 3}]),
        (b"a,a_1,a\n1,2,3\n", [{"a": 1, "a_1": 2, "a_2": 3}]),
        (b",\n1,2\n", [{"column0": 1, "column1": 2}]),
        (b"a,b\nx\0y,\0\n", [{"a": "x\0y", "b": "\0"}]),
        (b"\0,b\nx,y\n", [{"\0": "x", "b": "y"}]),
        (b"a\n-0\n1\n", [{"a": 0}, {"a": 1}]),
        (b"a\n1E5\n-0.0\n", [{"a": 1e5}, {"a": -0.0}]),
        (b"a\n007\n1\n", [{"a": "007"}, {"a": "1"}]),
        (b"a\n01.50\n", [{"a": "01.50"}]),
        (b"a\n+4912345678\n", [{"a": "+4912345678"}]),
        (b"a\n9223372036854775808\n", [{"a": Decimal(2**63)}]),
        (b"a\n" + b"9" * 39 + b"\n", [{"a": "9" * 39}]),
        (b"a\n1_000\n", [{"a": "1_000"}]),
        (b"a\n1.5\ninf\n", [{"a": 1.5}, {"a": math.inf}]),
        (b"=1+1,b\n@x,y\n", [{"=1+1": "@x", "b": "y"}]),
    ],
)
def test_csv(data: bytes, expected: list[dict[str, Any]]) -> None:
    assert rows("csv", data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b\n1,2\r3,4\n5,6\n", [(2, "ragged_row")]),
        (b"a\n1\r2\n3\n", [(2, "ragged_row")]),
        (b"a,b\n1,2\r", [(2, "ragged_row")]),
        (b"a\n1.5\n1e400\n-1e400\n2\n", [(3, "bad_value"), (4, "bad_value")]),
        (b'a,b\n1,2\n"x\n', [(3, "ragged_row")]),
        (b'a,b\n1,2\n3,""",4\n', [(3, "ragged_row")]),
        (b"a,b\n1,\xed\xa0\x80\n", [(2, "bad_encoding")]),
        (b"a,b\n1,\xc0\x80\n", [(2, "bad_encoding")]),
        (b"a,b\n\xef\xbb,2\n", [(2, "bad_encoding")]),
        (b"a,b\n\xef\n1,2\n", [(2, "ragged_row")]),
        (b"a\n\xef", [(2, "bad_encoding")]),
    ],
)
def test_csv_that_is_bad(data: bytes, expected: list[tuple[int, str]]) -> None:
    assert faults("csv", data) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_input"),
        (b"\n\n\r\n", "empty_input"),
        (b"\xef\xbb\xbf", "empty_input"),
        (b"\xef", "bad_encoding"),
        (b"\xef\xbb", "bad_encoding"),
        (b"a\rb\n1\n", "corrupt_input"),
        (b'"a', "corrupt_input"),
        (b",".join(b"c%d" % n for n in range(400)) + b"\n", "page_too_large"),
    ],
)
def test_csv_without_a_header(data: bytes, code: str) -> None:
    refusal = read("csv", data).refusal
    assert refusal is not None
    assert refusal[0] == code


def test_very_many_columns() -> None:
    names = [f"c{n}" for n in range(2000)]
    data = ",".join(names).encode() + b"\n" + b",".join(b"%d" % n for n in range(2000)) + b"\n"
    outcome = read("csv", data, page_bytes=1 << 20)
    assert eval(outcome.content[1]) == [dict(zip(names, range(2000), strict=True))]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{}\n{"a":1}\n{}', [{"a": None}, {"a": 1}, {"a": None}]),
        (b'{"a":1}', [{"a": 1}]),
        (b'{"a":1}\r\n\r\n\n{"a":2}\r\n', [{"a": 1}, {"a": 2}]),
        (b'\xef\xbb\xbf{"a":1}\n', [{"a": 1}]),
        (b' \t{ "a" : 1 }\t \n', [{"a": 1}]),
        (b'{"":1}\n', [{"": 1}]),
        (b'{"a":"\\u00fc\\ud83d\\ude00\\u0000\\/\\b"}\n', [{"a": "ü😀\0/\b"}]),
        (b'{"\\u0061":1}\n', [{"a": 1}]),
        (b'{"a":-0}\n{"a":1}\n', [{"a": 0}, {"a": 1}]),
        (b'{"a":-0.0}\n{"a":1E5}\n{"a":1e-2}\n', [{"a": -0.0}, {"a": 1e5}, {"a": 0.01}]),
        (b'{"a":9223372036854775807}\n', [{"a": 2**63 - 1}]),
        (b'{"a":9223372036854775808}\n', [{"a": Decimal(2**63)}]),
        (b'{"a":1e308}\n', [{"a": 1e308}]),
        (b'{"a":' + b"[" * 31 + b"]" * 31 + b"}\n", [{"a": eval("[" * 31 + "]" * 31)}]),
        (b'{"a":"","b":null}\n', [{"a": "", "b": None}]),
    ],
)
def test_ndjson(data: bytes, expected: list[dict[str, Any]]) -> None:
    assert rows("ndjson", data) == expected


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"null", "bad_json"),
        (b"1", "bad_json"),
        (b'"x"', "bad_json"),
        (b"[]", "bad_json"),
        (b"{", "bad_json"),
        (b'{"a":01}', "bad_json"),
        (b'{"a":+1}', "bad_json"),
        (b'{"a":.5}', "bad_json"),
        (b'{"a":1.}', "bad_json"),
        (b'{"a":0x1}', "bad_json"),
        (b"{'a':1}", "bad_json"),
        (b'{"a":1,}', "bad_json"),
        (b'{"a":1}//', "bad_json"),
        (b'{"a":1,"a":1}', "bad_json"),
        (b'{"a":"\\ud800"}', "bad_json"),
        (b'{"a":"\\udc00\\ud800"}', "bad_json"),
        (b'{"a":"\\x"}', "bad_json"),
        (b'{"a":"\t"}', "bad_json"),
        (b'{"a":"\0"}', "bad_json"),
        (b'{"a":\0}', "bad_json"),
        (b"\x0b", "bad_json"),
        (b"\xc2\xa0", "bad_json"),
        (b'{"a":"\xed\xa0\x80"}', "bad_encoding"),
        (b'{"a":1e400}', "bad_value"),
        (b'{"a":-1e400}', "bad_value"),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "bad_value"),
        (b'{"a":' + b"[" * 3000, "bad_json"),
    ],
)
def test_ndjson_that_is_bad(line: bytes, code: str) -> None:
    good = b'{"a":1.5}\n'
    assert faults("ndjson", good + line + b"\n" + good) == [(2, code)]
    assert faults("ndjson", good + line) == [(2, code)]
    # As the first line of all it says nothing of the types.
    first = read("ndjson", line + b"\n" + good)
    assert first.refusal is None
    assert [(reject.line, reject.code) for reject in first.rejects] == [(1, code)]
    assert eval(first.content[1]) == [{"a": 1.5}]


def test_a_byte_order_mark_is_one_only_at_the_start() -> None:
    assert faults("ndjson", b'{"a":1}\n\xef\xbb\xbf{"a":2}\n') == [(2, "bad_json")]


def test_objects_without_a_field_are_no_table() -> None:
    outcome = read("ndjson", b"{}\n{}\n")
    assert [(reject.line, reject.code) for reject in outcome.rejects] == [(1, "bad_value"), (2, "bad_value")]
    assert "no column" in outcome.rejects[0].detail
