"""The parts that a store allows always suffice, and no more memory is asked for than that takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.stores.objects import PartLimits
from app.stores.part_sizes import part_sizes

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
S3 = PartLimits(5 * MIB, 5 * GIB, 10_000, 5 * TIB)


@given(
    st.integers(1, 200),
    st.integers(1, 50),
    st.integers(0, 400),
    st.integers(0, 4000),
    st.one_of(st.none(), st.integers(0, 300_000)),
    st.booleans(),
    st.booleans(),
)
def test_sizes_fit_the_store_and_the_length(
    max_parts: int, least: int, wanted: int, room: int, length: int | None, exact: bool, equal: bool
) -> None:
    limits = PartLimits(least, 5000, max_parts, 200_000, equal)
    exact = exact and length is not None
    largest = min(5000, max(least, wanted, room))
    if exact and length is not None and length > min(200_000, _capacity(limits, wanted, room, length)):
        with pytest.raises(Refusal, match="object_too_large"):
            part_sizes(limits, wanted_bytes=wanted, room_bytes=room, length_bytes=length, exact=exact)
        return
    sizes = part_sizes(limits, wanted_bytes=wanted, room_bytes=room, length_bytes=length, exact=exact)
    listed = [sizes.size(number) for number in range(1, max_parts + 1)]
    assert listed == sorted(listed)
    assert all(least <= size <= 5000 for size in listed)
    assert max(listed) <= sizes.most_bytes <= largest
    assert sizes.capacity_bytes == min(200_000, sum(listed))
    if equal:
        assert len(set(listed)) == 1
    if exact and length is not None:
        assert sizes.capacity_bytes >= length


def _capacity(limits: PartLimits, wanted: int, room: int, length: int) -> int:
    """The most that can be written, by the rule itself: doubled for every tenth of the parts, up to the room; and once
    more at the beginning, where there would be more than 64."""
    first = min(limits.max_bytes, max(limits.min_bytes, wanted))
    high = min(limits.max_bytes, max(first, room))
    first = max(first, min(2 * first, high, length // 64))
    if limits.equal:
        return high * limits.max_parts
    return sum(min(high, first << (number * 10 // limits.max_parts)) for number in range(limits.max_parts))


def test_s3_takes_what_it_can_hold() -> None:
    sizes = part_sizes(S3, wanted_bytes=8 * MIB, room_bytes=5 * GIB, length_bytes=5 * TIB, exact=True)
    assert sizes.capacity_bytes == 5 * TIB
    assert sizes.first_bytes == 16 * MIB


def test_a_small_budget_still_takes_a_large_object() -> None:
    room = 128 * MIB // 4 // 3
    unknown = part_sizes(S3, wanted_bytes=8 * MIB, room_bytes=room, length_bytes=None, exact=False)
    assert unknown.most_bytes == room
    assert unknown.capacity_bytes > 100 * GIB
    with pytest.raises(Refusal, match="needs parts of"):
        part_sizes(S3, wanted_bytes=8 * MIB, room_bytes=room, length_bytes=TIB, exact=True)


def test_a_short_input_asks_for_no_more_than_small_parts() -> None:
    known = [
        part_sizes(S3, wanted_bytes=8 * MIB, room_bytes=12 * MIB, length_bytes=n, exact=True) for n in (GIB // 2, GIB)
    ]
    assert [(sizes.first_bytes, sizes.most_bytes) for sizes in known] == [(8 * MIB, 8 * MIB), (12 * MIB, 12 * MIB)]

    guessed = part_sizes(S3, wanted_bytes=8 * MIB, room_bytes=GIB, length_bytes=GIB, exact=False)
    assert guessed.most_bytes == 8 * MIB
    equal = PartLimits(5 * MIB, 5 * GIB, 10_000, 5 * TIB, equal=True)
    assert (
        part_sizes(equal, wanted_bytes=MIB, room_bytes=GIB, length_bytes=200 * GIB, exact=True).first_bytes
        == 21_474_837
    )
