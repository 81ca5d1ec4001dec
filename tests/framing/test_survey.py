"""``infer=full``: the types of all rows, exactly, whatever blocks they are found in."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page
from app.framing import csv, ndjson
from app.framing.dialect import CsvDialect
from app.framing.survey import two_passes
from app.framing.widening import unmarked, widened
from tests.conformance.check_stage import Outcome, check_memory, outcome_of, pages_of

PAGE = 4096
MIB = 1 << 20


class Input:
    """See ``RandomAccess``."""

    def __init__(self, data: bytes) -> None:
        self.data, self.nbytes = data, len(data)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        return self.data[offset : offset + nbytes]


class Several(Input):
    """See ``ReadsSeveral``."""

    def read_several(self, places: list[tuple[int, int]]) -> list[bytes]:
        return [self.read_at(*place) for place in places]


def read(
    data: bytes, format: str = "csv", *, piece_bytes: int = 64, page_bytes: int = PAGE, input: Any = Input
) -> Outcome:
    """What two passes over ``data``, in pieces of so many bytes, come to."""
    sizes = {"page_bytes": page_bytes, "max_line_bytes": page_bytes}
    if format == "csv":
        *cut, survey = csv.surveyor(dialect=CsvDialect(), **sizes)
        stages = csv.reader(dialect=CsvDialect(), types={}, survey=survey, **sizes)
    else:
        *cut, survey = ndjson.surveyor(**sizes)
        stages = ndjson.reader(types={}, survey=survey, **sizes)
    try:
        pages = [page for page in two_passes(input(data), [*cut, survey], piece_bytes) if page.nbytes]
    except Refusal as refusal:
        return Outcome(None, (), (refusal.code, refusal.line, refusal.byte, refusal.column))
    assert b"".join(page.payload for page in pages) == data
    return outcome_of(stages, pages)


def types(data: bytes, format: str = "csv", **options: Any) -> dict[str, str]:
    outcome = read(data, format, **options)
    assert outcome.refusal is None
    assert not outcome.rejects
    lines = (line.split(": ", 1) for line in outcome.content[0].splitlines() if not line.startswith(" "))
    return {name: type_ for name, type_ in lines}  # noqa: C416


def column(*values: str, padding: int = 40) -> bytes:
    """A CSV file of two columns, in which each value stands in a page of its own."""
    filler = "x" * padding
    return ("a,b\n" + "".join(f"{value},{filler}\n" for value in values)).encode()


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (("1", "2"), "int64"),
        (("1", "2.5"), "double"),
        (("9007199254740993", "2.5"), "string"),
        (("9007199254740992", "2.5"), "double"),
        (("1", "12345678901234567890"), "decimal128(38, 0)"),
        (("12345678901234567890", "2.5"), "string"),
        (("1", "1" * 39), "string"),
        (("1", "x"), "string"),
        (("1", "01"), "string"),
        (("1", "+1"), "string"),
        (("1.5", "01.5"), "string"),
        (("1.5", "1e400"), "string"),
        (("1.5", "inf"), "double"),
        (("true", "false"), "bool"),
        (("true", "1"), "string"),
        (("1", "true"), "string"),
        (("", "2020-01-31", ""), "date32[day]"),
        (("2020-01-31", "2020-01-31 10:00:00"), "timestamp[s]"),
        (("2020-01-31", "2020-01-31 10:00:00.5"), "timestamp[ns]"),
        (("9999-12-31", "2020-01-31 10:00:00"), "timestamp[s]"),
        (("9999-12-31", "2020-01-31 10:00:00.5"), "string"),
        (("9999-12-31 00:00:00", "2020-01-31 10:00:00.5"), "string"),
        (("2020-01-31 10:00:00", "2020-01-31 10:00:00Z"), "string"),
        (("2020-01-31 10:00:00Z", "2020-01-31 10:00:00.25Z"), "timestamp[ns, tz=UTC]"),
        (("2020-01-31", "2020-01-31 10:00:00Z"), "string"),
        (("10:00:00", "10:00:00.5"), "string"),
        (("", ""), "string"),
    ],
)
def test_csv_columns_widen_exactly(values: tuple[str, ...], type_: str) -> None:
    for order in set(itertools.permutations(values)):
        for piece_bytes in (45, 10_000):
            # A block of a value each, as the pieces are cut so that PAGE_BYTES is reached early; and one of all.
            assert types(column(*order), piece_bytes=piece_bytes)["a"] == type_
            assert types(column(*order, padding=5000), page_bytes=MIB // 16, piece_bytes=4000)["a"] == type_


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (("1", "2.5"), "double"),
        (("9007199254740993", "2.5"), "decimal128(38, 18)"),
        (("1", "12345678901234567890"), "decimal128(38, 0)"),
        (("12345678901234567890", "0.5"), "decimal128(38, 18)"),
        (('"2020-01-31"', "null", '"2020-02-01"'), "date32[day]"),
        (('"2020-01-31"', '"x"'), "string"),
        (('"2020-01-31"', '"2020-01-31T10:00:00"'), "string"),
        (('{"x":1}', '{"y":"z"}', '{"x":2.5}'), "struct<"),
        (("[1]", "[2.5]", "[]"), "list<item: double>"),
        (("null", "null"), "string"),
    ],
)
def test_ndjson_columns_widen_exactly(values: tuple[str, ...], type_: str) -> None:
    for order in itertools.permutations(values):
        for padding, page_bytes in ((1, PAGE), (5000, MIB // 16)):
            data = "".join(f'{{"a":{value},"b":"{"x" * padding}"}}\n' for value in order).encode()
            assert types(data, "ndjson", page_bytes=page_bytes, piece_bytes=4000)["a"].startswith(type_)


def test_columns_that_come_late_are_columns() -> None:
    data = b'{"a":1}\n' * 2000 + b'{"b":{"c":[1]}}\n' + b'{"b":{"d":"x"}}\n'
    outcome = read(data, "ndjson")
    assert not outcome.rejects
    assert eval(outcome.content[1])[-2:] == [
        {"a": None, "b": {"c": [1], "d": None}},
        {"a": None, "b": {"c": None, "d": "x"}},
    ]


def test_a_number_and_a_text_have_nothing_in_common_in_json() -> None:
    data = b'{"a":1}\n' * 2000 + b'{"a":"x"}\n'
    assert [(r.line, r.code, r.column) for r in read(data, "ndjson").rejects] == [(2001, "bad_value", "a")]


def test_bad_rows_do_not_count() -> None:
    data = b"a,b\n1,2\n" + b"3\nx,y,z\n\xff,4\n5,6\r7,8\n" + b"9,10\n"
    outcome = read(data)
    assert [(r.line, r.byte, r.code) for r in outcome.rejects] == [
        (3, 8, "ragged_row"),
        (4, 10, "ragged_row"),
        (5, 16, "bad_encoding"),
        (6, 20, "ragged_row"),
    ]
    assert eval(outcome.content[1]) == [{"a": "1", "b": 2}, {"a": "9", "b": 10}]
    lines = b'{"a":1}\n{"a":\n[2]\n{"a":"\xff"}\n{"a":' + b"[" * 100 + b"]" * 100 + b'}\n{"a":2.5}\n'
    assert [(r.line, r.code) for r in read(lines, "ndjson").rejects] == [
        (2, "bad_json"),
        (3, "bad_json"),
        (4, "bad_encoding"),
        (5, "bad_value"),
    ]


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", ("empty_input", None, None, None)),
        (b"a,b\n1," + b"x" * 50_000 + b"\n", ("record_too_long", 2, 4, None)),
    ],
)
def test_what_cannot_be_read_is_told_by_the_first_pass(data: bytes, refusal: tuple[Any, ...]) -> None:
    assert read(data).refusal == refusal


def test_a_header_alone_and_inputs_that_give_several_pieces() -> None:
    assert types(b"a,b\n") == {"a": "string", "b": "string"}
    data = b"a\n" + b"1\n" * 500 + b"2.5\n"
    assert types(data, input=Several) == types(data) == {"a": "double"}


def test_an_input_that_ends_too_early_is_not_taken_for_whole() -> None:
    input = Input(b"a\n1\n2\n")
    input.nbytes = 100
    with pytest.raises(Refusal, match="too early"):
        list(two_passes(input, [], 64))


NUMBERS = ("1", "-7", "0", "9007199254740993", "12345678901234567890", "1" * 40, "2.5", "1e5", "1e400", "007", "+3")
MOMENTS = ("2020-01-31", "9999-12-31", "2020-01-31 10:00:00", "2020-01-31 10:00:00.5", "2020-01-31T10:00:00Z", "10:00")
VALUE = st.sampled_from(["", "true", "x y", *NUMBERS, *MOMENTS])


@given(st.lists(VALUE, min_size=1, max_size=8), st.randoms())
@settings(max_examples=100, deadline=None)
def test_types_do_not_depend_on_the_order_and_every_value_fits(values: list[str], random: Any) -> None:
    shuffled = values[:]
    random.shuffle(shuffled)
    apart = column(*shuffled, padding=700)
    assert types(column(*values))["a"] == types(apart, piece_bytes=600, page_bytes=1024)["a"]


SIMPLE = [
    *(pa.null(), pa.int32(), pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(38, 0), pa.decimal128(38, 18)),
    *(pa.bool_(), pa.date32(), pa.date64(), pa.time32("s"), pa.string()),
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "ns") for zone in (None, "UTC")),
]
TYPES = st.sampled_from(SIMPLE).flatmap(lambda t: st.sampled_from([t, pa.list_(t), pa.struct([("x", t)])]))


@given(TYPES, TYPES, TYPES)
@settings(max_examples=300, deadline=None)
def test_widening_is_a_join(a: pa.DataType, b: pa.DataType, c: pa.DataType) -> None:
    assert widened(a, a) == a
    assert widened(a, b) == widened(b, a)
    ab, bc = widened(a, b), widened(b, c)
    if ab is not None and bc is not None:
        assert widened(ab, c) == widened(a, bc)
    assert unmarked(unmarked(a)) == unmarked(a)


def full_pages(data: bytes, page: int) -> list[Page]:
    return pages_of(data, range(page, len(data), page))


def test_memory_stays_within_what_is_declared() -> None:
    page = MIB // 4
    narrow = b"a,b\n" + b"1,2\n" * (MIB // 4)
    doubles = b"a,b\n" + b".5,1.\n" * (MIB // 4)
    wide = b",".join(b"column%d" % n for n in range(100)) + b"\n"
    wide += (b",".join(b"%d.5" % n for n in range(100)) + b"\n") * 2500
    texts = b"a,b,c\n" + b'some words,"quoted ""words""",\xc3\xbc\n' * 30_000
    for data in (narrow, doubles, wide, texts):
        check_memory(
            lambda: csv.surveyor(dialect=CsvDialect(), page_bytes=page, max_line_bytes=page),
            full_pages(data[: 3 * page], page),
            page_bytes=2 * page,
        )
    lines = b'{"a":1,"b":[1,2]}\n' * (MIB // 16)
    late = b'{"a":1}\n' * (MIB // 32) + b'{"a":"x"}\n{"a":2.5}\n' * (MIB // 32)
    for data in (lines, late):
        check_memory(
            lambda: ndjson.surveyor(page_bytes=page, max_line_bytes=page),
            full_pages(data[: 3 * page], page),
            page_bytes=2 * page,
        )
