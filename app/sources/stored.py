"""An object of a store as pages, read in ranges ahead of what is needed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from functools import partial
from typing import Literal

from app.core.errors import Refusal
from app.core.page import Page
from app.sources.random_access import ReadFile, read_pages
from app.stores.catalogue import Located
from app.stores.objects import ObjectInfo

Way = Literal["long", "short"]
_WAYS: tuple[Way, Way] = ("long", "short")
_STRETCH_BYTES = 64 << 20
"""How much is read in one way before it is asked which is better."""
_TRIAL_EVERY = 32
"""Stretches after which both are tried again."""
_CLEARLY = 0.8


class StoredObject:
    """One version of an object: whatever is read later comes from it, or ``object_changed`` is raised.

    ``ahead`` ranges of ``range_bytes`` are fetched at a time, each by one call on ``executor``, or one after the other
    from a longer answer; what broke off goes on at its byte. ``stop`` ends calls that try again.
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
        """All of it, in order. Once closed, no thread works for it any more.

        Which way is faster is the store's: one long answer, or several short ones at a time (AWS). Each is tried for a
        while, and the one that keeps its reader waiting less goes on; when neither does, the long one, which is cheaper.
        """
        waited_s = dict.fromkeys(_WAYS, 0.0)
        offset, stretch = 0, 0
        while offset < self.nbytes:
            is_trial = stretch % _TRIAL_EVERY < len(_WAYS)
            prefers_short = waited_s["short"] < _CLEARLY * waited_s["long"]
            way = _WAYS[stretch % _TRIAL_EVERY] if is_trial else _WAYS[prefers_short]
            end = min(self.nbytes, offset + _STRETCH_BYTES)
            if is_trial:
                waited_s[way] = 0.0
            async with contextlib.aclosing(self._lists(way, offset, end)) as lists:
                async for pieces, seconds in lists:
                    waited_s[way] += seconds if is_trial else 0.0
                    pieces.reverse()
                    while pieces:
                        piece = pieces.pop()
                        yield Page(piece, len(piece), byte=offset, first=offset == 0)
                        offset += len(piece)
                        del piece
            stretch += 1

    async def _lists(self, way: Way, offset: int, end: int) -> AsyncGenerator[tuple[list[bytes], float], None]:
        """What is from ``offset`` to ``end``, a range's worth at a time, with the seconds that were waited for it."""
        loop = asyncio.get_running_loop()
        fetching: deque[asyncio.Future[list[bytes]]] = deque()
        starts = range(offset, end, self._range_bytes)
        calls: Iterator[Callable[[], list[bytes]]]
        answer: Iterator[bytes] = iter(())
        if way == "long":
            answer = self._read(offset, end - offset, self._page_bytes)
            calls = iter([partial(_take, answer, self._range_bytes) for _ in starts])
        else:
            calls = (partial(self._fetch, start, min(self._range_bytes, end - start)) for start in starts)

        def begin() -> None:
            while len(fetching) < (1 if way == "long" else self._ahead) and (call := next(calls, None)) is not None:
                fetching.append(loop.run_in_executor(self._executor, call))

        try:
            begin()
            while fetching:
                began = time.perf_counter()
                # Shielded: a cancelled future of a running call would be forgotten, and the call would go on.
                pieces = await asyncio.shield(fetching[0])
                fetching.popleft()
                begin()
                yield pieces, time.perf_counter() - began
        except BaseException:
            self._stop.set()  # what has not begun yet ends at once
            raise
        finally:
            while running := [future for future in fetching if not future.done()]:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(running)
            for future in fetching:
                future.exception()  # looked at, so that asyncio does not report it as lost
            if isinstance(answer, Generator):
                answer.close()  # and with it its connection, if it was not read to its end

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

    def _fetch(self, offset: int, nbytes: int) -> list[bytes]:
        if self._stop.is_set():
            raise Refusal("cancelled", "the run ended before this was read")
        return list(self._read(offset, nbytes, self._page_bytes))

    def _read(self, offset: int, nbytes: int, piece_bytes: int) -> Iterator[bytes]:
        place = self._place
        return place.store.read(place.key, offset=offset, nbytes=nbytes, etag=self._info.etag, piece_bytes=piece_bytes)


def _take(pieces: Iterator[bytes], nbytes: int) -> list[bytes]:
    """The next pieces, until they are ``nbytes`` or there are no more."""
    taken: list[bytes] = []
    while nbytes > 0 and (piece := next(pieces, None)) is not None:
        taken.append(piece)
        nbytes -= len(piece)
    return taken
