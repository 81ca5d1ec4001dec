from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.page import Page
from app.framing import lines
from tests.conformance.check_stage import byte_cuts, check_memory, check_stage, pages_of, run_stages

KIB = 1024


def read(data: bytes, cuts: list[int] | range, *, page_bytes: int = 64, max_line_bytes: int = 1000) -> list[Page]:
    stages = lines.reader(page_bytes=page_bytes, max_line_bytes=max_line_bytes)
    return list(run_stages(stages, pages_of(data, cuts)))


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"\n\n\n", b"no newline", b"a\nbb\n\nccc\n", b"a\r\nb\rc\n\r\n", b"last\nwithout", b"\0\xff\n\xfe"],
)
def test_bytes_are_never_altered_whatever_the_cuts(data: bytes) -> None:
    found = check_stage(lambda: lines.reader(page_bytes=4, max_line_bytes=99), byte_cuts(data), page_bytes=32)
    assert found.content == data


@given(st.text("ab\n\r", max_size=40).map(str.encode), st.integers(1, 12), st.integers(1, 12))
def test_any_text_at_any_limits(data: bytes, page_bytes: int, max_line_bytes: int) -> None:
    found = check_stage(
        lambda: lines.reader(page_bytes=page_bytes, max_line_bytes=max_line_bytes),
        byte_cuts(data),
        page_bytes=page_bytes + max_line_bytes,
    )
    longest = max(map(len, data.split(b"\n")))
    assert (found.refusal is None) == (longest <= max_line_bytes)


def test_pages_are_whole_lines_and_tell_where_they_stand() -> None:
    data = b"".join(b"line %d\n" % i for i in range(100)) + b"the end"
    pages = read(data, range(7, len(data), 13))
    assert b"".join(page.payload for page in pages) == data
    assert sum(page.rows for page in pages) == 101
    for page in pages:
        assert data[page.byte : page.byte + page.nbytes] == page.payload
        assert page.line == 1 + data.count(b"\n", 0, page.byte)
        assert page.rows == bytes(page.payload).count(b"\n") + (page is pages[-1])
    assert all(bytes(page.payload).endswith(b"\n") for page in pages[:-1])


def test_a_large_page_is_cut_into_small_ones() -> None:
    pages = read(b"0123456\n" * 1000, [])
    assert max(page.nbytes for page in pages) <= 96
    assert len(pages) == 125


@pytest.mark.parametrize("cuts", [[], [3], [12], range(1, 40)])
def test_a_line_that_is_too_long_is_named(cuts: list[int] | range) -> None:
    with pytest.raises(Refusal, match="MAX_LINE") as caught:
        read(b"ok\nfine\n" + b"x" * 21 + b"\nmore\n" * 4, cuts, max_line_bytes=20)
    assert (caught.value.code, caught.value.line, caught.value.byte) == ("record_too_long", 3, 8)


def test_the_longest_line_passes_with_and_without_its_newline() -> None:
    for data in (b"x" * 20 + b"\n", b"x" * 20, b"\n" + b"x" * 20 + b"\n" + b"y" * 20):
        for cuts in ([], range(1, len(data))):
            assert b"".join(page.payload for page in read(data, cuts, max_line_bytes=20)) == data


def test_a_line_of_many_pieces_costs_no_quadratic_copies() -> None:
    # 8 MiB in 64-byte pieces: with a join for each piece, 512 GiB would be copied.
    stage = lines.reader(page_bytes=64 * KIB, max_line_bytes=16 * KIB * KIB)[0]
    piece = Page(b"x" * 64, 64)
    for _ in range(128 * KIB):
        assert list(stage.feed(piece)) == []
    assert sum(page.nbytes for page in stage.feed(Page(b"\n", 1))) == 8 * KIB * KIB + 1


def test_memory_stays_within_what_is_declared() -> None:
    data = (b"x" * 99 + b"\n") * 10 * KIB + b"y" * 300 * KIB + b"\n" + b"z" * 250 * KIB
    for size in (64 * KIB, 256 * KIB):
        make = lambda: lines.reader(page_bytes=256 * KIB, max_line_bytes=512 * KIB)  # noqa: E731
        check_memory(make, pages_of(data, range(size, len(data), size)))
