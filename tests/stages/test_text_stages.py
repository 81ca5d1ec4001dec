"""upper, lower, replace, grep, limit, offset, sample."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.framing import lines
from app.stages.case import Case
from app.stages.grep import Grep
from app.stages.limit import Limit, parse_count
from app.stages.offset import Offset
from app.stages.replace import Replace, parse
from app.stages.sample import Sample, parse_share
from tests.conformance.check_stage import byte_cuts, check_stage, line_cuts, pages_of, run_stages, table_cuts

TEXT = b"One line\ntwo\n\nthr\xc3\xa9e \xff\r\nfour, the last"
TABLE = pa.table({"n": list(range(12)), "s": [None, "x"] * 6})


def with_lines(stage: Stage) -> list[Stage]:
    return [*lines.reader(page_bytes=16, max_line_bytes=1000), stage]


def rows(content: tuple[str, str]) -> list[dict[str, object]]:
    return ast.literal_eval(content[1])


def text_of(stages: Sequence[Stage], data: bytes) -> bytes:
    return b"".join(bytes(page.payload) for page in run_stages(stages, pages_of(data, ())))


@pytest.mark.parametrize("upper", [True, False])
def test_case_changes_ascii_letters_only_and_any_bytes_pass(upper: bool) -> None:
    data = bytes(range(256)) * 3
    expected = data.upper() if upper else data.lower()
    assert check_stage(lambda: [Case(upper=upper)], byte_cuts(data)).content == expected


@given(st.binary(max_size=300))
def test_case_agrees_with_python(data: bytes) -> None:
    assert text_of([Case(upper=True)], data) == data.upper()


def test_case_keeps_the_place_of_a_page() -> None:
    page = Page(memoryview(b"ab\n"), 3, rows=1, byte=7, line=3, first=True)
    (changed,) = Case(upper=True).feed(page)
    assert (bytes(changed.payload), changed.rows, changed.byte, changed.line, changed.first) == (b"AB\n", 1, 7, 3, True)


@pytest.mark.parametrize(
    ("regex", "text", "expected"),
    [
        ("[aeiou]", "*", re.sub(rb"[aeiou]", b"*", TEXT)),
        (r"(\w+) (\w+)", r"\2 \1", b"line One\ntwo\n\nthr\xc3\xa9e \xff\r\nfour, last the"),
        ("^", "> ", b"> One line\n> two\n> \n> thr\xc3\xa9e \xff\r\n> four, the last"),
        ("[^x]", "", b"\n\n\n\xff\n"),
    ],
)
def test_replace_works_line_by_line(regex: str, text: str, expected: bytes) -> None:
    assert check_stage(lambda: with_lines(Replace(regex, text)), byte_cuts(TEXT)).content == expected


def test_replace_refuses_what_grows_too_much() -> None:
    stage = Replace("a", "b" * 1000)
    with pytest.raises(Refusal) as refused:
        list(stage.feed(Page(b"a\n" * 10_000, 20_000, rows=10_000, line=41, first=True)))
    assert refused.value.code == "page_too_large"
    assert "line 41" in refused.value.detail


@pytest.mark.parametrize(
    ("argument", "parts"),
    [("/a/b/", ("a", "b")), ("/a//", ("a", "")), (r"/a\/b/c/", ("a/b", "c")), (r"|\d+|\1|", (r"\d+", r"\1"))],
)
def test_the_argument_of_replace(argument: str, parts: tuple[str, str]) -> None:
    assert parse(argument) == parts


@pytest.mark.parametrize("argument", ["", "/", "/a/b", "//b/", "/a/b/c", "/a/b/c/"])
def test_what_is_no_argument_of_replace(argument: str) -> None:
    with pytest.raises(Refusal, match="regex"):
        parse(argument)


@pytest.mark.parametrize(
    "make", [lambda: Grep("(", keep_header=False), lambda: Replace("(", ""), lambda: Replace("a", r"\3")]
)
def test_a_broken_expression_is_told_when_it_is_made(make: type) -> None:
    with pytest.raises(Refusal) as refused:
        make()
    assert refused.value.code == "bad_argument"


@pytest.mark.parametrize(
    ("regex", "header", "expected"),
    [
        ("e$", False, b"One line\n"),
        ("o", False, b"two\nfour, the last"),
        ("o", True, b"One line\ntwo\nfour, the last"),
        ("four", False, b"four, the last"),
        ("^$", False, b"\n"),
        ("nowhere", False, b""),
        ("nowhere", True, b"One line\n"),
        ("[[:cntrl:]]", False, b"thr\xc3\xa9e \xff\r\n"),
    ],
)
def test_grep(regex: str, header: bool, expected: bytes) -> None:
    assert check_stage(lambda: with_lines(Grep(regex, keep_header=header)), byte_cuts(TEXT)).content == expected


@given(st.lists(st.text("abc", max_size=4), max_size=12), st.booleans(), st.sampled_from(["a", "^b", "c$", "^$"]))
def test_grep_agrees_with_re(rows: list[str], newline: bool, regex: str) -> None:
    text = "\n".join(rows) + ("\n" if newline and rows else "")
    expected = "".join(line for line in text.splitlines(keepends=True) if re.search(regex, line.rstrip("\n")))
    assert text_of(with_lines(Grep(regex, keep_header=False)), text.encode()) == expected.encode()


@pytest.mark.parametrize("most", [0, 1, 3, 5, 99])
def test_limit_and_offset_of_lines(most: int) -> None:
    lines_of_text = TEXT.split(b"\n")
    first = b"\n".join(lines_of_text[:most]) + (b"\n" if 0 < most < 5 else b"")
    assert check_stage(lambda: with_lines(Limit(most)), byte_cuts(TEXT)).content == first
    assert check_stage(lambda: with_lines(Offset(most)), byte_cuts(TEXT)).content == b"\n".join(lines_of_text[most:])


@pytest.mark.parametrize("most", [0, 1, 5, 12, 99])
def test_limit_and_offset_of_rows(most: int) -> None:
    assert rows(check_stage(lambda: [Limit(most)], table_cuts(TABLE)).content) == TABLE.to_pylist()[:most]
    assert rows(check_stage(lambda: [Offset(most)], table_cuts(TABLE)).content) == TABLE.to_pylist()[most:]


def test_limit_is_sated_once_it_has_enough() -> None:
    limit = Limit(2)
    for number, page in enumerate(next(iter(line_cuts(b"a\nb\nc\n")))):
        assert not limit.sated
        list(limit.feed(page))
        assert limit.sated, number
    assert Limit(0).sated


def test_sample_is_a_share_and_the_same_one_however_the_stream_is_cut() -> None:
    kept = rows(check_stage(lambda: [Sample(0.4)], table_cuts(TABLE)).content)
    assert 0 < len(kept) < TABLE.num_rows
    text = check_stage(lambda: with_lines(Sample(0.4)), byte_cuts(b"".join(b"%d\n" % n for n in range(12)))).content
    assert [int(line) for line in text.split()] == [row["n"] for row in kept]
    large = b"".join(b"%d\n" % n for n in range(5000))
    assert text_of(with_lines(Sample(0.1)), large).count(b"\n") == pytest.approx(500, abs=100)
    assert text_of(with_lines(Sample(1.0)), large) == large


@pytest.mark.parametrize("text", ["", "-1", "1.5", "ten", "1e3", "9" * 19])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(Refusal, match="number of records"):
        parse_count(text)


@pytest.mark.parametrize("text", ["", "0", "-1%", "2", "101%", "some", "nan"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(Refusal, match="share"):
        parse_share(text)
    assert parse_share("5%") == 0.05
