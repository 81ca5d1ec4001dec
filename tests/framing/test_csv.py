"""CSV: headers, types, quotes and line ends, bad rows with their places, every cut, memory, and the way back."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.interfaces import Stage
from app.framing.csv import reader, writer
from app.framing.dialect import CsvDialect
from app.framing.schema import parse_types
from tests.conformance.check_stage import (
    Outcome,
    byte_cuts,
    check_memory,
    check_stage,
    outcome_of,
    pages_of,
    run_stages,
    table_cuts,
)

PAGE = 4096
MIB = 1024 * 1024


def make(
    types: str = "", *, delimiter: bytes = b",", page_bytes: int = PAGE, max_line_bytes: int = PAGE
) -> list[Stage]:
    chosen: Mapping[str, Any] = parse_types(types) if types else {}
    return reader(dialect=CsvDialect(delimiter), page_bytes=page_bytes, max_line_bytes=max_line_bytes, types=chosen)


def read(data: bytes, types: str = "", delimiter: bytes = b",") -> Outcome:
    return check_stage(lambda: make(types, delimiter=delimiter), byte_cuts(data), page_bytes=PAGE)


def rows(data: bytes, types: str = "", delimiter: bytes = b",") -> list[dict[str, Any]]:
    outcome = read(data, types, delimiter)
    assert not outcome.rejects
    assert outcome.refusal is None
    names = {"datetime": datetime, "Decimal": Decimal}
    return eval(outcome.content[1], names)


def places(data: bytes, types: str = "") -> list[tuple[int, int, str, str | None]]:
    return [(r.line, r.byte, r.code, r.column) for r in read(data, types).rejects]


def test_quotes_newlines_and_line_ends() -> None:
    data = b'\xef\xbb\xbfa,"b ""c"""\r\n\r\n1,"x,\r\ny ""z"""\r\n2,\xc3\xbc\n3,""\n4,'
    assert rows(data) == [
        {"a": 1, 'b "c"': 'x,\r\ny "z"'},
        {"a": 2, 'b "c"': "ü"},
        {"a": 3, 'b "c"': ""},
        {"a": 4, 'b "c"': None},
    ]


def test_a_table_of_one_column_has_a_row_for_a_blank_line() -> None:
    assert rows(b"a\n1\n\n3\n") == [{"a": 1}, {"a": None}, {"a": 3}]


def test_header_alone_and_names_that_are_missing_or_twice() -> None:
    assert rows(b"a,b\n") == []
    assert list(rows(b"a,,a,a\n1,2,3,4\n")[0]) == ["a", "column1", "a_1", "a_2"]


def test_types_that_lose_nothing() -> None:
    data = b"id,zip,big,day,at,flag\n1,01234,12345678901234567890,2020-01-31,2020-01-31 10:00:00,true\n"
    assert rows(data) == [
        {
            "id": 1,
            "zip": "01234",
            "big": Decimal(12345678901234567890),
            "day": datetime.date(2020, 1, 31),
            "at": datetime.datetime(2020, 1, 31, 10),
            "flag": True,
        }
    ]


def test_types_that_the_user_sets() -> None:
    assert rows(b"a,b\n1,2\n", "a:decimal(9,2),b:varchar") == [{"a": Decimal("1.00"), "b": "2"}]
    assert read(b"a\n1\n", "nope:bigint").refusal == ("bad_argument", None, None, "nope")


def test_tabs() -> None:
    assert rows(b"a\tb\n1,5\tx\n", delimiter=b"\t") == [{"a": "1,5", "b": "x"}]


def test_bad_rows_tell_their_places() -> None:
    data = b'n,s\n1,a\nx,b\n2\n3,c,d\n4,\xff\n5,e\n6,open "quote\n7,f\r8,g\n9,h\n'
    assert places(data, "n:bigint") == [
        (3, 8, "bad_value", "n"),
        (4, 12, "ragged_row", None),
        (5, 14, "ragged_row", None),
        (6, 20, "bad_encoding", "s"),
        (9, 42, "ragged_row", None),
    ]


def test_a_bad_row_behind_many_good_ones() -> None:
    good = b"".join(b"%d,%d\n" % (n, n * 2) for n in range(20_000))
    data = b"a,b\n" + good + b"oops,1\n" + good
    stages = make(page_bytes=16 * 1024, max_line_bytes=1024)
    out = list(run_stages(stages, pages_of(data, range(10_000, len(data), 10_000))))
    rejects = [reject for page in out for reject in page.rejects]
    assert [(r.line, r.byte, r.text) for r in rejects] == [(20_002, 4 + len(good), "oops,1")]
    assert sum(page.rows for page in out) == 40_000


def test_a_quote_that_is_never_closed() -> None:
    outcome = read(b'a,b\n1,x\n2,"never closed\n3,y\n')
    assert [(r.line, r.byte, r.code) for r in outcome.rejects] == [(3, 8, "ragged_row")]


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", ("empty_input", None, None, None)),
        (b"\xef\xbb\xbf\r\n", ("empty_input", None, None, None)),
        (b"a,\xff\n1,2\n", ("bad_encoding", 1, 0, None)),
        (b'"a,b\n1,2\n', ("corrupt_input", 1, 0, None)),
        (b"a,b\n1," + b"x" * 50_000 + b"\n", ("record_too_long", 2, 4, None)),
    ],
)
def test_what_cannot_be_read_at_all(data: bytes, refusal: tuple[Any, ...]) -> None:
    cuts = [pages_of(data, ()), pages_of(data, range(3, len(data), 7))]
    assert check_stage(make, cuts).refusal == refusal


def test_a_number_out_of_range_is_bad_and_infinity_is_not() -> None:
    assert places(b"n\n1.5\n1e999\n") == [(3, 6, "bad_value", "n")]
    assert rows(b"n\n1.5\n-1e308\n")[1] == {"n": -1e308}


TABLE = pa.table(
    {
        "n": pa.array([1, None, -3], pa.int64()),
        "s": pa.array(['a "q", \r\n', None, ""]),
        "d": pa.array([0, None, 20000], pa.date32()),
        "f": pa.array([0.1, None, 1e300]),
        "b": pa.array([True, None, False]),
        "m": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(9, 2)),
        "l": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
    }
)


def test_what_is_written() -> None:
    outcome = check_stage(lambda: writer(delimiter=b",", page_bytes=PAGE), table_cuts(TABLE))
    assert outcome.content == (
        b"n,s,d,f,b,m,l\n"
        b'1,"a ""q"", \r\n",1970-01-01,0.1,true,1.50,"[1,2]"\n'
        b",,,,,,\n"
        b'-3,"",2024-10-04,1e+300,false,-2.25,"[]"\n'
    )


def test_an_empty_table_is_its_header() -> None:
    empty = TABLE.slice(0, 0).select(["n", "s"])
    assert check_stage(lambda: writer(delimiter=b"\t", page_bytes=PAGE), table_cuts(empty)).content == b"n\ts\n"


VALUES = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8))


@given(st.lists(st.tuples(VALUES, st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(values: list[tuple[str | None, int | None]]) -> None:
    table = pa.table({"s": [s for s, _ in values], "n": pa.array([n for _, n in values], pa.int64())})
    text = outcome_of(writer(delimiter=b",", page_bytes=PAGE), next(iter(table_cuts(table)))).content
    outcome = outcome_of(make("s:varchar,n:bigint"), pages_of(text, (len(text) // 2,)))
    assert not outcome.rejects
    assert outcome.content[1] == repr(table.to_pylist())


def test_memory_stays_within_what_is_declared() -> None:
    page = MIB // 4
    narrow = b"a,b\n" + b"1,2\n" * (MIB // 2)
    wide = b",".join(b"column%d" % n for n in range(100)) + b"\n"
    wide += (b",".join(b"%d.5" % n for n in range(100)) + b"\n") * 4000
    texts = b"a,b,c\n" + b'some words,"quoted ""words""",\xc3\xbc\n' * 60_000
    bad = b"a,b\n" + b"1,2\nx,2\n" * (MIB // 8)
    for data in (narrow, wide, texts, bad):
        pages = pages_of(data, range(page, len(data), page))
        # What is cut comes in pages of the source, what is parsed goes in those of the flow.
        check_memory(lambda: make(page_bytes=page, max_line_bytes=page)[:1], pages, page_bytes=page)
        check_memory(lambda: make(page_bytes=page, max_line_bytes=page), pages, page_bytes=2 * page)


@pytest.mark.parametrize("text", [b"x" * 20, b"x" * 300, b'"a ""quoted"" word"'])
def test_rows_that_become_larger_than_those_before_still_come_in_pages(text: bytes) -> None:
    """Where blocks end is a guess by what earlier ones came to."""
    short, long = b"1,2,3,4,5,6,7,8,\n", b"1,2,3,4,5,6,7,8," + text + b"\n"
    data = b"a,b,c,d,e,f,g,h,t\n" + short * 6000 + long * 600
    pages = pages_of(data, range(PAGE, len(data), PAGE))
    [cut, parse] = make("t:varchar")
    blocks, made = [], []
    for block in run_stages([cut], pages, at_once=2):
        blocks.append(block)
        made += list(parse.feed(block))
    assert len(made) > len(blocks)  # so that there was something to find out
    assert max(page.nbytes for page in made) <= 2 * PAGE + 64 * 9
    # With nothing in the texts more went into a block than with all that could be there.
    assert max(block.rows for block in blocks) > 1.1 * blocks[0].rows
    assert sum(page.rows for page in made) == 6600
    places = [(page.line, page.byte, page.rows) for page in made]
    assert all(line + rows == after for (line, _, rows), (after, _, _) in itertools.pairwise(places))
    assert all(data.count(b"\n", 0, byte) + 1 == line for line, byte, _ in places)
    assert check_stage(lambda: make("t:varchar"), [pages], page_bytes=PAGE).rejects == ()


def test_bad_rows_of_a_block_that_is_taken_in_parts_tell_their_places() -> None:
    lines = [b"%d,%d\n" % (n % 7, n) if n % 400 != 399 else b"x,%d\n" % n for n in range(6000)]
    data = b"a,b\n" + b"".join(lines)
    streams = [pages_of(data, range(size, len(data), size)) for size in (1000, PAGE, 2 * PAGE)]
    outcome = check_stage(lambda: make("a:bigint"), streams, page_bytes=PAGE)
    places = [(reject.line, reject.byte, reject.code) for reject in outcome.rejects]
    assert places == [(n + 2, 4 + sum(map(len, lines[:n])), "bad_value") for n in range(6000) if n % 400 == 399]
    [cut, parse] = make("a:bigint")
    blocks = list(run_stages([cut], streams[1], at_once=2))
    assert max(len(list(parse.feed(block))) for block in blocks) > 1
