"""Every case of the corpus, over a socket, against uvicorn's own protocol and against ours, cut in three ways.

A case is refused, or its body is the one that the corpus and stock uvicorn say; the cuts do not matter; nothing hangs;
nothing behind a refusal is answered, nor given to the app.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.protocol.corpus import CASES, Case, chunked, get, post
from tests.web.protocol.echo_server import EchoServer, echoing
from tests.web.protocol.outcomes import CUTS, PROBE, at_random_places, byte_by_byte, exchange, judge, whole
from tests.web.protocol.raw_client import RawClient

WAITS_FOR_EVER = "it reads on for ever, and answers nothing"
PASSES_OVER = "what comes in the same piece behind a request with Upgrade is passed over"
STOCK_DIFFERS = {
    "chunked-endless-": WAITS_FOR_EVER,
    "upgrade-": PASSES_OVER,
    "chunked-trailer-connection-close": "after a trailer Connection: close it answers nothing any more",
}
"""Where stock uvicorn does not do what the corpus says, by how the names of the cases begin."""
OURS_TAKES_MORE = {"target-absolute-form-without-path": "RFC 9112, section 3.2.2: the path of http://t is /"}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    with echoing("stock", tmp_path_factory.mktemp("stock")) as server:
        yield server


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    with echoing("ours", tmp_path_factory.mktemp("ours")) as server:
        yield server


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ours(case: Case, ours: EchoServer, stock: EchoServer) -> None:
    outcomes = [exchange(ours, case, cut(case)) for cut in CUTS]
    for outcome in outcomes:
        judge(case, outcome)
        assert outcome.given == outcome.seen, "the app was given what was not answered"
    assert all(outcome == outcomes[0] for outcome in outcomes), "the answers depend on how the bytes were cut"
    if not case.name.startswith((*STOCK_DIFFERS, *OURS_TAKES_MORE)):
        given_by_stock = exchange(stock, case, byte_by_byte(case)).given
        assert outcomes[0].given == given_by_stock[: len(outcomes[0].given)], (
            "stock uvicorn gives the app something else"
        )
    assert not ours.errors()


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.name.startswith(tuple(STOCK_DIFFERS))], ids=lambda case: case.name
)
def test_stock_uvicorn(case: Case, stock: EchoServer) -> None:
    """The corpus is right about a server that others have tested. Pieces that hold several requests are left out: where
    the last of them is bad, stock uvicorn refuses it before it answers those before it."""
    outcomes = (exchange(stock, case, byte_by_byte(case)) for _ in range(5))
    # What a busy machine has received meanwhile is one piece again.
    alone = (one for one in outcomes if one.end != "refused" or len(one.seen) == len(case.sees) or not case.sees)
    judge(case, next(alone, None) or exchange(stock, case, byte_by_byte(case)))
    if len(case.sees) < 2 and "refused" not in case.ends:
        for cut in (whole, at_random_places):
            judge(case, exchange(stock, case, cut(case)))
    assert not stock.errors()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_that_awaits_100_continue_gets_it(framing: str, ours: EchoServer) -> None:
    fields = ("Expect: 100-continue", "Content-Length: 5" if framing == "length" else "Transfer-Encoding: chunked")
    with RawClient(ours.port) as client:
        client.send_all(post(*fields))
        client.await_interim(100)
        client.send_all(b"hello" if framing == "length" else b"5\r\nhello\r\n0\r\n\r\n")
        answer = client.next_answer()
        assert answer is not None
        assert answer.seen()["length"] == 5
        client.send_all(PROBE)
        answer = client.next_answer()
        assert answer is not None
        assert answer.seen()["target"] == "/still-there"


def test_a_refusal_is_read_although_much_more_was_sent(ours: EchoServer) -> None:
    """A connection that is closed over unread bytes is reset, and a reset can overtake the answer."""
    with RawClient(ours.port) as client:
        client.send_all(chunked(b"x\r\n") + get() * 100_000)
        answer = client.next_answer()
        assert answer is not None
        assert answer.status == 400
        assert client.next_answer() is None


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CASES) > 600
    assert len({case.name for case in CASES}) == len(CASES)
