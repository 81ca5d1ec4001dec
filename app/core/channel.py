"""One edge between two tasks of a run: a queue of pages that is bounded by bytes, with a high- and a low-water mark."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from app.core.page import Page


class EndOfChannel(Exception):
    """The producer closed the channel: it finished well and no page will come. Not an error."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A snapshot of one edge."""

    name: str
    held_bytes: int
    peak_bytes: int
    high_water_bytes: int
    pages: int


class Edge(Protocol):
    """What the engine needs of an edge; the one before the sink may be another than ``Channel`` (it may overflow)."""

    high_water_bytes: int
    held_bytes: int
    """What is in it, in memory."""

    async def send(self, page: Page) -> None:
        """Put a page; returns once it is in."""
        ...

    async def receive(self) -> Page:
        """Take the oldest page. Raises ``EndOfChannel`` once the channel is closed and empty."""
        ...

    def close(self) -> None:
        """Say that the input ended well. Only a producer that finished well calls it; a failure cancels instead."""
        ...

    def drop(self) -> None:
        """The run is over, however it ended: forget what is held. May be called twice."""
        ...

    def statistics(self) -> ChannelStatistics:
        """What is held, now."""
        ...


class Channel:
    """A FIFO of pages for one producer and one consumer on one event loop.

    It never holds more than ``high_water_bytes``, with one exception without which a large page could never pass: an
    empty channel takes a page of any size. Once a page did not fit, the producer waits until what is held has sunk to
    ``low_water_bytes``, so that the two sides change hands per batch and not per page.
    A cancelled ``send`` has put nothing; a cancelled ``receive`` has taken nothing.
    """

    def __init__(self, name: str, high_water_bytes: int, low_water_bytes: int | None = None) -> None:
        low = high_water_bytes // 2 if low_water_bytes is None else low_water_bytes
        if not 0 <= low < high_water_bytes:
            raise ValueError(f"the low-water mark ({low}) must lie below the high-water mark ({high_water_bytes})")
        self.name = name
        self.high_water_bytes = high_water_bytes
        self._low_water_bytes = low
        self._pages: deque[Page] = deque()
        self.held_bytes = 0
        self._peak_bytes = 0
        self._passed = 0
        self._closed = False
        self._room = asyncio.Event()
        self._room.set()
        self._filled = asyncio.Event()

    async def send(self, page: Page) -> None:
        """See ``Edge.send``."""
        while self.held_bytes and self.held_bytes + page.nbytes > self.high_water_bytes:
            self._room.clear()
            await self._room.wait()
        self._pages.append(page)
        self.held_bytes += page.nbytes
        self._peak_bytes = max(self._peak_bytes, self.held_bytes)
        self._passed += 1
        self._filled.set()

    async def receive(self) -> Page:
        """See ``Edge.receive``."""
        while not self._pages:
            if self._closed:
                raise EndOfChannel
            self._filled.clear()
            await self._filled.wait()
        return self._take()

    def receive_nowait(self, room_bytes: int) -> Page | None:
        """The oldest page if one is there and is no larger than ``room_bytes``."""
        if self._pages and self._pages[0].nbytes <= room_bytes:
            return self._take()
        return None

    def close(self) -> None:
        """See ``Edge.close``."""
        self._closed = True
        self._filled.set()

    def drop(self) -> None:
        """See ``Edge.drop``."""
        self._pages.clear()
        self.held_bytes = 0

    def statistics(self) -> ChannelStatistics:
        """See ``Edge.statistics``."""
        return ChannelStatistics(self.name, self.held_bytes, self._peak_bytes, self.high_water_bytes, self._passed)

    def _take(self) -> Page:
        page = self._pages.popleft()
        self.held_bytes -= page.nbytes
        if self.held_bytes <= self._low_water_bytes or not self._pages:
            self._room.set()
        return page
