"""Rows of runs on their way to the database: all that wait go in one transaction, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from sqlalchemy import Connection, delete, insert, update

from app.core.errors import Refusal
from app.runs.database import Database, runs

log = logging.getLogger("weir")

_AGAIN_S = 1.0

Row = Mapping[str, Any]


class Journal:
    """Writes rows of ``owner``. Of several that wait for one run only the last is written.

    A run whose row belongs to somebody else by now (this process was taken for dead) is told to ``on_lost``.
    """

    def __init__(self, database: Database, owner: str, executor: Executor, on_lost: Callable[[str], object]) -> None:
        self._database = database
        self._owner = owner
        self._executor = executor
        self._on_lost = on_lost
        self._waiting: dict[str, Row | None] = {}
        self._known: set[str] = set()
        self._written: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    def note(self, run_id: str, row: Row | None) -> asyncio.Future[None]:
        """Write the row of a run, or remove it if that is None; soon. Whoever needs to know awaits the future: then it
        is durable. It raises ``state_failed``; the row is tried again all the same."""
        self._waiting[run_id] = row
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            self._written.add_done_callback(lambda done: done.cancelled() or done.exception())
        written = self._written
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return asyncio.shield(written)

    def adopt(self, run_id: str) -> None:
        """The row of this run is there already, and ours."""
        self._known.add(run_id)

    async def settled(self) -> None:
        """What was noted so far is written, or could not be for a while."""
        if self._writer is not None:
            await asyncio.wait((self._writer,), timeout=10 * _AGAIN_S)

    async def _write(self) -> None:
        while self._waiting:
            rows, written = self._waiting, self._written
            self._waiting, self._written = {}, None
            assert written is not None
            try:
                lost = await asyncio.get_running_loop().run_in_executor(self._executor, self._store, rows)
            except Refusal as refusal:
                log.error("%s; it is tried again", refusal)
                self._waiting = rows | self._waiting
                if self._written is None:
                    self._written = asyncio.get_running_loop().create_future()
                    self._written.add_done_callback(lambda done: done.cancelled() or done.exception())
                written.set_exception(refusal)
                await asyncio.sleep(_AGAIN_S)
                continue
            written.set_result(None)
            for run_id in lost:
                self._on_lost(run_id)

    def _store(self, rows: Mapping[str, Row | None]) -> list[str]:
        with self._database.writing() as connection:
            lost = [run_id for run_id, row in rows.items() if not self._store_one(connection, run_id, row)]
        for run_id, row in rows.items():
            if row is None or run_id in lost or row["ended_at"] is not None:
                self._known.discard(run_id)
            else:
                self._known.add(run_id)
        return lost

    def _store_one(self, connection: Connection, run_id: str, row: Row | None) -> bool:
        if row is None:
            connection.execute(delete(runs).where(runs.c.id == run_id))
            return True
        if run_id not in self._known:
            connection.execute(insert(runs).values(id=run_id, owner=self._owner, cancelling=False, **row))
            return True
        mine = update(runs).where(runs.c.id == run_id, runs.c.owner == self._owner)
        return bool(connection.execute(mine.values(**row)).rowcount)
