"""The book over a real database: what one process writes another reads, takes over, cancels and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.runs.book import Book, Entry, Result
from app.runs.database import Database, runs, sqlite_url
from app.runs.owners import Owner
from app.runs.record import Committed, Failed, Run, Started, advance
from app.stores.catalogue import Stores
from app.stores.kept import Shelf
from app.stores.metered import PartMeter
from app.stores.retried import Patience
from app.stores.s3 import S3Client, S3Options
from app.stores.spool import Spool


def new_run(run_id: str, mode: str = "stream", created_at: float = 0.0) -> Run:
    return Run(id=run_id, mode=mode, pipeline="upper", source="bytes", target="bytes", created_at=created_at)


class Process:
    """What one server process has of the state."""

    def __init__(self, directory: Path, url: str, **options: float) -> None:
        self.database = Database(url)
        self.spool = Spool(directory, limit_bytes=1 << 20)
        stores = Stores(
            S3Client(S3Options()), patience=Patience(), meter=PartMeter(lambda _: None), on_retry=lambda _: None
        )
        self.shelf = Shelf(directory / "kept", self.spool, stores)
        self.owner = Owner(self.database, self.spool.directory)
        self.owner.beat()
        self.threads = ThreadPoolExecutor(2)
        settings = {"ttl_s": 60.0, "most": 10_000} | options
        self.book = Book(
            self.database, self.owner.id, self.shelf, self.threads, ttl_s=settings["ttl_s"], most=int(settings["most"])
        )

    def keep(self, data: bytes, name: str) -> str:
        file = self.spool.open()
        file.append(data)
        place = self.shelf.put(file, name)
        file.close()
        return place

    async def die(self) -> None:
        """As by kill -9: nothing is given back."""
        await self.book.close()
        self.spool.close()
        self.database.close()
        self.threads.shutdown()

    async def close(self) -> None:
        await self.book.close()
        self.owner.leave()
        await self.die()


@asynccontextmanager
async def process(directory: Path, url: str, **options: float) -> AsyncIterator[Process]:
    made = Process(directory, url, **options)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "state.db")


def succeed(book: Book, entry: Entry) -> asyncio.Future[None]:
    entry.run = advance(advance(entry.run, Started(0.0)), Committed(Receipt(5, "ab" * 32)))
    return book.end(entry)


async def test_what_one_process_ends_another_finds(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as first, process(tmp_path / "b", url) as second:
        entry = first.book.add(new_run("aa", "whole"))
        await first.book.save(entry)
        assert (await second.book.find("aa")).run.state == "accepted"
        assert first.book.in_flight()["whole"] == 1
        entry.result = Result(first.keep(b"hello", "aa.result"), 5, "text/plain", None, "ab" * 32, 1.0)
        waiting = asyncio.create_task(second.book.wait("aa", 10))
        await succeed(first.book, entry)
        found = await waiting
        assert (found.run.state, found.run.digest, found.result) == ("succeeded", "ab" * 32, entry.result)
        assert found.result is not None
        kept = second.shelf.open(found.result.place)
        assert b"".join(kept.pieces(0, 5, 2)) == b"hello"
        kept.close()
        await second.book.forget(found)
        with pytest.raises(Refusal, match="no run"):
            await first.book.find("aa")
        assert not list((tmp_path / "a" / "kept").iterdir())


async def test_runs_of_a_dead_process_are_taken_over_once(tmp_path: Path, url: str) -> None:
    dead = Process(tmp_path / "spool", url)
    for name in ("aa", "bb"):
        await dead.book.save(dead.book.add(new_run(name), "{}"))
    async with process(tmp_path / "spool", url) as first, process(tmp_path / "spool", url) as second:
        first.owner.bury()
        assert await first.book.adopt() == []  # it holds its lock
        await dead.die()
        for alive in (first, second):
            alive.owner.bury()
        taken = await asyncio.gather(first.book.adopt(), second.book.adopt())
        assert sorted(entry.run.id for found in taken for entry in found) == ["aa", "bb"]
        for mine in (first, second):
            for entry in list(mine.book._live.values()):
                entry.run = advance(entry.run, Failed(Refusal("interrupted", "")))
                await mine.book.end(entry)
        assert {run.state for run in await first.book.newest(9)} == {"failed"}


async def test_a_process_that_was_taken_for_dead_learns_it(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as slow, process(tmp_path / "b", url) as other:
        entry = slow.book.add(new_run("aa"))
        stopped: list[bool] = []
        entry.stop = lambda: stopped.append(True)
        await slow.book.save(entry)
        slow.owner.leave()  # as if it had not beaten for long
        assert [found.run.id for found in await other.book.adopt()] == ["aa"]
        await slow.book.save(entry)
        assert stopped == [True]
        assert entry.reason is not None
        assert entry.reason.code == "interrupted"
        slow.book.end(entry)
        await slow.book.close()
        assert (await other.book.find("aa")).run.state == "accepted"
        other.book.end(await other.book.find("aa"))


async def test_a_run_is_cancelled_from_elsewhere(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as here, process(tmp_path / "b", url) as there:
        entry = here.book.add(new_run("aa"))
        stopped: list[bool] = []
        entry.stop = lambda: stopped.append(True)
        await here.book.save(entry)
        await there.book.forget(await there.book.find("aa"))
        await here.book.refresh()
        assert stopped == [True]
        entry.run = advance(entry.run, Failed(entry.reason or Refusal("cancelled", "")))
        await here.book.end(entry)
        with pytest.raises(Refusal, match="no run"):
            await there.book.find("aa")


async def test_an_idempotency_key_is_one_runs(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as one, process(tmp_path / "b", url) as other:
        entries = [Entry(new_run(f"{number:02}")) for number in range(20)]
        books = [one.book, other.book] * 10
        claimed = await asyncio.gather(
            *(book.claim(entry, "key", "print") for book, entry in zip(books, entries, strict=True))
        )
        first = [entry for entry, found in zip(entries, claimed, strict=True) if found is None]
        assert len(first) == 1
        assert {found.run.id for found in claimed if found is not None} == {first[0].run.id}
        with pytest.raises(Refusal) as refused:
            await other.book.claim(Entry(new_run("xx")), "key", "another print")
        assert refused.value.code == "key_reused"
        owner = one.book if first[0] in entries[0::2] else other.book
        first[0].run = advance(first[0].run, Failed(Refusal("bad_value", "")))
        await owner.end(first[0])
        again = Entry(new_run("yy"))
        assert await other.book.claim(again, "key", "print") is None  # what failed gives it up
        await succeed(other.book, again)


async def test_what_is_old_goes_and_what_is_too_many(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url, ttl_s=0.2, most=3) as only:
        entry = only.book.add(new_run("old", "whole"))
        entry.result = Result(only.keep(b"x", "old.result"), 1, "text/plain", None, "", 1.0)
        entry.rejects = only.keep(b"y", "old.rejects")
        await succeed(only.book, entry)
        assert only.spool.statistics().kept_files == 2
        await asyncio.sleep(0.25)
        found = await only.book.find("old")
        assert (found.expired, found.result, found.rejects) == (True, None, None)
        await only.book.sweep()
        assert only.spool.statistics().kept_bytes == 0
        await asyncio.sleep(0.25)
        await only.book.sweep()
        with pytest.raises(Refusal, match="no run"):
            await only.book.find("old")
    async with process(tmp_path / "a", url, most=3) as only:
        going = only.book.add(new_run("going", created_at=0.5))
        await only.book.save(going)
        for number in range(5):
            await succeed(only.book, only.book.add(new_run(str(number), created_at=float(number))))
        await only.book.sweep()
        assert [run.id for run in await only.book.newest(10)] == ["4", "3", "going"]
        going.run = advance(going.run, Failed(Refusal("cancelled", "")))
        await only.book.end(going)


async def test_many_short_runs_are_few_transactions(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as only:
        for number in range(500):
            succeed(only.book, only.book.add(new_run(str(number), created_at=float(number))))
        await only.book.close()
        with only.database.reading() as connection:
            assert len(list(connection.execute(select(runs.c.id).where(runs.c.state == "succeeded")))) == 500


async def test_a_database_that_fails_is_tried_again(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as only:
        with only.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE weir_runs RENAME TO hidden")
        entry = only.book.add(new_run("aa"))
        with pytest.raises(Refusal) as refused:
            await only.book.save(entry)
        assert refused.value.code == "state_failed"
        with only.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO weir_runs")
        await succeed(only.book, entry)
        assert (await only.book.find("aa")).run.state == "succeeded"
