"""When the reader of a body is woken: it costs more than to receive a few bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol

_QUIET_S = 0.002
"""A sender that is silent for so long pauses: what was held back for a fuller read is taken now."""
_LOW_WATER_BYTES = 512 * 1024
"""How much must have come before a fast sender's bytes are worth a wake-up."""
_FAST_BYTES = 32 * 1024
"""A read of so much is a fast sender's."""
_MOST_PAUSES = 3
_MOST_LINGER_S = 0.1


class Incoming(Protocol):
    """What the gathering needs of its connection."""

    @property
    def is_reading(self) -> bool:
        """It takes what the kernel has."""
        ...

    @property
    def keeps_waiting(self) -> bool:
        """Somebody waits for the body, and something of it is there."""
        ...

    def wake(self) -> None:
        """Let them have it."""
        ...


class Gathering:
    """Has the bytes of a connection's bodies gather: a fast sender's in the kernel (SO_RCVLOWAT, tcp(7)), those for a reader
    that can wait on their page. A sender that is silent for 2 ms pauses; after three pauses a body is taken as it comes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, incoming: Incoming, tcp: socket.socket | None) -> None:
        self._loop = loop
        self._incoming = incoming
        self._tcp = tcp
        self._timer: asyncio.TimerHandle | None = None
        self._low_water = 1
        self._pauses = 0
        self._linger_s = 0.0
        self._some_since: float | None = None
        self._came = False

    def begin(self) -> None:
        """Another body begins."""
        self._pauses = 0

    def end(self) -> None:
        """Nobody waits for it any more."""
        self._set_low_water(1)
        self.stop()

    def stop(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wait(self, linger_s: float) -> None:
        """Somebody waits for a page, and can wait so long for a fuller one."""
        self._linger_s = linger_s
        self._some_since = None

    def hold_back(self, nbytes: int, left_bytes: int | None) -> None:
        """A read gave ``nbytes``, and so many are left: let the kernel collect a fast sender's."""
        self._came = True
        if self._tcp is not None and nbytes >= _FAST_BYTES and self._pauses < _MOST_PAUSES:
            self._set_low_water(_LOW_WATER_BYTES if left_bytes is None else min(_LOW_WATER_BYTES, left_bytes))
            self._start_timer()

    def some(self) -> None:
        """Something is there for whoever waits."""
        if self._linger_s == 0:
            self._incoming.wake()
        elif self._some_since is None:
            self._some_since = self._loop.time()
            self._start_timer()

    def resume(self) -> None:
        """The kernel's bytes are taken again: somebody has to look after those that it may hold back."""
        if self._low_water > 1:
            self._start_timer()

    def _set_low_water(self, nbytes: int) -> None:
        if nbytes != self._low_water and self._tcp is not None:
            self._low_water = nbytes
            with contextlib.suppress(OSError):
                self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._came = False
            self._timer = self._loop.call_later(_QUIET_S, self._tick)

    def _tick(self) -> None:
        """Two milliseconds have passed: does the sender pause?"""
        self._timer = None
        waits = self._incoming.keeps_waiting
        if self._low_water > 1 and not self._came and self._incoming.is_reading:
            self._pauses += 1
            self._set_low_water(1)
        elif waits:
            waited_s = self._loop.time() - (self._some_since or 0.0)
            if (not self._came and waited_s >= self._linger_s) or waited_s >= _MOST_LINGER_S:
                self._incoming.wake()
                waits = False
        if waits or (self._low_water > 1 and self._incoming.is_reading):
            self._start_timer()
