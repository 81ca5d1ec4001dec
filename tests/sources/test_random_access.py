"""Inputs of random access as pages: in order, one at a time, and nobody is in the input once it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import Refusal
from app.core.interfaces import OnDisk, RandomAccess
from app.core.page import Page
from app.framing.parquet_pages import batches
from app.sources.file import LocalFile
from app.sources.kept import kept_pages_by
from app.sources.random_access import ReadFile, read_pages
from app.sources.spooled import spooled_pages
from app.sources.stored import StoredObject
from app.stores.catalogue import Located
from app.stores.directory import DirectoryStore
from app.stores.kept import SpooledBytes
from app.stores.spool import Spool
from tests.inputs import Far

ROWS = list(range(50_000))
READ: ReadFile = partial(batches, page_bytes=64 * 1024, memory_bytes=1 << 24)
EXECUTOR, FETCHING = ThreadPoolExecutor(2), ThreadPoolExecutor(2)


@pytest.fixture(scope="module")
def data() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": ROWS}), sink, row_group_size=9000)
    return sink.getvalue()


async def rows_of(pages: AsyncIterator[Page]) -> list[int]:
    rows: list[int] = []
    async for page in pages:
        rows += page.payload["n"].to_pylist()
    return rows


async def test_any_input_gives_the_rows_in_order(data: bytes, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit_bytes=1 << 24)
    store = DirectoryStore(tmp_path, "here")
    (tmp_path / "object").write_bytes(data)

    async def body() -> AsyncIterator[Page]:
        yield Page(data[:1000], 1000)
        yield Page(data[1000:], len(data) - 1000)

    def stored() -> StoredObject:
        place, stop = Located(store, "object"), threading.Event()
        return StoredObject(
            place, store.head("object"), range_bytes=1 << 20, page_bytes=1 << 16, ahead=2, executor=FETCHING, stop=stop
        )

    file = spool.open()
    file.append(data)
    fd = os.open(tmp_path / "object", os.O_RDONLY)
    try:
        assert await rows_of(read_pages(Far(data), READ, EXECUTOR)) == ROWS
        assert await rows_of(read_pages(LocalFile(fd), READ, EXECUTOR)) == ROWS
        assert await rows_of(stored().pages_by(READ, EXECUTOR)) == ROWS
        assert await rows_of(spooled_pages(body(), spool, READ, EXECUTOR)) == ROWS
        with SpooledBytes(file) as kept:
            assert await rows_of(kept_pages_by(READ, kept, EXECUTOR)) == ROWS
    finally:
        os.close(fd)
        file.close()
        assert spool.statistics().used_bytes == 0
        spool.close()


def test_what_is_a_file_says_so(data: bytes, tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1 << 24)
    file = spool.open()
    file.append(data)
    try:
        assert isinstance(file, OnDisk)
        assert not isinstance(Far(data), OnDisk)
        assert (file.nbytes, file.read_at(1, 3)) == (len(data), data[1:4])
    finally:
        file.close()
        spool.close()


@pytest.mark.parametrize("leave", ["cancel", "close"])
async def test_leaving_waits_for_the_thread_that_reads(data: bytes, leave: str) -> None:
    entered, go_on = threading.Event(), threading.Event()
    inside = 0

    def read(input: RandomAccess) -> Iterator[Page]:
        nonlocal inside
        yield Page(b"x", 1)
        inside += 1
        entered.set()
        go_on.wait(10)
        inside -= 1
        yield Page(b"x", 1)

    pages = read_pages(Far(data), read, EXECUTOR, ended=go_on.set)
    await anext(pages)
    if leave == "close":
        await pages.aclose()
        assert go_on.is_set()
        return
    task = asyncio.ensure_future(anext(pages))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert inside == 0


async def test_an_object_that_is_stopped_is_not_read_any_more(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(data)
    store, stop = DirectoryStore(tmp_path, "here"), threading.Event()
    object_ = StoredObject(
        Located(store, "object"),
        store.head("object"),
        range_bytes=1 << 20,
        page_bytes=1 << 16,
        ahead=2,
        executor=FETCHING,
        stop=stop,
    )
    pages = object_.pages_by(READ, EXECUTOR)
    await anext(pages)
    await pages.aclose()
    assert stop.is_set()
    with pytest.raises(Refusal) as caught:
        object_.read_at(0, 1)
    assert caught.value.code == "cancelled"


async def test_what_reading_raises_comes_out(data: bytes) -> None:
    class Gone(Far):
        def read_at(self, offset: int, nbytes: int) -> bytes:
            raise Refusal("gone", "on purpose")

    with pytest.raises(Refusal, match="on purpose"):
        await rows_of(read_pages(Gone(data), READ, EXECUTOR))


async def test_pages_without_bytes_are_chances_to_stop() -> None:
    def read(input: RandomAccess) -> Iterator[Page]:
        yield Page(b"", 0)
        yield Page(b"x", 1)
        yield Page(b"", 0)

    assert [page.payload async for page in read_pages(Far(b""), read, EXECUTOR)] == [b"x"]
