"""Where CSV records end, against a reference that goes byte by byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.framing.quotes import Quoting
from tests.framing.native import each_build

__all__ = ["each_build"]


def record_ends(text: bytes) -> list[int]:
    """RFC 4180, one byte at a time; a quote within an unquoted field stands for itself."""
    ends: list[int] = []
    quoted, field_begins = False, True
    at = 0
    while at < len(text):
        byte = text[at : at + 1]
        at += 1
        if quoted:
            if byte == b'"' and text[at : at + 1] == b'"':
                at += 1
            elif byte == b'"':
                quoted = False
        elif byte == b'"' and field_begins:
            quoted = True
        elif byte == b"\n":
            ends.append(at)
        field_begins = not quoted and byte in (b",", b"\n")
    return ends


@given(st.lists(st.sampled_from([b'"', b'""', b",", b"\n", b"a", b"\r\n"]), max_size=30).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_records_end_where_they_end(text: bytes) -> None:
    quoting = Quoting(b",")
    ends = record_ends(text)
    last = ends[-1] if ends else 0
    assert quoting.index(text)(0, len(text)) == last
    assert quoting.index(text)(0, len(text) + 100) == last
    assert quoting.first_end(text) == (ends[0] if ends else 0)
    assert [end for _, end in quoting.records(text[:last])] == ends


def test_very_many_parts_in_one_record() -> None:
    for text in (b'"' + b'""' * 5000 + b'"\n', b'a"' * 5000 + b"\n", b'"x",' * 5000 + b'a"b\n'):
        assert Quoting(b",").index(text * 3)(0, 3 * len(text)) == 3 * len(text)
        assert Quoting(b",").first_end(text * 3) == len(text)
