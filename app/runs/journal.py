"""Rows of runs on their way to the database: all that wait go in one transaction, on a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.core.errors import Refusal
from app.runs.database import Database, runs, writes
from app.runs.ledger import run_of_token

log = logging.getLogger("weir")

_AGAIN_S = 1.0
_GATHER_S = 0.05
"""How long a row waits for others that nobody waits for. Shorter, and short runs cost a transaction each."""

Row = Callable[[], Mapping[str, Any]]
"""Makes the columns of a row, on the thread that writes it."""


class Journal:
    """Writes rows of ``owner``. Of several that wait for one run only the last is written, so that a run that was short
    is one row, once. With the record of a run that has succeeded, or that is forgotten, its entries in the ledger go.

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
        self._hurry = asyncio.Event()

    def note(self, run_id: str, row: Row | None, *, hurry: bool = False) -> asyncio.Future[None]:
        """Write the row of a run, or remove it if that is None; soon, or at once. Whoever needs to know awaits the
        future: then it is durable. It raises ``state_failed``; the row is tried again all the same, unless it cannot be
        made."""
        self._waiting[run_id] = row
        if self._written is None:
            self._written = _watched_future()
        written = self._written
        if hurry or run_id in self._known:
            self._hurry.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return written

    def adopt(self, run_id: str) -> None:
        """The row of this run is there already, and ours."""
        self._known.add(run_id)

    def knows(self, run_id: str) -> bool:
        """The row of this run was written, or waits to be."""
        return run_id in self._known or run_id in self._waiting

    async def settled(self) -> None:
        """What was noted so far is written, or could not be for a while."""
        if self._writer is not None and not self._writer.done():
            self._hurry.set()
            await asyncio.wait((self._writer,), timeout=10 * _AGAIN_S)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if not self._hurry.is_set():
                gathering = loop.call_later(_GATHER_S, self._hurry.set)
                await self._hurry.wait()
                gathering.cancel()
            self._hurry.clear()
            rows, written = self._waiting, self._written
            self._waiting, self._written = {}, None
            assert written is not None
            try:
                lost = await loop.run_in_executor(self._executor, self._store, rows)
            except Refusal as refusal:
                log.error("%s; it is tried again", refusal)
                self._waiting = rows | self._waiting
                self._written = self._written or _watched_future()
                written.set_exception(refusal)
                await asyncio.sleep(_AGAIN_S)
                continue
            except Exception as error:  # of no use to try again: a row that cannot even be made
                log.exception("records of runs are lost")
                written.set_exception(Refusal("state_failed", f"a record cannot be written: {type(error).__name__}"))
                continue
            written.set_result(None)
            for run_id in lost:
                self._on_lost(run_id)

    def _store(self, rows: Mapping[str, Row | None]) -> list[str]:
        made = {run_id: row() for run_id, row in rows.items() if row is not None}
        fresh = {run_id: row for run_id, row in made.items() if run_id not in self._known}
        gone = [run_id for run_id, row in rows.items() if row is None]
        try:
            with self._database.writing() as connection:
                self._insert(connection, fresh)
                lost = self._update(connection, {name: row for name, row in made.items() if name not in fresh})
                if gone:
                    # Ours only: of a run that another server took over, that one has the record now.
                    connection.execute(delete(runs).where(runs.c.id.in_(gone), runs.c.owner == self._owner))
                succeeded = {run_id for run_id, row in made.items() if row["state"] == "succeeded"}
                self._close_writes(connection, succeeded.difference(lost).union(gone))
        except IntegrityError:  # a transaction whose end was not heard of had written them
            self._known |= fresh.keys()
            return self._store(rows)
        for run_id in (*gone, *lost, *(run_id for run_id, row in made.items() if row["ended_at"] is not None)):
            self._known.discard(run_id)
        self._known |= {run_id for run_id, row in made.items() if row["ended_at"] is None and run_id not in lost}
        return lost

    def _insert(self, connection: Connection, rows: Mapping[str, Mapping[str, Any]]) -> None:
        if rows:
            same = {"owner": self._owner, "cancelling": False}
            connection.execute(insert(runs), [{"id": run_id, **same, **row} for run_id, row in rows.items()])

    def _close_writes(self, connection: Connection, run_ids: set[str]) -> None:
        """Of what we wrote ourselves: what another process left of such a run may have to be ended still."""
        if run_ids:
            ours = connection.execute(select(writes.c.id, writes.c.token).where(writes.c.owner == self._owner))
            closed = [entry for entry, token in ours if run_of_token(token) in run_ids]
            if closed:
                connection.execute(delete(writes).where(writes.c.id.in_(closed)))

    def _update(self, connection: Connection, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
        return [run_id for run_id, row in rows.items() if not self._is_mine(connection, run_id, row)]

    def _is_mine(self, connection: Connection, run_id: str, row: Mapping[str, Any]) -> bool:
        mine = update(runs).where(runs.c.id == run_id, runs.c.owner == self._owner)
        return bool(connection.execute(mine.values(**row)).rowcount)


def _watched_future() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at, whoever else does
    return future
