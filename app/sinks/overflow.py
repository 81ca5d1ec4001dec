"""The edge before a response: it goes to disk when the client uploads and does not read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress

from app.core.channel import ChannelStatistics, EndOfChannel
from app.core.errors import Refusal
from app.core.interfaces import Stretch
from app.core.obtain import obtain
from app.core.page import Page
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile

_MOST_STRETCH_BYTES = 1 << 30
"""One chunk of the answer: some clients cannot count beyond 31 bits."""


class Overflow:
    """A FIFO like ``Channel`` whose overflow goes to the spool.

    Most clients (requests, httpx, wget, browsers) read nothing until they have sent everything. Once the buffers of
    both sockets are full, each side would wait for the other for ever. So when a page finds no room, the upload is
    still ``open`` and the client has taken nothing for ``patience_s``, pages go to a file, in order, until the client
    has taken that too. A client that takes its bytes, however slowly, is waited for instead: it pays no disk.

    When the spool is full as well, pages wait for the client; the sink gives up one that never reads.
    """

    name = "overflow"

    def __init__(
        self,
        *,
        high_water_bytes: int,
        page_bytes: int,
        spool: Spool,
        executor: Executor,
        upload_open: Callable[[], bool],
        progressed_at: Callable[[], float],
        patience_s: float = 0.2,
    ) -> None:
        self.high_water_bytes = high_water_bytes
        self._page_bytes = page_bytes
        self._spool = spool
        self._executor = executor
        self._upload_open = upload_open
        self._progressed_at = progressed_at
        self._patience_s = patience_s
        self._pages: deque[Page] = deque()
        self.held_bytes = 0
        self._peak_bytes = 0
        self._passed = 0
        self._file: SpoolFile | None = None
        self._read_bytes = 0
        self._spilling = False
        self._spool_is_full = False
        self._closed = False
        self._changed = asyncio.Event()
        self.spooled_bytes = 0

    async def send(self, page: Page) -> None:
        """See ``Edge.send``. Pages go to the file only behind pages that are older."""
        began = asyncio.get_running_loop().time()
        while True:
            if self._file is None and (not self.held_bytes or self.held_bytes + page.nbytes <= self.high_water_bytes):
                self._pages.append(page)
                self.held_bytes += page.nbytes
                self._peak_bytes = max(self._peak_bytes, self.held_bytes)
                break
            if self._stuck(began) and await self._spill(page):
                break
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s / 4):
                    await self._changed.wait()
        self._passed += 1
        self._changed.set()

    async def receive(self) -> Page:
        """See ``Edge.receive``."""
        while True:
            if self._pages:
                page = self._pages.popleft()
                self.held_bytes -= page.nbytes
                self._changed.set()
                return page
            if self._file is not None and self._read_bytes < self._file.nbytes:
                return await self._unspill(self._file)
            if self._closed:
                raise EndOfChannel
            self._changed.clear()
            await self._changed.wait()

    def stretch(self) -> Stretch | None:
        """See ``GivesStretches``."""
        if self._pages or not self._closed or self._file is None or self._spilling:
            return None
        nbytes = min(_MOST_STRETCH_BYTES, self._file.nbytes - self._read_bytes)
        if not nbytes:
            return None
        self._read_bytes += nbytes
        return Stretch(self._file, self._read_bytes - nbytes, nbytes)

    def close(self) -> None:
        """See ``Edge.close``."""
        self._closed = True
        self._changed.set()

    def drop(self) -> None:
        """See ``Edge.drop``; the file is given back, too."""
        self._pages.clear()
        self.held_bytes = 0
        self._give_back()

    def statistics(self) -> ChannelStatistics:
        """See ``Edge.statistics``; bytes on disk are not held."""
        return ChannelStatistics(self.name, self.held_bytes, self._peak_bytes, self.high_water_bytes, self._passed)

    def _stuck(self, since: float) -> bool:
        """The client sends, and takes nothing. ``since`` is when this page began to wait; with a file it need not."""
        idle_since = self._progressed_at() if self._file is not None else max(since, self._progressed_at())
        return (
            self._upload_open()
            and not self._spool_is_full
            and asyncio.get_running_loop().time() - idle_since >= self._patience_s
        )

    async def _spill(self, page: Page) -> bool:
        if self._file is None:
            self._file = await obtain(self._executor, self._spool.open, SpoolFile.close)
            self._read_bytes = 0
            self._spool.note_overflow()
        self._spilling = True
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, self._file.append, page.payload)
        except Refusal:
            self._spool_is_full = True
            return False
        finally:
            self._spilling = False
            self._drop_if_read()
        self.spooled_bytes += page.nbytes
        return True

    async def _unspill(self, file: SpoolFile) -> Page:
        nbytes = min(self._page_bytes, file.nbytes - self._read_bytes)
        data = await asyncio.get_running_loop().run_in_executor(self._executor, file.read_at, self._read_bytes, nbytes)
        self._read_bytes += len(data)
        self._drop_if_read()
        return Page(data, len(data))

    def _drop_if_read(self) -> None:
        """Go back to memory once the client has caught up."""
        if self._file is not None and not self._spilling and self._read_bytes == self._file.nbytes:
            self._give_back()
            self._spool_is_full = False
            self._changed.set()

    def _give_back(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
