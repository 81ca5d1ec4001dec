from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.framing.multipart import FilePart

TYPE = 'multipart/form-data; boundary="xyz"'


def form(*parts: tuple[str, bytes]) -> bytes:
    pieces = [b"--xyz\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts]
    return b"".join(pieces) + b"--xyz--\r\n"


FIELD = ('Content-Disposition: form-data; name="note"', b"hello")
FILE = (
    'Content-Disposition: form-data; name="file"; filename="a b.csv"\r\nContent-Type: text/csv',
    b"a,b\r\n--xy\r\n1,2",
)
SECOND = ('Content-Disposition: form-data; name="more"; filename="z"', b"not this")


def read(data: bytes, cuts: list[int]) -> tuple[bytes, FilePart]:
    part = FilePart(TYPE)
    edges = [0, *sorted(cuts), len(data)]
    pieces = [piece for start, end in itertools.pairwise(edges) for piece in part.feed(data[start:end])]
    part.finish()
    return b"".join(pieces), part


def test_the_file_comes_out_wherever_the_body_is_cut() -> None:
    data = form(FIELD, FILE, SECOND)
    for cuts in ([], list(range(1, len(data))), *([n] for n in range(1, len(data)))):
        content, part = read(data, cuts)
        assert content == FILE[1]
        assert (part.filename, part.content_type, part.head_seen) == ("a b.csv", "text/csv", True)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes_pass(content: bytes, cuts: list[int]) -> None:
    if b"--xyz" not in content:
        assert read(form((FILE[0], content)), cuts)[0] == content


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (form(FILE)[:-8], "truncated_input"),
        (form(FILE)[:60], "truncated_input"),
        (form(FIELD), "bad_argument"),
        (b"nonsense" * 10, "corrupt_input"),
        (form((FIELD[0], b"x" * 70_000), FILE), "bad_argument"),
    ],
)
def test_broken_forms(data: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(data, [68_000] if len(data) > 68_000 else [])
    assert refused.value.code == code


def test_a_form_without_a_boundary() -> None:
    with pytest.raises(Refusal, match="boundary"):
        FilePart("multipart/form-data")
