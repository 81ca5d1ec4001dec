"""How a case is sent, in pieces, and what comes of it, beside what may come of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tests.web.protocol.corpus import REFUSALS, Case
from tests.web.protocol.echo_server import EchoServer
from tests.web.protocol.raw_client import RawClient

PROBE = b"GET /still-there HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
MOST_BYTE_BY_BYTE = 4096


@dataclass(frozen=True)
class Outcome:
    seen: tuple[dict[str, Any], ...]
    """Of each request that was answered: what the app saw of it."""
    refusal: int | None
    end: str
    """``kept``, ``closed``, ``refused`` or ``unfinished``."""
    given: tuple[dict[str, Any], ...]
    """What the app was given, whether it was answered or not."""


def whole(case: Case) -> list[bytes]:
    return [case.raw]


def byte_by_byte(case: Case) -> list[bytes]:
    """Large cases are sent whole."""
    if len(case.raw) > MOST_BYTE_BY_BYTE:
        return [case.raw]
    return [case.raw[at : at + 1] for at in range(len(case.raw))]


def at_random_places(case: Case) -> list[bytes]:
    numbers = random.Random(case.name)
    places = sorted(numbers.randrange(len(case.raw) + 1) for _ in range(numbers.randint(2, 7)))
    return [case.raw[start:stop] for start, stop in zip([0, *places], [*places, len(case.raw)], strict=True)]


CUTS = (whole, byte_by_byte, at_random_places)


def exchange(server: EchoServer, case: Case, pieces: list[bytes]) -> Outcome:
    """Send the pieces, read answers until the connection ends. If it may be used again, it is used once more."""
    with RawClient(server.port) as client:
        client.send_pieces(piece for piece in pieces if piece)
        seen: list[dict[str, Any]] = []
        refusal, end = None, ""
        while not end:
            if len(seen) == len(case.sees) and "unfinished" in case.ends:
                client.send_no_more()
            elif len(seen) == len(case.sees) and "kept" in case.ends:
                client.send_all(PROBE)
            answer = client.next_answer()
            if answer is None:
                end = "unfinished" if "unfinished" in case.ends else "closed"
            elif answer.status != 200:
                assert answer.status in REFUSALS, answer
                assert len(seen) < len(case.sees) or "kept" not in case.ends, "what came behind the request is refused"
                refusal, end = answer.status, "refused"
                assert client.next_answer() is None, "the connection goes on after a refusal"
            elif (request := answer.seen())["target"] == "/still-there":
                assert client.next_answer() is None
                end = "kept"
            else:
                assert len(seen) < len(case.sees), f"one answer too many: {request}"
                seen.append(request)
        assert set(client.interim) <= ({100} if b"expect" in case.raw.lower() else set())
        port = client.socket.getsockname()[1]
    given = [request for request in server.seen() if request["client_port"] == port and request["complete"]]
    given = [request for request in given if request["target"] != "/still-there"]
    for request in (*seen, *given):
        del request["client_port"]
        if "trailer" in case.name:
            # Stock uvicorn adds the trailers to the scope's headers, sooner or later.
            del request["fields"]
    return Outcome(tuple(seen), refusal, end, tuple(given))


def judge(case: Case, outcome: Outcome) -> None:
    for seen, expected in zip(outcome.seen, case.sees, strict=False):
        told = (seen["method"], seen["target"], seen["length"], seen["sha256"])
        digest = sha256(expected.body).hexdigest()
        assert told == (expected.method, expected.target, len(expected.body), digest), f"not {expected}"
    if len(outcome.seen) == len(case.sees):
        assert outcome.end in case.ends or ("unfinished" in case.ends and outcome.end == "refused"), outcome.end
    elif outcome.end == "refused":
        assert case.ends > {"refused"}, f"refused with {outcome.refusal}, and {len(outcome.seen)} answers before"
    else:
        assert outcome.end == "closed", outcome.end
        assert outcome.seen, "the connection ends without an answer"
        assert "closed early" in case.ends, "the connection ends without the last answer"
