"""How a text is written: the words for it, every dialect of CSV in every cut, and other encodings."""

from __future__ import annotations

import csv
import io
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.framing import csv as framing_csv
from app.framing.charset import Transcode, find_charset
from app.framing.dialect import CsvDialect, check_reading, csv_dialect
from app.framing.quotes import Quoting
from tests.conformance.check_stage import Outcome, byte_cuts, check_memory, check_stage, outcome_of, pages_of

PAGE = 4096


def make(dialect: CsvDialect) -> list[Stage]:
    return framing_csv.reader(dialect=dialect, page_bytes=PAGE, max_line_bytes=PAGE, types={})


def read(data: bytes, **words: str) -> Outcome:
    dialect = csv_dialect(words, delimiter=b",")
    return check_stage(lambda: make(dialect), byte_cuts(data), page_bytes=PAGE)


def rows(data: bytes, **words: str) -> list[dict[str, Any]]:
    outcome = read(data, **words)
    assert not outcome.rejects
    assert outcome.refusal is None
    found: list[dict[str, Any]] = eval(outcome.content[1])
    return found


def test_the_words() -> None:
    assert csv_dialect({}, delimiter=b"\t") == CsvDialect(b"\t", b'"', True, ("",))
    assert csv_dialect(
        {"header": "false", "delimiter": ";", "quote": "'", "null": "NULL,,NA,NULL"}, delimiter=b","
    ) == CsvDialect(b";", b"'", False, ("NULL", "", "NA"))
    for word in ("tab", r"\t", "\t"):
        assert csv_dialect({"delimiter": word}, delimiter=b",").delimiter == b"\t"
    assert csv_dialect({"quote": "none"}, delimiter=b",").quote == b""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"header": "no"}, "true, false"),
        ({"delimiter": ""}, "one ASCII character"),
        ({"delimiter": ";;"}, "one ASCII character"),
        ({"delimiter": "ü"}, "one ASCII character"),
        ({"delimiter": "\n"}, "end a line"),
        ({"quote": "\r"}, "end a line"),
        ({"quote": "tab"}, "or none"),
        ({"delimiter": '"'}, "both"),
        ({"null": ",".join(map(str, range(200)))}, "spellings"),
        ({"encoding": "utf-7"}, "windows-1250"),
        ({"encoding": "rot13"}, "known"),
        ({"encoding": "\0"}, "known"),
        ({"infer": "second"}, "first, full"),
    ],
)
def test_what_is_wrong_with_a_word(words: dict[str, str], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        check_reading(words)
    assert caught.value.code == "bad_argument"


def test_without_a_header_columns_have_numbers() -> None:
    assert rows(b'1,x\n2,"y\nz"\n', header="false") == [
        {"column0": 1, "column1": "x"},
        {"column0": 2, "column1": "y\nz"},
    ]
    assert rows(b"7", header="false") == [{"column0": 7}]
    places = [(r.line, r.byte, r.code) for r in read(b"1,x\n2\n3,y\n", header="false").rejects]
    assert places == [(2, 4, "ragged_row")]


def test_a_first_record_that_is_not_utf8_is_a_bad_row_where_it_is_no_header() -> None:
    outcome = read(b"1,\xff\n2,y\n", header="false")
    assert [(r.line, r.byte, r.code, r.column) for r in outcome.rejects] == [(1, 0, "bad_encoding", "column1")]
    assert outcome.content[1] == "[{'column0': 2, 'column1': 'y'}]"


def test_delimiters_and_quotes() -> None:
    assert rows(b"a;b\n1,5;'x;''y''\n'\n", delimiter=";", quote="'") == [{"a": "1,5", "b": "x;'y'\n"}]
    assert rows(b'a|b\n1|"x\n2|y"\n', delimiter="|", quote="none") == [{"a": 1, "b": '"x'}, {"a": 2, "b": 'y"'}]
    assert rows(b"a b\n1 2\n", delimiter=" ") == [{"a": 1, "b": 2}]
    assert rows(b'a"b\n1"x\n', delimiter='"', quote="none") == [{"a": 1, "b": "x"}]
    assert rows(b"a.b\n1.[x.[[y]\n".replace(b"]", b"["), delimiter=".", quote="[") == [{"a": 1, "b": "x.[y"}]


def test_spellings_of_null() -> None:
    data = b'n,s\n1,NULL\nNA,"NULL"\n,\n'
    assert rows(data, null="NULL,NA,") == [{"n": 1, "s": None}, {"n": None, "s": "NULL"}, {"n": None, "s": None}]
    # Without the empty spelling, an empty field is an empty text, and no number.
    assert rows(data, null="NULL,NA") == [{"n": "1", "s": None}, {"n": None, "s": "NULL"}, {"n": "", "s": ""}]


def reference_ends(text: bytes, delimiter: bytes, quote: bytes) -> list[int]:
    """RFC 4180, one byte at a time; a quote within an unquoted field stands for itself."""
    ends: list[int] = []
    quoted, field_begins, at = False, True, 0
    while at < len(text):
        byte = text[at : at + 1]
        at += 1
        if quoted:
            if byte == quote and text[at : at + 1] == quote:
                at += 1
            elif byte == quote:
                quoted = False
        elif byte == quote and field_begins:
            quoted = True
        elif byte == b"\n":
            ends.append(at)
        field_begins = not quoted and byte in (delimiter, b"\n")
    return ends


SPECIAL = [b";", b"'", b"^", b"]", b"-", b"\\", b"|", b".", b"a"]


@given(
    st.sampled_from(SPECIAL),
    st.sampled_from([*SPECIAL, b""]),
    st.lists(st.sampled_from([*SPECIAL, b"\n", b"\r\n"]), max_size=30).map(b"".join),
)
@settings(max_examples=400, deadline=None)
def test_records_end_where_they_end(delimiter: bytes, quote: bytes, text: bytes) -> None:
    if delimiter == quote:
        return
    quoting = Quoting(delimiter, quote)
    ends = reference_ends(text, delimiter, quote)
    last = ends[-1] if ends else 0
    assert quoting.index(text)(0, len(text)) == last
    assert quoting.first_end(text) == (ends[0] if ends else 0)
    assert [end for _, end in quoting.records(text[:last])] == ends


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5)


@given(
    st.sampled_from(";|\t:^"),
    st.sampled_from("'\"~"),
    st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=6),
    st.integers(1, 40),
)
@settings(max_examples=200, deadline=None)
def test_what_pythons_writer_writes_is_read(delimiter: str, quote: str, table: list[tuple[str, str]], cut: int) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quotechar=quote, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    data = out.getvalue().encode()
    dialect = CsvDialect(delimiter.encode(), quote.encode(), header=False)
    stages = framing_csv.reader(
        dialect=dialect, page_bytes=PAGE, max_line_bytes=PAGE, types=dict.fromkeys(("column0", "column1"), pa.string())
    )
    outcome = outcome_of(stages, pages_of(data, range(cut, len(data), cut)))
    assert not outcome.rejects
    assert outcome.content[1] == repr([{"column0": a, "column1": b} for a, b in table])


WORDS = "Grüße, 水 and €uro — ½\r\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("latin-1", "Grüße ½\xff\x80\n"),
        ("windows-1252", "Grüße €uro — ½\n"),
        ("iso-8859-15", "€\n"),
        ("utf-16", WORDS),
        ("utf-16-be", WORDS + "🙂"),
        ("utf-16-le", WORDS + "🙂"),
        ("utf-32", WORDS),
        ("shift_jis", "水~\n"),
        ("gb18030", "水€🙂\n"),
        ("euc-kr", "물\n"),
        ("ibm850", "Grüße\n"),
    ],
)
def test_other_encodings_in_every_cut(name: str, text: str) -> None:
    charset = find_charset(name)
    assert charset is not None
    data = (text * 3).encode(name)
    outcome = check_stage(lambda: [Transcode(charset, page_bytes=64)], byte_cuts(data), page_bytes=64)
    assert outcome.content == (text * 3).encode()


def test_a_byte_order_mark_decides() -> None:
    for data in (b"\xff\xfea\0", b"\xfe\xff\0a"):
        assert check_stage(lambda: [Transcode("utf-16", page_bytes=64)], byte_cuts(data)).content == b"a"


@pytest.mark.parametrize(
    ("name", "data", "byte"),
    [
        ("cp1252", b"abc\x81def", 3),
        ("utf-16-le", b"a\0\x00\xd8b\0", 2),
        ("utf-16-le", b"a\0b", 2),
        ("utf-16", b"\xff\xfea\0\x00\xdc", 4),
        ("shift_jis", b"ab\x81", 2),
        ("gb18030", b"ab\x81\x30\xff\x30", 2),
        ("utf-32-le", b"a\0\0\0\0\0\x11\0", 4),
    ],
)
def test_what_cannot_be_decoded_is_told_with_its_byte(name: str, data: bytes, byte: int) -> None:
    streams = [pages_of(data, ()), pages_of(data, range(1, len(data))), pages_of(data, (2,))]
    assert check_stage(lambda: [Transcode(name, page_bytes=64)], streams).refusal == ("bad_encoding", None, byte, None)


def decoded(name: str, data: bytes) -> tuple[bytes | None, int | None]:
    """The text as UTF-8, or where it cannot be decoded."""
    try:
        return data.decode(name).encode(), None
    except UnicodeDecodeError as error:
        return None, error.start


@given(st.sampled_from(["cp1252", "utf-16", "gb18030", "shift_jis", "euc_jp", "big5", "cp949"]), st.binary(max_size=40))
@settings(max_examples=250, deadline=None)
def test_the_whole_is_what_python_decodes(name: str, data: bytes) -> None:
    streams = [pages_of(data, range(1, len(data))), pages_of(data, ())]
    outcome = check_stage(lambda: [Transcode(name, page_bytes=64)], streams)
    expected, start = decoded(name, data)
    assert outcome.content == expected
    assert outcome.refusal == (None if start is None else ("bad_encoding", None, start, None))


def test_memory_stays_within_what_is_declared() -> None:
    page = 1 << 18
    for name, text in (("cp1252", "€" * (4 * page)), ("utf-16-le", "水" * page), ("latin-1", "x" * (4 * page))):
        data = text.encode(name)
        charset = find_charset(name)
        assert charset is not None
        check_memory(
            lambda charset=charset: [Transcode(charset, page_bytes=page)],  # type: ignore[misc]
            pages_of(data, range(page, len(data), page)),
            page_bytes=page,
        )
