"""What all connections of a process share, and the clock by which they are held to their limits."""

from __future__ import annotations

import asyncio
import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from app.web.protocol.body import AHEAD_PAGES
from app.web.protocol.file_sender import FileSender
from app.web.protocol.pace import Limits
from app.web.protocol.pages import PagePool
from app.web.protocol.turns import Turns

_SCRATCH_BYTES = 64 * 1024
"""One read of heads, for all connections: what it brings is taken out before the next."""
_LOOK_EVERY_S = 0.25


class Watched(Protocol):
    """A connection, as far as the clock needs it."""

    def look(self, now: float) -> None:
        """Hold the client to the limits; called about four times a second with a monotonic time."""
        ...


@dataclass(slots=True)
class Wire:
    """What all connections of a process share. ``socket_bytes``, if not 0, is asked for as the size of the kernel's
    buffers of each connection and direction. For ``library`` see ``Chunked``."""

    pool: PagePool
    files: FileSender
    limits: Limits = field(default_factory=Limits)
    socket_bytes: int = 0
    library: ctypes.CDLL | None = None
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(_SCRATCH_BYTES)))
    connections: set[Watched] = field(default_factory=set)
    turns: Turns = field(init=False)
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.turns = Turns(AHEAD_PAGES * self.pool.page_bytes)

    def join(self, connection: Watched) -> None:
        """A connection begins; somebody looks at the clock for it from now on."""
        self.connections.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def part(self, connection: Watched) -> None:
        """A connection has ended."""
        self.connections.discard(connection)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for connection in list(self.connections):
            connection.look(now)
        if self.connections:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)


@cache
def default_wire() -> Wire:
    """What connections share where nobody gives them anything."""
    files = FileSender(ThreadPoolExecutor(4, thread_name_prefix="weir-send"))
    return Wire(PagePool(1 << 20, keep_bytes=8 << 20), files)
