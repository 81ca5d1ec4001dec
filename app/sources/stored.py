"""An object of a store as pages, read in ranges ahead of what is needed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor, Future, wait

from app.core.errors import Refusal
from app.core.page import Page
from app.sources.random_access import ReadFile, read_pages
from app.stores.catalogue import Located
from app.stores.objects import ObjectInfo


class StoredObject:
    """One version of an object: whatever is read later comes from it, or ``object_changed`` is raised.

    ``ahead`` ranges of ``range_bytes`` are fetched at a time, each by one call on ``executor``; a range that broke off
    goes on at its byte. ``stop`` ends calls that try again.
    """

    def __init__(
        self,
        place: Located,
        info: ObjectInfo,
        *,
        range_bytes: int,
        page_bytes: int,
        ahead: int,
        executor: Executor,
        stop: threading.Event,
    ) -> None:
        self.holds = (ahead + 1) * range_bytes
        """The most bytes it has fetched and not yet given."""
        self.nbytes = info.nbytes
        self.url = place.url
        self._place = place
        self._info = info
        self._range_bytes = range_bytes
        self._page_bytes = page_bytes
        self._ahead = ahead
        self._executor = executor
        self._stop = stop

    async def pages(self) -> AsyncGenerator[Page, None]:
        """All of it, in order. Once closed, no thread works for it any more."""
        loop = asyncio.get_running_loop()
        fetching: deque[asyncio.Future[list[bytes]]] = deque()
        given = 0
        offsets = iter(range(0, self.nbytes, self._range_bytes))
        try:
            while True:
                while len(fetching) < self._ahead and (offset := next(offsets, None)) is not None:
                    fetching.append(loop.run_in_executor(self._executor, self._fetch, offset))
                if not fetching:
                    return
                # Shielded: a cancelled future of a running call would be forgotten, and the call would go on.
                pieces = await asyncio.shield(fetching[0])
                fetching.popleft()
                pieces.reverse()
                while pieces:
                    piece = pieces.pop()
                    yield Page(piece, len(piece), byte=given, first=given == 0)
                    given += len(piece)
                    del piece
        finally:
            self._stop.set()  # what has not begun yet ends at once
            while running := [future for future in fetching if not future.done()]:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(running)
            for future in fetching:
                future.exception()  # looked at, so that asyncio does not report it as lost

    def pages_by(self, read: ReadFile, executor: Executor) -> AsyncIterator[Page]:
        """What ``read`` makes of it on ``executor``, which must be another one; it asks for those bytes that it needs.
        What it holds then is not in ``holds``."""
        return read_pages(self, read, executor, ended=self._stop.set)

    def read_several(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ``ReadsSeveral``: ``ahead`` at a time. Not from a thread that fetches."""
        found: list[bytes] = []
        fetching: deque[Future[bytes]] = deque()
        try:
            for place in places:
                if len(fetching) == self._ahead:
                    found.append(fetching.popleft().result())
                fetching.append(self._executor.submit(self.read_at, *place))
            while fetching:
                found.append(fetching.popleft().result())
        finally:
            wait(fetching)
        return found

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """See ``RandomAccess``."""
        if self._stop.is_set():
            raise Refusal("cancelled", "the run ended before this was read")
        nbytes = min(nbytes, self.nbytes - offset)
        if nbytes <= 0:
            return b""
        return b"".join(self._read(offset, nbytes, nbytes))

    def _fetch(self, offset: int) -> list[bytes]:
        if self._stop.is_set():
            raise Refusal("cancelled", "the run ended before this was read")
        nbytes = min(self._range_bytes, self.nbytes - offset)
        return self._read(offset, nbytes, self._page_bytes)

    def _read(self, offset: int, nbytes: int, piece_bytes: int) -> list[bytes]:
        place = self._place
        return list(
            place.store.read(place.key, offset=offset, nbytes=nbytes, etag=self._info.etag, piece_bytes=piece_bytes)
        )
