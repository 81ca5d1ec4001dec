"""A request's body while it comes: received into pages, freed of its framing, taken page by page. No I/O."""

from __future__ import annotations

import ctypes
from collections import deque

from app.web.protocol.chunked import Chunked
from app.web.protocol.pages import PagePool

SMALL_BYTES = 64 * 1024
"""Bodies that say they are no larger get memory of their own size."""
AHEAD_PAGES = 2
"""Full pages that may wait to be taken."""
_MIN_ROOM_BYTES = 16 * 1024
"""A page with less room than this is given out: smaller reads cost more than what they bring."""
_CROWDED_CHUNKS = 256
_CROWDED_READ_BYTES = 16 * 1024
"""Where one read brings many tiny chunks, fewer bytes are read at a time, so that other connections get their turn."""


class Body:
    """One body of ``length_bytes``, or in the chunked coding if that is None.

    Bytes are received into ``room()`` and reported to ``add``; ``take`` gives full pages (and the last one) in order,
    ``take_some`` whatever is there. It is ``full`` with two pages; with one, reading would stop and start for every
    page, which costs more than the page. ``early`` is what was received together with the head. For ``library`` see
    ``Chunked``.
    """

    def __init__(
        self, length_bytes: int | None, pool: PagePool, early: bytes = b"", *, library: ctypes.CDLL | None = None
    ) -> None:
        self.received_bytes = 0
        self.ended = False
        self.rest = b""
        """What came behind the end of the body."""
        self._pool = pool
        self._chunked = Chunked(library) if length_bytes is None else None
        self._left_bytes = length_bytes or 0
        self._is_small = length_bytes is not None and length_bytes <= SMALL_BYTES
        self._ready: deque[memoryview] = deque()
        self._page: memoryview | None = None
        self._given = 0
        self._filled = 0
        self._most_read_bytes = pool.page_bytes
        self._early = b""
        self._waste: memoryview | None = None
        self._begin(early)

    @property
    def left_bytes(self) -> int | None:
        """What is still to be received; None where nobody knows."""
        return None if self._chunked is not None else self._left_bytes

    @property
    def wanted_bytes(self) -> int:
        """The most that is received before a page has to be taken, if none waits."""
        most = AHEAD_PAGES * self._pool.page_bytes
        return most if self._chunked is not None else min(most, self._left_bytes)

    @property
    def is_ready(self) -> bool:
        """A full page waits, or the last one."""
        return bool(self._ready)

    @property
    def is_full(self) -> bool:
        """Nothing more should be received before a page is taken."""
        return len(self._ready) >= AHEAD_PAGES

    @property
    def has_some(self) -> bool:
        """There are bytes that ``take_some`` would give."""
        return bool(self._ready) or bool(self._early) or self._filled > self._given

    def room(self) -> memoryview:
        """Where the next bytes are to be received, never empty. Not to be called once ``ended``."""
        if self._waste is not None:
            return self._waste if self._chunked is not None else self._waste[: self._left_bytes]
        if self._page is None:
            self._open_page()
        assert self._page is not None
        stop = len(self._page)
        if self._chunked is not None:
            stop = min(stop, self._filled + self._most_read_bytes)
        return self._page[self._filled : stop]

    def add(self, nbytes: int) -> None:
        """Note that ``nbytes`` were received into ``room()``. Raises ``BadFraming``."""
        if self._waste is not None:
            self._frame(self._waste, 0, nbytes)
            return
        page = self._page
        assert page is not None
        filled = self._frame(page, self._filled, self._filled + nbytes)
        self.received_bytes += filled - self._filled
        self._filled = filled
        if self.ended or len(page) - filled < (_MIN_ROOM_BYTES if self._chunked is not None else 1):
            self._close_page()

    def take(self) -> memoryview | None:
        """The oldest full page, or the last one; None if there is none yet."""
        return self._ready.popleft() if self._ready else None

    def take_some(self) -> memoryview | None:
        """The oldest bytes there are, a page of them at most."""
        if self._ready:
            return self._ready.popleft()
        if self._early:
            early, self._early = memoryview(self._early), b""
            return early
        if self._page is None or self._filled == self._given:
            return None
        some = self._page[self._given : self._filled].toreadonly()
        self._given = self._filled
        if len(self._page) - self._filled < _MIN_ROOM_BYTES:
            self._page = None
            self._given = self._filled = 0
        return some

    def drop(self, waste: memoryview) -> None:
        """Throw away what is there and what comes; it is received into ``waste``."""
        self.forget()
        self._waste = waste

    def forget(self) -> None:
        """Nobody takes any more: let go of what is there."""
        self._ready.clear()
        self._page, self._early = None, b""
        self._given = self._filled = 0

    def _begin(self, early: bytes) -> None:
        if self._chunked is None and len(early) >= self._left_bytes:
            self.ended, self.rest = True, early[self._left_bytes :]
            early = early[: self._left_bytes]
            self._left_bytes = 0
        elif self._chunked is not None:
            memory = bytearray(early)
            end = self._frame(memoryview(memory), 0, len(memory))
            early = bytes(memory[:end])
        else:
            self._left_bytes -= len(early)
        self.received_bytes = len(early)
        if not self.ended:
            self._early = early  # it begins the first page, if it leaves room there
        if self.ended or len(early) >= self._pool.page_bytes:
            self._early = b""
            step = self._pool.page_bytes
            self._ready.extend(memoryview(early)[start : start + step] for start in range(0, len(early), step))

    def _frame(self, page: memoryview, start: int, stop: int) -> int:
        """Take the framing out of ``page[start:stop]``; where what is left ends."""
        if self._chunked is None:
            self._left_bytes -= stop - start
            self.ended = self._left_bytes == 0
            return stop
        before = self._chunked.chunks
        end = self._chunked.take(page, start, stop)
        crowded = self._chunked.chunks - before > _CROWDED_CHUNKS
        self._most_read_bytes = _CROWDED_READ_BYTES if crowded else self._pool.page_bytes
        self.ended, self.rest = self._chunked.ended, self._chunked.rest
        return end

    def _open_page(self) -> None:
        wanted = self._left_bytes + len(self._early)
        if self._is_small:
            self._page = memoryview(bytearray(wanted))
        else:
            self._page = self._pool.lend()
            if self._chunked is None and wanted < len(self._page):
                self._page = self._page[:wanted]
        self._page[: len(self._early)] = self._early
        self._given, self._filled = 0, len(self._early)
        self._early = b""

    def _close_page(self) -> None:
        assert self._page is not None
        if self._filled > self._given:
            self._ready.append(self._page[self._given : self._filled].toreadonly())
        self._page = None
        self._given = self._filled = 0
