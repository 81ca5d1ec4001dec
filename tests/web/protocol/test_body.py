"""Bodies, without sockets: what comes out is the same however the bytes were cut, and is what the grammar says."""

from __future__ import annotations

import ctypes
import gc
import random
import threading

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.framing.native import LIBRARIES
from app.web.protocol.body import AHEAD_PAGES, Body
from app.web.protocol.chunked import BadFraming, Chunked
from app.web.protocol.pages import PagePool
from tests.web.protocol import reference

PAGE_BYTES = 64 * 1024
BY_C_OR_NOT = st.sampled_from([None, *LIBRARIES])


def receive(body: Body, raw: bytes, cuts: list[int], take: bool = True) -> tuple[bytes, bool]:
    """Give ``raw`` to the body in pieces; its payload, and whether it was refused."""
    payload, at, number = bytearray(), 0, 0
    try:
        while not body.ended and at < len(raw):
            room = body.room()
            assert len(room) > 0
            nbytes = min(len(room), max(1, cuts[number % len(cuts)]), len(raw) - at)
            room[:nbytes] = raw[at : at + nbytes]
            body.add(nbytes)
            at, number = at + nbytes, number + 1
            while take and (page := body.take() if number % 3 else body.take_some()) is not None:
                assert page.readonly
                payload += page
    except BadFraming:
        return bytes(payload), True
    while (page := body.take_some()) is not None:
        payload += page
    body.rest += raw[at:] if body.ended else b""
    return bytes(payload), False


def chunks(pieces: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return framed + b"0\r\n" + trailer + b"\r\n"


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=20),
    st.sampled_from([b"", b";a", b';name="quo\\"ted"', b";a=b;c"]),
    st.sampled_from([b"", b"Digest: x\r\n", b"A:\r\nB: \xff\r\n"]),
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.integers(0, 500),
    BY_C_OR_NOT,
)
def test_chunked_is_its_pieces(
    pieces: list[bytes], extension: bytes, trailer: bytes, cuts: list[int], early: int, library: ctypes.CDLL | None
) -> None:
    raw = chunks(pieces, extension, trailer) + b"behind"
    # What came with the head may be more than a page.
    body = Body(None, PagePool(256, keep_bytes=0), raw[:early], library=library)
    payload, refused = receive(body, raw[early:], cuts)
    assert (payload, refused, body.ended, body.rest) == (b"".join(pieces), False, True, b"behind")
    assert body.received_bytes == len(payload)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_whatever_comes_is_read_as_the_grammar_says(data: st.DataObject) -> None:
    """Right bodies with bytes changed, put in and taken out."""
    raw = bytearray(
        chunks(data.draw(st.lists(st.binary(max_size=20), max_size=4)), data.draw(st.sampled_from([b"", b";a=b"])))
    )
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b";", b'"', b" ", b"0", b"f", b"\x00", b"a:b\r\n"])
        )
    expected, behind, bad = reference.read(bytes(raw))
    cuts = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    body = Body(None, PagePool(PAGE_BYTES, keep_bytes=0), library=data.draw(BY_C_OR_NOT))
    payload, refused = receive(body, bytes(raw), cuts)
    if bad != refused:
        # A line that cannot become right may be refused before its end, and is at its end at the latest.
        refused = refused or receive(body, b"\r\n", [2])[1]
        bad = bad or reference.read(bytes(raw) + b"\r\n")[2]
    assert refused == bad
    if not bad:
        assert payload == expected
        assert body.ended == (behind is not None)
        assert body.rest == (behind or b"")


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 5 * PAGE_BYTES),
    st.lists(st.integers(1, 2 * PAGE_BYTES), min_size=1, max_size=6),
    st.integers(0, PAGE_BYTES),
    st.sampled_from([4096, PAGE_BYTES]),
)
@example(PAGE_BYTES + 1, [1], PAGE_BYTES, PAGE_BYTES)
@example(3 * PAGE_BYTES, [PAGE_BYTES], PAGE_BYTES - 1, 4096)
def test_a_body_of_a_length_ends_where_it_says(length: int, cuts: list[int], early: int, page_bytes: int) -> None:
    raw = random.Random(length).randbytes(length) + b"behind"
    body = Body(length, PagePool(page_bytes, keep_bytes=0), raw[:early])
    payload, refused = receive(body, raw[early:], cuts)
    assert (payload == raw[:length], refused, body.ended, body.rest) == (True, False, True, b"behind")


@pytest.mark.parametrize("library", [None, *LIBRARIES])
def test_a_flood_of_tiny_chunks_is_read_in_small_turns(library: ctypes.CDLL | None) -> None:
    body = Body(None, PagePool(1 << 20, keep_bytes=0), library=library)
    flood = b"1\r\nx\r\n" * 10_000
    body.room()[: len(flood)] = flood
    body.add(len(flood))
    assert len(body.room()) <= 16 * 1024
    chunk = b"4000\r\n" + bytes(16384 - 8)
    body.room()[: len(chunk)] = chunk
    body.add(len(chunk))
    assert len(body.room()) > 256 * 1024


@pytest.mark.parametrize("library", [None, *LIBRARIES])
@pytest.mark.parametrize(
    "raw",
    [
        b"1;" + b"a" * 20_000,
        b"1;a\r\nx\r\n" * 20_000,
        b"0\r\n" + b"a: b\r\n" * 5_000,
        b"0\r\na: " + b"b" * 20_000,
        b"1" * 16,
        b"5 \r\nhello\r\n",
        b"5\nhello\n",
        b"2\r\nxyz",
    ],
)
def test_floods_and_bad_lines_are_refused_before_they_end(raw: bytes, library: ctypes.CDLL | None) -> None:
    def decode(step: int) -> None:
        decoder = Chunked(library)
        for start in range(0, len(raw), step):
            piece = bytearray(raw[start : start + step])
            decoder.take(memoryview(piece), 0, len(piece))

    for step in (1, 1000, len(raw)):
        with pytest.raises(BadFraming):
            decode(step)


def test_it_is_full_with_two_pages_and_gives_them_in_order() -> None:
    body = Body(4 * PAGE_BYTES, PagePool(PAGE_BYTES, keep_bytes=0))
    for number in range(AHEAD_PAGES):
        assert not body.is_full
        body.room()[:] = bytes([number]) * PAGE_BYTES
        body.add(PAGE_BYTES)
    assert body.is_full
    assert [body.take() == bytes([number]) * PAGE_BYTES for number in range(2)] == [True, True]
    assert body.take() is None


def test_a_page_is_lent_again_only_when_nothing_refers_to_it() -> None:
    pool = PagePool(PAGE_BYTES, keep_bytes=PAGE_BYTES)
    page = pool.lend()
    page[:5] = b"hello"
    arrow = pa.py_buffer(page[:5].toreadonly())
    text = page[1:3]
    del page
    gc.collect()
    assert pool.statistics().leased_bytes == PAGE_BYTES
    del text
    assert (pool.statistics().leased_bytes, arrow.to_pybytes()) == (PAGE_BYTES, b"hello")
    # The last to let go may be a thread.
    holder = [arrow]
    del arrow
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    assert (pool.statistics().leased_bytes, pool.statistics().free_bytes) == (0, PAGE_BYTES)
    assert bytes(pool.lend()[:5]) == b"hello"
    two = [pool.lend(), pool.lend()]
    del two
    assert pool.statistics().free_bytes == PAGE_BYTES
