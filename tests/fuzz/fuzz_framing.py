"""A coverage-guided fuzzer of what reads heads and bodies off the wire: ``make fuzz``, FUZZ_SECONDS of it.

Whatever the bytes and however they are cut: nothing is raised but a refusal, the payload is what a plain reader of the
grammar makes of it, and it does not depend on the cuts.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["app.web.protocol"]):
    from app.web.protocol.body import Body
    from app.web.protocol.chunked import BadFraming
    from app.web.protocol.head import BadHead, HeadReader
    from app.web.protocol.pages import PagePool

from app.framing.native import LIBRARIES
from tests.web.protocol import reference

BY_C_OR_NOT = [None, *LIBRARIES]
POOL = PagePool(64 * 1024, keep_bytes=1 << 20)


def read_body(raw: bytes, length: int | None, cuts: bytes) -> tuple[bytes, bool, bytes, bool]:
    """Payload, whether it ended, what stands behind it, and whether it was refused."""
    payload, at, number = bytearray(), 0, 0
    try:
        early = cuts[0] if cuts else 0
        body = Body(length, POOL, raw[:early], library=BY_C_OR_NOT[early % len(BY_C_OR_NOT)])
        at = min(early, len(raw))
        while not body.ended and at < len(raw):
            room = body.room()
            assert len(room) > 0
            nbytes = min(len(room), 1 + (cuts[number % len(cuts)] if cuts else 254), len(raw) - at)
            room[:nbytes] = raw[at : at + nbytes]
            body.add(nbytes)
            at, number = at + nbytes, number + 1
            if number % 2:
                while (page := body.take()) is not None:
                    payload += page
            while body.is_full or number % 3 == 0:
                some = body.take_some()
                if some is None:
                    break
                payload += some
    except BadFraming:
        return bytes(payload), False, b"", True
    while (page := body.take_some()) is not None:
        payload += page
    assert body.received_bytes == len(payload)
    return bytes(payload), body.ended, body.rest + (raw[at:] if body.ended else b""), False


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    kind = provider.ConsumeIntInRange(0, 2)
    cuts = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 8))
    if kind == 0:
        length = provider.ConsumeIntInRange(0, 300)
        raw = provider.ConsumeBytes(provider.remaining_bytes())
        payload, ended, behind, refused = read_body(raw, length, cuts)
        assert (payload, ended, refused) == (raw[:length], len(raw) >= length, False)
        assert behind == (raw[length:] if ended else b"")
    elif kind == 1:
        raw = provider.ConsumeBytes(provider.remaining_bytes())
        expected, behind, bad = reference.read(raw)
        payload, ended, rest, refused = read_body(raw, None, cuts)
        if bad != refused:
            # A line that cannot become right may be refused before its end, and is at its end at the latest.
            refused = refused or read_body(raw + b"\r\n", None, cuts)[3]
            bad = bad or reference.read(raw + b"\r\n")[2]
        assert refused == bad, (raw, refused, bad)
        if not bad:
            assert (payload, ended, rest) == (expected, behind is not None, behind or b"")
    else:
        raw = provider.ConsumeBytes(provider.remaining_bytes())
        assert read_head(raw, b"") == read_head(raw, cuts), raw


def read_head(raw: bytes, cuts: bytes) -> object:
    reader, at, number = HeadReader(), 0, 0
    while at < len(raw):
        nbytes = 1 + cuts[number % len(cuts)] if cuts else len(raw)
        piece = raw[at : at + nbytes]
        at, number = at + len(piece), number + 1
        try:
            found = reader.feed(piece)
        except BadHead:
            return "refused"
        if found is not None:
            head, behind = found
            return head, behind + raw[at:]
    return None


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
