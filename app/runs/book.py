"""The book of runs: what goes on here, and what any run left, whichever process it was of."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from sqlalchemy import Row, and_, delete, func, insert, not_, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.core.channel import ChannelStatistics
from app.core.errors import Refusal
from app.runs.database import Database, owners, runs
from app.runs.journal import Journal
from app.runs.record import FINAL, MODES, Run, run_of_document
from app.stores.kept import Shelf
from app.stores.objects import ABSENT

T = TypeVar("T")

log = logging.getLogger("weir")

_LOOK_AGAIN_S = 0.25
_SWEPT_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Result:
    """A whole result that is kept at ``place``, which a shelf opens. ``digest`` is its SHA-256 in hex, ``made_at`` a
    Unix time."""

    place: str
    nbytes: int
    media_type: str
    coding: str | None
    digest: str
    made_at: float


@dataclass(slots=True, eq=False)
class Entry:
    """A run in the book. While it runs here there is a way to ``look`` at it and to ``stop`` it, and ``reason`` says why
    it was ``stopped``. ``asked`` is what it takes to do it again, where that can be. ``result`` and ``rejects`` (a place)
    are what it left, for as long as that is kept: ``expired`` says that it no longer is. Once it is ``settling`` it has a
    result and is not stopped any more; once ``forgotten`` its record is to go when it ends."""

    run: Run
    asked: str | None = None
    result: Result | None = None
    rejects: str | None = None
    ended_at: float | None = None
    expired: bool = False
    look: Callable[[], Run] | None = None
    stop: Callable[[], object] | None = None
    stopped: bool = False
    reason: Refusal | None = None
    edges: Callable[[], tuple[ChannelStatistics, ...]] | None = None
    settling: bool = False
    forgotten: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> Run:
        """The record with the figures of this moment."""
        return self.run if self.look is None else self.look()

    def places(self) -> list[str]:
        """Where what it left is kept; rejects that are none have no place."""
        return [place for place in (self.rejects, None if self.result is None else self.result.place) if place]

    def row(self) -> Callable[[], dict[str, Any]]:
        """What makes its columns as they are now."""
        run, ended_at, asked, result, rejects = self.now(), self.ended_at, self.asked, self.result, self.rejects
        return lambda: {
            "state": run.state,
            "created_at": run.created_at,
            "ended_at": ended_at,
            "asked": asked,
            "record": orjson.dumps(run).decode(),
            "result": None if result is None else orjson.dumps(result).decode(),
            "rejects": rejects,
        }


class Book:
    """Knows the runs that go on in this process, and asks the database for all others.

    What runs left is kept for ``ttl_s`` after their end, and their records for as long again, so that who comes late is
    told so; ``most`` records at the most. Somebody has to call ``sweep`` now and then.
    """

    def __init__(
        self, database: Database, owner: str, shelf: Shelf, executor: Executor, *, ttl_s: float, most: int = 10_000
    ) -> None:
        self._database = database
        self._owner = owner
        self._shelf = shelf
        self._executor = executor
        self._journal = Journal(database, owner, executor, self._lose)
        self._ttl_s = ttl_s
        self._most = most
        self._live: dict[str, Entry] = {}
        self._erasing: dict[str, asyncio.Task[None]] = {}

    def add(self, run: Run, asked: str | None = None) -> Entry:
        """Open an entry for a new run. It is in the database once ``save`` says so, or when it ends or is refreshed."""
        entry = self._live[run.id] = Entry(run, asked=asked)
        return entry

    async def save(self, entry: Entry) -> None:
        """Returns once the entry as it is now is durable. Raises ``state_failed``."""
        if not entry.forgotten:
            await asyncio.shield(self._journal.note(entry.run.id, entry.row(), hurry=True))

    def end(self, entry: Entry) -> asyncio.Future[None]:
        """Close an entry whose record is final. It is in the database soon; whoever awaits it knows that it is."""
        entry.look = entry.stop = entry.edges = None
        entry.ended_at = time.time()
        entry.asked = None
        self._live.pop(entry.run.id, None)
        entry.ended.set()
        if entry.forgotten and entry.places():
            erasing = self._erasing[entry.run.id] = asyncio.create_task(self._erase(entry))
            return asyncio.shield(erasing)
        hurry = entry.run.mode != "stream"
        return asyncio.shield(self._journal.note(entry.run.id, None if entry.forgotten else entry.row(), hurry=hurry))

    def release(self, entry: Entry) -> None:
        """Leave a run to whoever comes when this process is gone."""
        entry.look = entry.stop = entry.edges = None
        self._live.pop(entry.run.id, None)
        self._journal.note(entry.run.id, entry.row(), hurry=True)

    async def find(self, run_id: str) -> Entry:
        """The entry of ``run_id``, of this process or any; ``not_found`` if there never was one or it was forgotten."""
        if (entry := self._live.get(run_id)) is not None:
            return entry
        await self._journal.settled()
        found = await self._read(lambda: self._select(runs.c.id == run_id))
        if not found or run_id in self._erasing:
            raise Refusal("not_found", f"there is no run {run_id[:80]!r}, or it is no longer kept")
        return found[0]

    async def wait(self, run_id: str, seconds: float) -> Entry:
        """The entry once its run has ended, or after ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            entry = await self.find(run_id)
            left_s = until - time.monotonic()
            if entry.ended.is_set() or left_s <= 0:
                return entry
            here = run_id in self._live
            waiting = asyncio.ensure_future(entry.ended.wait())
            await asyncio.wait((waiting,), timeout=left_s if here else min(left_s, _LOOK_AGAIN_S))
            waiting.cancel()
            if here:
                return entry

    async def forget(self, entry: Entry) -> None:
        """Stop the run if it is still going, wherever that is, and drop what is kept of it."""
        if entry.run.id in self._live:
            entry.forgotten = True
            self._stop(entry)
        elif entry.ended.is_set():
            await self._read(lambda: self._drop(entry.run.id))
        else:
            await self._read(lambda: self._ask_to_cancel(entry.run.id))

    async def newest(self, most: int) -> list[Run]:
        """The latest runs, newest first."""
        await self._journal.settled()
        found = {entry.run.id: entry.run for entry in await self._read(lambda: self._newest(most))}
        found |= {run_id: entry.now() for run_id, entry in self._live.items()}
        forgotten = self._erasing.keys() | {run_id for run_id, entry in self._live.items() if entry.forgotten}
        return sorted(
            (run for run in found.values() if run.id not in forgotten), key=lambda run: run.created_at, reverse=True
        )[:most]

    async def claim(self, entry: Entry, key: str, fingerprint: str) -> Entry | None:
        """Open an entry for a new run that takes an Idempotency-Key, durably, or give the run that has it already. A run
        that did not succeed gives its key up. Raises ``key_reused`` where that run was asked for something else."""
        first, asked_for = await self._read(lambda: self._claim(entry, key, fingerprint))
        if first is not None and asked_for != fingerprint:
            raise Refusal("key_reused", "the Idempotency-Key belongs to a run that was asked for something else")
        if first is not None:
            return self._live.get(first.run.id, first)
        self._journal.adopt(entry.run.id)
        self._live[entry.run.id] = entry
        return None

    async def adopt(self) -> list[Entry]:
        """Take over the runs of processes that are gone: they are ours from now on."""
        found = await self._read(self._take_over)
        for entry in found:
            self._journal.adopt(entry.run.id)
            self._live[entry.run.id] = entry
        return found

    async def refresh(self) -> None:
        """Put the figures of long runs into the database, and stop those that somebody cancelled elsewhere."""
        for run_id, entry in self._live.items():
            if entry.look is not None or not self._journal.knows(run_id):
                self._journal.note(run_id, entry.row())
        if self._live:
            for run_id in await self._read(self._cancelled):
                if (live := self._live.get(run_id)) is not None:
                    live.forgotten = True
                    self._stop(live)

    async def sweep(self) -> None:
        """Drop what is too old, and the oldest runs where there are too many."""
        await self._read(self._sweep)

    async def known_places(self) -> set[str]:
        """Where anything is kept that a record knows of."""
        return await self._read(self._places)

    async def close(self) -> None:
        """Write what is still to be written."""
        await asyncio.gather(*self._erasing.values(), return_exceptions=True)
        await self._journal.settled()

    def edge_bytes(self) -> dict[str, int]:
        """Bytes on the edges of the flows that run here now, by the edge's name."""
        held: Counter[str] = Counter()
        for entry in self._live.values():
            for edge in entry.edges() if entry.edges is not None else ():
                held[edge.name] += edge.held_bytes
        return held

    def in_flight(self) -> dict[str, int]:
        """The runs that are accepted or running here, by mode."""
        counts = Counter(dict.fromkeys(MODES, 0))
        counts.update(entry.run.mode for entry in self._live.values() if entry.run.state not in FINAL)
        return counts

    async def _erase(self, entry: Entry) -> None:
        """Who deleted the run came too late to stop it: what it left goes, then its record. Where a store does not answer
        both stay, and the sweep sees to them."""
        row: Callable[[], dict[str, Any]] | None = None
        try:
            try:
                await self._read(lambda: self._let_go(entry.places()))
            except Refusal as refusal:
                log.warning("what run %s left is dropped later: %s", entry.run.id, refusal)
                row = entry.row()
            await self._journal.note(entry.run.id, row, hurry=True)
        finally:
            del self._erasing[entry.run.id]

    def _stop(self, entry: Entry) -> None:
        entry.reason = Refusal("cancelled", "the run was cancelled with DELETE")
        if entry.stop is not None and not entry.stopped:  # a second time would hit what cleans up after the first
            entry.stopped = True
            entry.stop()

    def _lose(self, run_id: str) -> None:
        """This process was so slow that another took the run over, or somebody removed it."""
        if (entry := self._live.get(run_id)) is not None and entry.stop is not None:
            entry.forgotten = True
            entry.reason = Refusal("interrupted", "another server took the run over: this one did not answer for long")
            entry.stop()

    # What follows blocks, and runs on a thread.

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _select(self, *conditions: Any) -> list[Entry]:
        with self._database.reading() as connection:
            return [self._entry(row) for row in connection.execute(select(runs).where(*conditions))]

    def _entry(self, row: Row[Any]) -> Entry:
        run = run_of_document(orjson.loads(row.record))
        entry = Entry(run, row.asked, rejects=row.rejects, ended_at=row.ended_at)
        if row.result is not None:
            entry.result = Result(**orjson.loads(row.result))
        if row.ended_at is not None:
            entry.ended.set()
            entry.expired = time.time() - row.ended_at > self._ttl_s
            if entry.expired:
                entry.result = entry.rejects = None
        return entry

    def _newest(self, most: int) -> list[Entry]:
        with self._database.reading() as connection:
            rows = connection.execute(select(runs).order_by(runs.c.created_at.desc()).limit(most))
            return [self._entry(row) for row in rows]

    def _drop(self, run_id: str) -> None:
        with self._database.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.id == run_id)).first()
        if row is not None:  # what has expired and was not swept yet goes as well
            self._let_go(_places(row.result, row.rejects))
        with self._database.writing() as connection:
            connection.execute(delete(runs).where(runs.c.id == run_id))

    def _let_go(self, places: Iterable[str]) -> None:
        """Drop what a run left. Raises what may pass, such as ``store_failed``; what can never be found again is let be."""
        for place in places:
            try:
                self._shelf.drop(place)
            except Refusal as refusal:
                if refusal.code not in ABSENT:
                    raise
                log.warning("%s could not be dropped, and never can be: %s", place, refusal)

    def _ask_to_cancel(self, run_id: str) -> None:
        with self._database.writing() as connection:
            connection.execute(update(runs).where(runs.c.id == run_id).values(cancelling=True))

    def _cancelled(self) -> list[str]:
        with self._database.reading() as connection:
            mine = and_(runs.c.owner == self._owner, runs.c.cancelling, runs.c.ended_at.is_(None))
            return list(connection.scalars(select(runs.c.id).where(mine)))

    def _claim(self, entry: Entry, key: str, fingerprint: str) -> tuple[Entry | None, str | None]:
        row = entry.row()() | {"idempotency_key": key, "fingerprint": fingerprint}
        try:
            with self._database.writing() as connection:
                failed = runs.c.state.in_(("failed", "cancelled"))
                release = update(runs).where(runs.c.idempotency_key == key, failed).values(idempotency_key=None)
                connection.execute(release)
                found = connection.execute(select(runs).where(runs.c.idempotency_key == key)).first()
                if found is not None:
                    return self._entry(found), found.fingerprint
                connection.execute(insert(runs).values(id=entry.run.id, owner=self._owner, cancelling=False, **row))
                return None, None
        except IntegrityError:  # two at once: the other one was first
            return self._claim(entry, key, fingerprint)

    def _take_over(self) -> list[Entry]:
        with self._database.writing() as connection:
            gone = and_(runs.c.ended_at.is_(None), runs.c.owner.not_in(select(owners.c.id)))
            ids = list(connection.scalars(select(runs.c.id).where(gone).limit(_SWEPT_AT_A_TIME)))
            taken = update(runs).where(runs.c.id.in_(ids), gone).values(owner=self._owner)
            connection.execute(taken)
            rows = connection.execute(select(runs).where(runs.c.id.in_(ids), runs.c.owner == self._owner))
            return [self._entry(row) for row in rows]

    def _sweep(self) -> None:
        now = time.time()
        left = or_(runs.c.result.is_not(None), runs.c.rejects.is_not(None))
        old = and_(runs.c.ended_at < now - self._ttl_s, left)
        with self._database.reading() as connection:
            expired = list(connection.execute(select(runs).where(old).limit(_SWEPT_AT_A_TIME)))
            count = int(connection.scalar(select(func.count()).select_from(runs)) or 0)
            oldest = select(runs).where(runs.c.ended_at.is_not(None)).order_by(runs.c.created_at)
            crowding = list(connection.execute(oldest.limit(min(_SWEPT_AT_A_TIME, max(0, count - self._most)))))
        swept: set[str] = set()
        try:
            for row in (*expired, *crowding):
                self._let_go(_places(row.result, row.rejects))
                swept.add(row.id)
        finally:  # a store that does not answer keeps its own, not what was dropped before
            with self._database.writing() as connection:
                connection.execute(update(runs).where(runs.c.id.in_(swept)).values(result=None, rejects=None))
                connection.execute(delete(runs).where(runs.c.id.in_([row.id for row in crowding if row.id in swept])))
                # Only what is dropped may lose its record: who else would know of it?
                connection.execute(delete(runs).where(runs.c.ended_at < now - 2 * self._ttl_s, not_(left)))
        self._shelf.drop_unknown(self._places, older_than_s=2 * self._ttl_s)

    def _places(self) -> set[str]:
        with self._database.reading() as connection:
            rows = list(connection.execute(select(runs.c.result, runs.c.rejects, runs.c.asked)))
        places = {place for row in rows for place in _places(row.result, row.rejects)}
        return places | {orjson.loads(row.asked)["body"] for row in rows if row.asked is not None}


def _places(result: str | None, rejects: str | None) -> list[str]:
    """As ``Entry.places``, of columns: also what has expired and is still there."""
    place = None if result is None else orjson.loads(result)["place"]
    return [place for place in (rejects, place) if place]
