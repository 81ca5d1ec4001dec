from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.channel import Channel, EndOfChannel
from app.core.page import Page


def page(nbytes: int) -> Page:
    return Page(bytes(nbytes), nbytes)


def test_the_low_water_mark_lies_below_the_high_one() -> None:
    with pytest.raises(ValueError, match="low-water mark"):
        Channel("x", 100, 100)


async def test_the_producer_waits_at_the_high_mark_until_the_low_one() -> None:
    channel = Channel("x", 100, 30)
    for _ in range(5):
        await channel.send(page(20))
    sender = asyncio.create_task(channel.send(page(20)))
    await asyncio.sleep(0)
    for held in (80, 60, 40):
        await channel.receive()
        await asyncio.sleep(0)
        assert channel.statistics().held_bytes == held
        assert not sender.done()
    await channel.receive()
    await asyncio.sleep(0)
    assert sender.done()


async def test_an_empty_channel_takes_a_page_of_any_size() -> None:
    channel = Channel("x", 100)
    await channel.send(page(1000))
    sender = asyncio.create_task(channel.send(page(1000)))
    await asyncio.sleep(0)
    assert not sender.done()
    assert (await channel.receive()).nbytes == 1000
    await sender


async def test_closed_means_the_rest_and_then_the_end() -> None:
    channel = Channel("x", 100)
    await channel.send(page(1))
    channel.close()
    await channel.receive()
    for _ in range(2):
        with pytest.raises(EndOfChannel):
            await channel.receive()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 100), st.data())
def test_order_is_kept_and_the_mark_is_never_passed(sizes: list[int], high: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, high - 1))

    async def main() -> None:
        channel, got = Channel("x", high, low), []

        async def produce() -> None:
            for size in sizes:
                await channel.send(page(size))
                held = channel.statistics().held_bytes
                assert held <= high or held == size
            channel.close()

        task = asyncio.create_task(produce())
        while True:
            try:
                got.append((await channel.receive()).nbytes)
            except EndOfChannel:
                break
        await task
        assert got == sizes
        assert channel.statistics().held_bytes == 0

    asyncio.run(asyncio.wait_for(main(), 10))
