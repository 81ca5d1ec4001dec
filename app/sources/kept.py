"""A body that was kept until its run's turn, as pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from app.core.page import Page
from app.sources.random_access import ReadFile, read_pages
from app.stores.kept import KeptBytes


async def kept_pages(kept: KeptBytes, page_bytes: int, executor: Executor) -> AsyncIterator[Page]:
    """All of it, in order; closed when this is closed or exhausted."""
    loop = asyncio.get_running_loop()
    pieces = kept.pieces(0, kept.nbytes, page_bytes)
    given = 0
    try:
        while (piece := await loop.run_in_executor(executor, next, pieces, None)) is not None:
            yield Page(piece, len(piece), byte=given, first=given == 0)
            given += len(piece)
            del piece
    finally:
        kept.close()


async def kept_pages_by(read: ReadFile, kept: KeptBytes, executor: Executor) -> AsyncIterator[Page]:
    """What ``read`` makes of it; closed when this is closed or exhausted."""
    input = _Kept(kept) if kept.fd is None else _KeptFile(kept)
    try:
        async with contextlib.aclosing(read_pages(input, read, executor)) as pages:
            async for page in pages:
                yield page
                del page
    finally:
        kept.close()


class _Kept:
    """See ``RandomAccess``."""

    def __init__(self, kept: KeptBytes) -> None:
        self._kept = kept
        self.nbytes = kept.nbytes

    def read_at(self, offset: int, nbytes: int) -> bytes:
        nbytes = max(0, min(nbytes, self.nbytes - offset))
        return b"".join(self._kept.pieces(offset, nbytes, nbytes)) if nbytes else b""


class _KeptFile(_Kept):
    """See ``OnDisk``."""

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._kept.fd}"
