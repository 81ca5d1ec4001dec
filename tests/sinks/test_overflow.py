"""The edge before a response: memory first, disk when the client sends and does not read, always in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.channel import EndOfChannel
from app.core.page import Page
from app.sinks.overflow import Overflow
from app.stores.spool import Spool

EXECUTOR = ThreadPoolExecutor(2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path, limit_bytes=1 << 20)
    yield spool
    assert spool.statistics().used_bytes == 0
    assert spool.statistics().open_files == 0
    spool.close()


class Client:
    def __init__(self, spool: Spool, *, patience_s: float = 0.01, high: int = 100) -> None:
        self.uploading = True
        self.took_at = asyncio.get_running_loop().time()
        self.edge = Overflow(
            high_water_bytes=high,
            page_bytes=64,
            spool=spool,
            executor=EXECUTOR,
            upload_open=lambda: self.uploading,
            progressed_at=lambda: self.took_at,
            patience_s=patience_s,
        )

    async def take_all(self, pause_s: float = 0.0) -> bytes:
        data = b""
        while True:
            try:
                data += bytes((await self.edge.receive()).payload)
            except EndOfChannel:
                return data
            self.took_at = asyncio.get_running_loop().time()
            if pause_s:
                await asyncio.sleep(pause_s)


async def test_an_upload_goes_on_though_nobody_reads_and_all_comes_in_order(disk: Spool) -> None:
    client = Client(disk)
    data = random.Random(3).randbytes(20_000)
    for start in range(0, len(data), 50):
        await asyncio.wait_for(client.edge.send(Page(data[start : start + 50], 50)), 5)
    assert client.edge.statistics().held_bytes <= 100
    assert client.edge.spooled_bytes >= 19_900
    client.uploading = False
    client.edge.close()
    assert await client.take_all() == data
    client.edge.drop()


async def test_a_client_that_reads_slowly_is_waited_for(disk: Spool) -> None:
    client = Client(disk, patience_s=0.2)
    reader = asyncio.create_task(client.take_all(pause_s=0.01))
    for _ in range(30):
        await client.edge.send(Page(b"x" * 90, 90))
    client.edge.close()
    assert len(await reader) == 2700
    assert client.edge.spooled_bytes == 0


async def test_after_the_upload_nothing_is_spooled_however_long_it_takes(disk: Spool) -> None:
    client = Client(disk, patience_s=0.005)
    client.uploading = False
    await client.edge.send(Page(b"x" * 90, 90))
    sender = asyncio.create_task(client.edge.send(Page(b"y" * 90, 90)))
    await asyncio.sleep(0.05)
    assert not sender.done()
    await client.edge.receive()
    await sender
    assert client.edge.spooled_bytes == 0


async def test_a_full_spool_means_waiting(tmp_path: Path) -> None:
    small = Spool(tmp_path, limit_bytes=150)
    client = Client(small)
    for _ in range(2):
        await client.edge.send(Page(b"x" * 90, 90))
    sender = asyncio.create_task(client.edge.send(Page(b"y" * 90, 90)))
    await asyncio.sleep(0.1)
    assert not sender.done()
    for _ in range(3):
        await client.edge.receive()
    await asyncio.wait_for(sender, 5)
    client.edge.drop()
    small.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 120), max_size=40),
    st.lists(st.sampled_from([0, 0, 0.002, 0.02]), min_size=1),
    st.booleans(),
)
def test_bytes_come_out_as_they_went_in(disk: Spool, sizes: list[int], pauses: list[float], stops: bool) -> None:
    async def main() -> None:
        client = Client(disk, patience_s=0.004)
        data = random.Random(sum(sizes)).randbytes(sum(sizes))

        async def send() -> None:
            start = 0
            for number, size in enumerate(sizes):
                await client.edge.send(Page(data[start : start + size], size))
                start += size
                if stops and number == len(sizes) // 2:
                    client.uploading = False
            client.uploading = False
            client.edge.close()

        sender, got = asyncio.create_task(send()), b""
        for pause in [*pauses, *[0.0] * 10_000]:
            await asyncio.sleep(pause)
            try:
                got += bytes((await client.edge.receive()).payload)
            except EndOfChannel:
                break
            client.took_at = asyncio.get_running_loop().time()
        await sender
        client.edge.drop()
        assert got == data

    asyncio.run(asyncio.wait_for(main(), 20))
