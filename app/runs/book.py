"""The book of runs: every run of this process, until it is old."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from app.core.channel import ChannelStatistics
from app.core.errors import Refusal
from app.runs.record import FINAL, MODES, Run


class Kept(Protocol):
    """Bytes that a run left on disk."""

    @property
    def nbytes(self) -> int:
        """How many there are."""
        ...

    def read(self, offset: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` at ``offset``; blocks."""
        ...

    def close(self) -> None:
        """Drop them; may be called twice."""
        ...


class KeptFile(Kept, Protocol):
    """A file that a run left."""

    def held(self) -> AbstractContextManager[int]:
        """Its descriptor, which stays what it is within the scope. Raises ``gone`` once it was dropped."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """A whole result that is kept. ``digest`` is its SHA-256 in hex, ``made_at`` a Unix time."""

    file: KeptFile
    media_type: str
    coding: str | None
    digest: str
    made_at: float


@dataclass(slots=True, eq=False)
class Entry:
    """A run in the book: its record, how to look at it while it runs, how to stop it and why it was
    stopped, and what it left on disk. Once ``expired`` nothing of that is there any more."""

    run: Run
    look: Callable[[], Run] | None = None
    stop: Callable[[], object] | None = None
    reason: Refusal | None = None
    edges: Callable[[], tuple[ChannelStatistics, ...]] | None = None
    rejects: Kept | None = None
    result: Result | None = None
    expired: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    def now(self) -> Run:
        """The record with the figures of this moment."""
        return self.run if self.look is None else self.look()


class Book:
    """Keeps what runs left for ``ttl_s`` after their end, and their records for as long again, so that who comes late is
    told so; ``most`` runs at the most. Somebody has to call ``sweep`` now and then."""

    def __init__(self, *, ttl_s: float, most: int = 10_000) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._kept_results = 0
        self._kept_bytes = 0

    def add(self, run: Run) -> Entry:
        """Open an entry for a new run."""
        self.sweep(room_for=1)
        entry = self._entries[run.id] = Entry(run)
        return entry

    def end(self, entry: Entry) -> None:
        """Close an entry whose record is final."""
        entry.look = entry.stop = entry.edges = None
        entry.ended_at = time.monotonic()
        entry.ended.set()

    def keep(self, entry: Entry, result: Result) -> None:
        """Keep a result with its run, whose file belongs to the book from now on."""
        entry.result = result
        self._kept_results += 1
        self._kept_bytes += result.file.nbytes
        if entry.run.id not in self._entries:
            self._expire(entry)  # it was forgotten while it ran

    def kept(self) -> tuple[int, int]:
        """How many results are kept, and their bytes."""
        return self._kept_results, self._kept_bytes

    def find(self, run_id: str) -> Entry:
        """The entry of ``run_id``; ``not_found`` if there never was one or it was forgotten."""
        self.sweep()
        try:
            return self._entries[run_id]
        except KeyError:
            raise Refusal("not_found", f"there is no run {run_id[:80]!r}, or it is no longer kept") from None

    def forget(self, entry: Entry) -> None:
        """Stop the run if it is still going, and drop what is kept of it."""
        if entry.stop is not None:
            entry.reason = Refusal("cancelled", "the run was cancelled with DELETE")
            entry.stop()
        self._drop(entry)

    def newest(self, most: int) -> Iterator[Run]:
        """The latest runs, newest first."""
        self.sweep()
        for _, entry in zip(range(most), reversed(self._entries.values()), strict=False):
            yield entry.now()

    def edge_bytes(self) -> dict[str, int]:
        """Bytes on the edges of the flows that run now, by the edge's name."""
        held: Counter[str] = Counter()
        for entry in self._entries.values():
            for edge in entry.edges() if entry.edges is not None else ():
                held[edge.name] += edge.held_bytes
        return held

    def in_flight(self) -> dict[str, int]:
        """The runs that are accepted or running, by mode."""
        counts = Counter(dict.fromkeys(MODES, 0))
        counts.update(entry.run.mode for entry in self._entries.values() if entry.run.state not in FINAL)
        return counts

    def close(self) -> None:
        """Drop everything that is kept on disk."""
        for entry in list(self._entries.values()):
            self._drop(entry)

    def sweep(self, room_for: int = 0) -> None:
        """Drop what is too old, and the oldest runs where there are too many."""
        now = time.monotonic()
        for entry in list(self._entries.values()):
            crowded = len(self._entries) + room_for > self._most
            if entry.run.state not in FINAL:
                continue
            age_s = now - entry.ended_at
            if crowded or age_s > 2 * self._ttl_s:
                self._drop(entry)
            elif age_s > self._ttl_s:
                self._expire(entry)
            else:
                break

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.run.id, None)
        self._expire(entry)

    def _expire(self, entry: Entry) -> None:
        entry.expired = True
        if entry.rejects is not None:
            entry.rejects.close()
        if entry.result is not None:
            entry.result.file.close()
            self._kept_results -= 1
            self._kept_bytes -= entry.result.file.nbytes
        entry.rejects = entry.result = None
