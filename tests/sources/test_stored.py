"""An object as pages: all of it, in order, a bounded way ahead, and from one version only."""

from __future__ import annotations

import random
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import app.sources.stored
from app.core.errors import Refusal
from app.sources.stored import StoredObject
from app.stores.catalogue import Located
from app.stores.memory import MemoryStore
from app.stores.objects import Transient, Writing
from app.stores.retried import Patience, Retried

DATA = random.Random(9).randbytes(100_000)


class Watched(MemoryStore):
    """Counts calls at a time and what was given; breaks off now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work = self.most_at_work = self.given = 0
        self.breaks: list[int] = []
        self.guard = threading.Lock()

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        with self.guard:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            for piece in super().read(key, offset=offset, nbytes=nbytes, etag=etag, piece_bytes=piece_bytes):
                with self.guard:
                    self.given += len(piece)
                yield piece
                if self.breaks and self.given > self.breaks[0]:
                    self.breaks.pop(0)
                    raise Transient("reset", "as asked")
        finally:
            with self.guard:
                self.at_work -= 1


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(app.sources.stored, "_STRETCH_BYTES", 20_000)  # so that both ways are gone
    made = Watched()
    made.put("k", [DATA], zlib.crc32(DATA), Writing("t", "text/plain"))
    return made


def opened(store: Watched, threads: ThreadPoolExecutor, *, range_bytes: int = 3000, ahead: int = 2) -> StoredObject:
    stop = threading.Event()
    retried = Retried(store, Patience(5, 0.0, 0.0), lambda _: None, stop)
    return StoredObject(
        Located(retried, "k"),
        store.head("k"),
        range_bytes=range_bytes,
        page_bytes=700,
        ahead=ahead,
        executor=threads,
        stop=stop,
    )


@pytest.mark.parametrize("range_bytes", [700, 999, 3000, 50_000, 200_000])
@pytest.mark.parametrize("ahead", [1, 2, 5])
async def test_all_of_it_in_order(store: Watched, threads: ThreadPoolExecutor, range_bytes: int, ahead: int) -> None:
    pages = [page async for page in opened(store, threads, range_bytes=range_bytes, ahead=ahead).pages()]
    assert b"".join(page.payload for page in pages) == DATA
    assert [page.byte for page in pages[:2]] == [0, pages[0].nbytes]
    assert [page.first for page in pages] == [True] + [False] * (len(pages) - 1)
    assert store.most_at_work <= ahead
    assert store.at_work == 0


async def test_it_runs_ahead_a_bounded_way(store: Watched, threads: ThreadPoolExecutor) -> None:
    source = opened(store, threads)
    taken = 0
    pages = source.pages()
    async for page in pages:
        taken += page.nbytes
        assert store.given - taken <= source.holds
    await pages.aclose()
    assert taken == len(DATA)


async def test_what_breaks_off_goes_on_at_its_byte(store: Watched, threads: ThreadPoolExecutor) -> None:
    store.breaks = [100, 5000, 21_000, 24_000, 60_000]
    pages = [page.payload async for page in opened(store, threads).pages()]
    assert b"".join(pages) == DATA
    assert store.breaks == []
    assert store.given == len(DATA)  # nothing was fetched twice


async def test_another_version_is_not_read_on(store: Watched, threads: ThreadPoolExecutor) -> None:
    pages = opened(store, threads).pages()
    await anext(pages)
    store.put("k", [DATA[::-1]], zlib.crc32(DATA[::-1]), Writing("u", "text/plain"))
    with pytest.raises(Refusal) as refused:
        async for _ in pages:
            pass
    assert refused.value.code == "object_changed"
    assert store.at_work == 0


async def test_whoever_leaves_leaves_no_thread_at_work(store: Watched, threads: ThreadPoolExecutor) -> None:
    for after in (1, 10, 40):
        pages = opened(store, threads).pages()
        for _ in range(after):
            await anext(pages)
        await pages.aclose()
        assert store.at_work == 0
