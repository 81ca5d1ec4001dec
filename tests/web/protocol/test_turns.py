"""Who receives when: so much in a turn of the loop, in the order in which they asked."""

from __future__ import annotations

import asyncio
from functools import partial

from app.web.protocol.turns import Turns

MOST_BYTES = 100


async def asked(*nbytes: int) -> list[list[int]]:
    """Those that began, by number, in each turn of the loop; the first is that in which all asked."""
    turns, began = Turns(MOST_BYTES), []
    loop_turns: list[list[int]] = []
    for number, wanted in enumerate(nbytes):
        turns.ask(partial(began.append, number), wanted)
    while sum(map(len, loop_turns)) < len(nbytes):
        loop_turns.append(list(began))
        began.clear()
        await asyncio.sleep(0)
    assert len(loop_turns) <= len(nbytes) + 1
    return loop_turns


async def test_large_ones_begin_one_in_a_turn() -> None:
    assert await asked(100, 200, 100) == [[0], [1], [2]]


async def test_small_ones_begin_together() -> None:
    assert await asked(60, 60, 60, 30, 30, 1) == [[0, 1], [2, 3, 4], [5]]


async def test_those_that_want_nothing_are_no_burden() -> None:
    assert await asked(*[0] * 50) == [list(range(50))]


async def test_whoever_asks_again_waits_for_those_before_him() -> None:
    turns = Turns(MOST_BYTES)
    began: list[str] = []

    def ask(name: str, times: int) -> None:
        def begin() -> None:
            began.append(name)
            if times > 1:
                ask(name, times - 1)

        turns.ask(begin, MOST_BYTES)

    for name in "abc":
        ask(name, 3)
    for _ in range(9):
        assert len(began) < 10
        await asyncio.sleep(0)
    assert "".join(began) == "aabcabcbc"  # a began at once, and had asked again before b did
    # And the next one finds a turn that nobody has taken yet.
    for _ in range(2):
        await asyncio.sleep(0)
    turns.ask(partial(began.append, "d"), 1)
    assert began[-1] == "d"
