"""What one server process has of the state: its book, its name in the list of owners, and its shelf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import update

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.runs.book import Book, Entry, Result
from app.runs.database import Database, runs
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
    """``directory`` is the spool's; ``stores`` are its object stores: no S3 answers unless it has one."""

    def __init__(
        self,
        directory: Path,
        url: str,
        *,
        ttl_s: float = 60.0,
        most: int = 10_000,
        limit_bytes: int = 1 << 20,
        s3: S3Client | None = None,
        named: Mapping[str, str] | None = None,
    ) -> None:
        self.database = Database(url)
        self.spool = Spool(directory, limit_bytes=limit_bytes)
        self.stores = Stores(
            s3 or S3Client(S3Options()),
            named=named,
            patience=Patience(1),
            meter=PartMeter(lambda _: None),
            on_retry=lambda _: None,
        )
        self.shelf = Shelf(directory / "kept", self.spool, self.stores)
        self.owner = Owner(self.database, self.spool.directory)
        self.owner.beat()
        self.threads = ThreadPoolExecutor(2)
        self.book = Book(self.database, self.owner.id, self.shelf, self.threads, ttl_s=ttl_s, most=most)

    def keep(self, data: bytes, name: str) -> str:
        file = self.spool.open()
        file.append(data)
        place = self.shelf.put(file, name)
        file.close()
        return place

    def result(self, data: bytes, name: str) -> Result:
        return Result(self.keep(data, name), len(data), "text/plain", None, "ab" * 32, 1.0)

    def succeed(self, entry: Entry) -> asyncio.Future[None]:
        """The run of ``entry`` ends well; whoever awaits it knows that this is durable."""
        entry.run = advance(advance(entry.run, Started(0.0)), Committed(Receipt(5, "ab" * 32)))
        return self.book.end(entry)

    def fail(self, entry: Entry, code: str = "cancelled") -> asyncio.Future[None]:
        """The run of ``entry`` ends without a result."""
        entry.run = advance(entry.run, Failed(Refusal(code, "as asked")))
        return self.book.end(entry)

    def age(self, run_id: str, seconds: float) -> None:
        """The run ended that much earlier."""
        with self.database.writing() as connection:
            earlier = runs.c.ended_at - seconds
            connection.execute(update(runs).where(runs.c.id == run_id).values(ended_at=earlier))

    def kept(self) -> list[str]:
        """The names on the shelf."""
        return sorted(path.name for path in (self.spool.directory.parent / "kept").iterdir())

    async def die(self) -> None:
        """As by kill -9: nothing is given back."""
        await self.book.close()
        self.spool.close()
        self.database.close()
        await asyncio.to_thread(self.threads.shutdown)

    async def close(self) -> None:
        await self.book.close()
        self.owner.leave()
        await self.die()


@asynccontextmanager
async def process(
    directory: Path, url: str, *, ttl_s: float = 60.0, most: int = 10_000, s3: S3Client | None = None
) -> AsyncIterator[Process]:
    made = Process(directory, url, ttl_s=ttl_s, most=most, s3=s3)
    try:
        yield made
    finally:
        await made.close()
