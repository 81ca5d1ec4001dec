"""Bytes that are joined without the GIL are the same."""

from __future__ import annotations

import random

import pytest

from app.framing.native.joined import joined


@pytest.mark.parametrize("first_bytes", [0, 1, 300, 65_535, 100_000])
@pytest.mark.parametrize("second_bytes", [0, 1, 65_235, 65_236, 1_000_000])
def test_one_behind_the_other(first_bytes: int, second_bytes: int) -> None:
    chance = random.Random(first_bytes + second_bytes)
    first, second = chance.randbytes(first_bytes), chance.randbytes(second_bytes + 5)
    expected = first + second[2:-3]
    assert joined(first, memoryview(second)[2:-3]) == expected
    assert joined(bytearray(first), second[2:-3]) == expected
    assert joined(bytearray(first), memoryview(second)[2:-3], second) == expected + second
