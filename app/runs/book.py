"""The book of runs: every run of this process, until it is old."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
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


@dataclass(slots=True, eq=False)
class Entry:
    """A run in the book: its record, how to look at it while it runs, how to stop it and why it was
    stopped, and what it left on disk."""

    run: Run
    look: Callable[[], Run] | None = None
    stop: Callable[[], object] | None = None
    reason: Refusal | None = None
    edges: Callable[[], tuple[ChannelStatistics, ...]] | None = None
    rejects: Kept | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    def now(self) -> Run:
        """The record with the figures of this moment."""
        return self.run if self.look is None else self.look()


class Book:
    """Keeps runs for ``ttl_s`` after their end, ``most`` of them at the most."""

    def __init__(self, *, ttl_s: float, most: int = 10_000) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def add(self, run: Run) -> Entry:
        """Open an entry for a new run."""
        self._forget_old(self._most - 1)
        entry = self._entries[run.id] = Entry(run)
        return entry

    def end(self, entry: Entry) -> None:
        """Close an entry whose record is final."""
        entry.look = entry.stop = entry.edges = None
        entry.ended_at = time.monotonic()
        entry.ended.set()

    def find(self, run_id: str) -> Entry:
        """The entry of ``run_id``; ``not_found`` if there never was one or it was forgotten."""
        self._forget_old(self._most)
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
        self._forget_old(self._most)
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

    def _forget_old(self, most: int) -> None:
        horizon = time.monotonic() - self._ttl_s
        for entry in list(self._entries.values()):
            crowded = len(self._entries) > most
            if entry.run.state not in FINAL:
                continue
            if not crowded and entry.ended_at > horizon:
                break
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.run.id, None)
        if entry.rejects is not None:
            entry.rejects.close()
            entry.rejects = None
