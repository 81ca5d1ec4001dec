"""Bad rows of every kind among good ones: each is told once, exactly where it stands, whatever the pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page, Reject
from app.framing import csv, ndjson
from app.framing.dialect import CsvDialect
from app.framing.quotes import Quoting
from app.stages.tolerance import Tolerance
from tests.conformance.check_stage import pages_of, run_stages

PAGE = 2048
MAX_LINE = 1024
FORMATS = ("csv", "tsv", "ndjson")


@dataclass(frozen=True)
class Bad:
    """A record, and what is told of it."""

    text: bytes
    code: str
    column: str | None = None


def bad_rows(format: str) -> dict[str, Bad]:
    """Records of all kinds of faults, for tables of i, f, d, b, s and t (the last a smallint)."""
    if format == "ndjson":
        row = b'{"i":1,"f":1.5,"d":"2020-01-31","b":true,"s":"x","t":1}'
        return {
            "short, which is bad JSON": Bad(row[:-1], "bad_json"),
            "two in a line": Bad(row + row, "bad_json"),
            "no object": Bad(b"[1]", "bad_json"),
            "bad JSON": Bad(row.replace(b"true", b"ture"), "bad_json"),
            "int": Bad(row.replace(b":1,", b':"x",', 1), "bad_value", "i"),
            "float": Bad(row.replace(b"1.5", b'"x"'), "bad_value", "f"),
            "date": Bad(row.replace(b"-31", b"-32"), "bad_value", "d"),
            "bool": Bad(row.replace(b"true", b'"yes"'), "bad_value", "b"),
            "UTF-8": Bad(row.replace(b'"x"', b'"\xff"'), "bad_encoding"),
            "out of range": Bad(row.replace(b":1,", b":9223372036854775808,", 1), "bad_value", "i"),
            "out of a small range": Bad(row.replace(b":1}", b":40000}"), "bad_value", "t"),
            "float out of range": Bad(row.replace(b"1.5", b"1e999"), "bad_value", "f"),
            "a field too much": Bad(row.replace(b"{", b'{"new":1,'), "unexpected_field", "new"),
            "a key twice": Bad(row.replace(b"{", b'{"i":1,'), "bad_json"),
            "a lone surrogate": Bad(row.replace(b'"x"', b'"\\ud800"'), "bad_json"),
            "too long": Bad(row.replace(b'"x"', b'"%s"' % (b"{}\\n" * MAX_LINE)), "record_too_long"),
        }
    rows = {
        "ragged short": Bad(b"1,1.5,2020-01-31,true,x", "ragged_row"),
        "ragged long": Bad(b"1,1.5,2020-01-31,true,x,1,y", "ragged_row"),
        "ragged and of three lines": Bad(b'1,"a\nb\r\nc"', "ragged_row"),
        "int": Bad(b"x,1.5,2020-01-31,true,x,1", "bad_value", "i"),
        "float": Bad(b"1,1.5.5,2020-01-31,true,x,1", "bad_value", "f"),
        "date": Bad(b"1,1.5,2020-01-32,true,x,1", "bad_value", "d"),
        "bool": Bad(b"1,1.5,2020-01-31,yes,x,1", "bad_value", "b"),
        "UTF-8": Bad(b"1,1.5,2020-01-31,true,\xff,1", "bad_encoding", "s"),
        "UTF-8 cut off": Bad(b"1,1.5,2020-01-31,true,\xe6\xb0,1", "bad_encoding", "s"),
        "out of range": Bad(b"9223372036854775808,1.5,2020-01-31,true,x,1", "bad_value", "i"),
        "out of a small range": Bad(b"1,1.5,2020-01-31,true,x,40000", "bad_value", "t"),
        "float out of range": Bad(b"1,1e999,2020-01-31,true,x,1", "bad_value", "f"),
        "a lone return": Bad(b"1,1.5,2020-01-31,true,x\ry,1", "ragged_row"),
        "too long": Bad(b"1,1.5,2020-01-31,true,%s,1" % (b"xyz" * MAX_LINE), "record_too_long"),
        "too long, in quotes": Bad(b'1,1.5,2020-01-31,true,"%s",1' % (b'a,""\n' * MAX_LINE), "record_too_long"),
    }
    if format == "tsv":
        rows = {name: Bad(bad.text.replace(b",", b"\t"), bad.code, bad.column) for name, bad in rows.items()}
    return rows


def good_row(format: str, number: int) -> bytes:
    if format == "ndjson":
        return b'{"i":%d,"f":%d.5,"d":"2020-01-31","b":false,"s":"text, %d","t":7}' % (number, number, number)
    row = b'%d,%d.5,2020-01-31,false,"text\n""%d""",7' % (number, number, number)
    return row.replace(b",", b"\t") if format == "tsv" else row


def table(
    format: str, kinds: Sequence[str], *, good: int, end: bytes = b"\n"
) -> tuple[bytes, list[tuple[object, ...]]]:
    """A file that begins with two pages of good rows, and then has ``good`` of them before each bad one; and what is to
    be told: line, byte, code, column."""
    bad, data, expected = bad_rows(format), bytearray(), []
    if format != "ndjson":
        data += good_row(format, 0)[:0] + b",".join([b"i", b"f", b"d", b"b", b"s", b"t"]) + end
        data = data.replace(b",", b"\t") if format == "tsv" else data
    while len(data) < 2 * PAGE:
        data += good_row(format, len(data)) + end
    for kind in kinds:
        for number in range(good):
            data += good_row(format, number) + end
        expected.append((data.count(b"\n") + 1, len(data), bad[kind].code, bad[kind].column))
        data += bad[kind].text + end
    data += good_row(format, 1)
    return bytes(data), expected


def make(format: str) -> list[Stage]:
    types = {"t": pa.int16()}
    sizes = {"page_bytes": PAGE, "max_line_bytes": MAX_LINE}
    if format == "ndjson":
        return ndjson.reader(types=types, **sizes)
    return csv.reader(dialect=CsvDialect(b"\t" if format == "tsv" else b","), types=types, **sizes)


def run(format: str, on_error: str, pages: list[Page]) -> tuple[list[Reject], Counter[str], int]:
    kept: list[Reject] = []
    tolerance = Tolerance(on_error, None, kept.extend if on_error == "quarantine" else None)
    rows = sum(page.rows for page in run_stages([*make(format), tolerance], pages))
    return kept, tolerance.rejected, rows


def some_cuts(data: bytes) -> Iterator[list[Page]]:
    yield pages_of(data, ())
    for step in (7, 100, PAGE, PAGE + 1):
        yield pages_of(data, range(step, len(data), step))


KINDS = [(format, kind) for format in FORMATS for kind in bad_rows(format)]


@pytest.mark.parametrize(("format", "kind"), KINDS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_each_kind_by_itself(format: str, kind: str, end: bytes) -> None:
    data, ((line, byte, code, column),) = table(format, [kind], good=3, end=end)
    for pages in some_cuts(data):
        with pytest.raises(Refusal) as caught:
            run(format, "fail", pages)
        refusal = caught.value
        assert (refusal.line, refusal.byte, refusal.code, refusal.column) == (line, byte, code, column)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("good", [0, 1, 40])
def test_all_kinds_together(format: str, good: int) -> None:
    kinds = [*bad_rows(format), *(reversed(bad_rows(format)) if good < 40 else ())]
    data, expected = table(format, kinds, good=good)
    bad = bad_rows(format)
    texts = [bad[kind].text.decode(errors="replace")[:1000] for kind in kinds]
    counts = None
    for pages in some_cuts(data):
        kept, rejected, rows = run(format, "quarantine", pages)
        assert [(r.line, r.byte, r.code, r.column) for r in kept] == expected
        assert [reject.text for reject in kept] == texts
        assert run(format, "skip", pages)[1:] == (rejected, rows)
        assert rejected == Counter(code for _, _, code, _ in expected)
        assert counts in (None, rows)
        counts = rows
        with pytest.raises(Refusal) as caught:
            run(format, "fail", pages)
        assert (caught.value.line, caught.value.byte, caught.value.code, caught.value.column) == expected[0]


@given(st.data(), st.sampled_from(FORMATS))
@settings(max_examples=60, deadline=None)
def test_any_mixture_in_any_cut(data: st.DataObject, format: str) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(bad_rows(format))), max_size=6))
    text, expected = table(format, kinds, good=data.draw(st.integers(0, 20)))
    cuts = sorted(set(data.draw(st.lists(st.integers(1, len(text) - 1), max_size=12))))
    kept, _, _ = run(format, "quarantine", pages_of(text, cuts))
    assert [(r.line, r.byte, r.code, r.column) for r in kept] == expected


def test_a_long_record_at_the_end_is_bad_and_one_that_is_never_closed_is_refused() -> None:
    data, _ = table("csv", [], good=0)
    long = b"\n1,1.5,2020-01-31,true," + b"x" * 5000
    for pages in some_cuts(data + long):
        kept, _, _ = run("csv", "quarantine", pages)
        assert [(r.line, r.byte, r.code) for r in kept] == [(data.count(b"\n") + 2, len(data) + 1, "record_too_long")]
    for pages in some_cuts(data + long.replace(b",xxx", b',"xx') + b"\n1,2\n" * 1000):
        with pytest.raises(Refusal) as caught:
            run("csv", "quarantine", pages)
        assert (caught.value.code, caught.value.line) == ("record_too_long", data.count(b"\n") + 2)


@given(
    st.sampled_from([(b",", b'"'), (b";", b"'"), (b",", b"")]),
    st.lists(st.sampled_from([b'"', b'""', b",", b";", b"'", b"\n", b"a", b"\r\n"]), max_size=20).map(b"".join),
    st.integers(1, 5),
)
@settings(max_examples=400, deadline=None)
def test_the_end_of_a_record_in_pieces_is_its_end(dialect: tuple[bytes, bytes], text: bytes, step: int) -> None:
    quoting = Quoting(*dialect)
    record_end = quoting.record_end()
    found = 0
    for start in range(0, len(text), step):
        end = record_end.feed(text[start : start + step])
        if end:
            found = start + end
            break
    assert found == quoting.first_end(text)
    if not found:
        assert record_end.may_end == (quoting.unclosed(text) is None)
