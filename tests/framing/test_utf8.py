"""What C takes for UTF-8 is what Python does."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.framing.csv_kernel import kernel
from tests.framing.native import each_build

__all__ = ["each_build"]

CHARACTERS = ["a", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]


def is_utf8(data: bytes) -> bool:
    found = kernel(pa.schema([("a", pa.string())]), ["a"], delimiter=b"\x01", quote=b"", most_bytes=1 << 20)
    assert found is not None
    return found.read(data, 1) is not None


def check(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not is_utf8(data)
    else:
        assert is_utf8(data)


@pytest.mark.parametrize("width", [0, 1, *range(28, 33), *range(60, 66)])
def test_any_two_bytes(width: int) -> None:
    """Wherever they stand, and with what makes them right behind them, or not."""
    for first in (0x7E, 0x7F, 0x80, 0x9F, 0xA0, *range(0xBF, 0x100)):
        for second in (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xED, 0xF4, 0xFF):
            for behind in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf\xbf", b"a"):
                check(b"x" * width + bytes([first, second]) + behind)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(CHARACTERS), max_size=100), st.integers(0, 400), st.integers(0, 2), st.binary(max_size=3)
)
def test_whole_characters_and_broken_ones(characters: list[str], at: int, over: int, junk: bytes) -> None:
    data = "".join(characters).encode()
    junk = junk.translate(None, b"\n\x01\r")
    check(data)
    check(data[:at] + junk + data[at + over :])


def test_every_character() -> None:
    drawn = random.Random(1)
    codes = [code for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000]
    drawn.shuffle(codes)
    text = "".join(map(chr, codes))
    for start in range(0, len(text), 100_000):
        check(text[start : start + 100_000].encode())
    for code in drawn.sample(range(0xD800, 0xE000), 100):
        check(b"x" * drawn.randrange(64) + chr(code).encode(errors="surrogatepass") + b"x" * drawn.randrange(64))
