"""CSV that is not written as RFC 4180 has it."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.framing import FORMATS, ReadOptions
from app.framing.csv_dialect import CsvDialect, parse_dialect
from tests.conformance.check_stage import byte_cuts, check_stage, pages_of, run_stages


def stages(words: dict[str, str], format: str = "csv", page_bytes: int = 1 << 16) -> list[Stage]:
    read = FORMATS[format].read
    assert read is not None
    return read(ReadOptions(page_bytes, 1 << 16, 1 << 20, {}, parse_dialect(words)))


def rows(words: dict[str, str], data: bytes, format: str = "csv") -> list[dict[str, Any]]:
    return [row for page in run_stages(stages(words, format), pages_of(data, ())) for row in page.payload.to_pylist()]


@pytest.mark.parametrize(
    ("words", "data", "wanted"),
    [
        ({"header": "false"}, b"1,a\n2,b\n", [{"column0": 1, "column1": "a"}, {"column0": 2, "column1": "b"}]),
        ({"header": "false"}, b"a,a", [{"column0": "a", "column1": "a"}]),
        ({"header": "false"}, b'"x\ny",1\n', [{"column0": "x\ny", "column1": 1}]),
        ({"delimiter": ";"}, b'a;b\n"1,5;";2\n', [{"a": "1,5;", "b": 2}]),
        ({"delimiter": "pipe", "header": "false"}, b"1|2\n", [{"column0": 1, "column1": 2}]),
        ({"delimiter": "tab"}, b"a\tb\n1\t2\n", [{"a": 1, "b": 2}]),
        ({"quote": "'"}, b"a,b\n'x,''y\n',1\n\"z\",2\n", [{"a": "x,'y\n", "b": 1}, {"a": '"z"', "b": 2}]),
        ({"null": "NA,-"}, b"a,b\n1,NA\n-,\n3,x\n", [{"a": 1, "b": None}, {"a": None, "b": ""}, {"a": 3, "b": "x"}]),
        ({"null": "NA,"}, b'a,b\n1,NA\n,"NA"\n', [{"a": 1, "b": None}, {"a": None, "b": "NA"}]),
    ],
)
def test_what_it_says_is_what_is_read_however_it_is_cut(
    words: dict[str, str], data: bytes, wanted: list[dict[str, Any]]
) -> None:
    assert rows(words, data) == wanted
    check_stage(lambda: stages(words), byte_cuts(data))


def test_tsv_has_its_own_delimiter_unless_it_is_told() -> None:
    assert rows({}, b"a\tb\n1\t2\n", "tsv") == [{"a": 1, "b": 2}]
    assert rows({"delimiter": ","}, b"a,b\n1,2\n", "tsv") == [{"a": 1, "b": 2}]


def test_bad_rows_are_found_where_they_stand() -> None:
    data = b"1;x\n2;y;z\n'3';w\n" + b"4;v\n" * 9000 + b"no;u\n"
    words = {"header": "false", "delimiter": ";", "quote": "'"}
    found = [
        reject
        for page in run_stages(stages(words, page_bytes=4096), pages_of(data, range(4096, len(data), 4096)))
        for reject in page.rejects
    ]
    assert [(reject.line, reject.byte, reject.code, reject.text) for reject in found] == [
        (2, 4, "ragged_row", "2;y;z"),
        (9004, 16 + 4 * 9000, "bad_value", "no;u"),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"header": "maybe"}, "header='maybe' is not one of true, false"),
        ({"delimiter": ";;"}, "delimiter=';;' is not one ASCII character"),
        ({"delimiter": "ä"}, "not one ASCII character"),
        ({"delimiter": "\n"}, "not one ASCII character"),
        ({"quote": ""}, "quote='' is not one ASCII character"),
        ({"delimiter": "'", "quote": "'"}, "both"),
        ({"quote": ","}, "both"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, str], said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        parse_dialect(words)
    assert caught.value.code == "bad_argument"


def test_nothing_said_is_the_plain_dialect() -> None:
    assert parse_dialect({}) == CsvDialect()
