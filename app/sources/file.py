"""A local file or a pipe, as pages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from app.core.errors import Refusal
from app.core.page import Page


async def file_pages(fd: int, *, page_bytes: int, executor: Executor) -> AsyncIterator[Page]:
    """What is read from ``fd`` until its end, in pages of up to ``page_bytes``. A pipe gives what it has. The caller
    closes ``fd``."""
    loop = asyncio.get_running_loop()
    offset = 0
    while True:
        try:
            data = await loop.run_in_executor(executor, _read_full, fd, page_bytes)
        except OSError as error:
            raise Refusal("source_failed", f"reading failed at byte {offset}: {error.strerror}") from error
        if not data:
            return
        yield Page(data, len(data), byte=offset, first=offset == 0)
        offset += len(data)


class LocalFile:
    """A regular file behind ``fd``, which the caller closes: see ``RandomAccess`` and ``OnDisk``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.nbytes = os.fstat(fd).st_size
        self.path = f"/proc/self/fd/{fd}"

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """See ``RandomAccess``."""
        try:
            return os.pread(self._fd, nbytes, offset)
        except OSError as error:
            raise Refusal("source_failed", f"reading failed at byte {offset}: {error.strerror}") from error


def _read_full(fd: int, nbytes: int) -> bytes:
    """One read; and more of them while a pipe hands out small pieces quickly is not worth a page's delay."""
    first = os.read(fd, nbytes)
    if not first or len(first) == nbytes:
        return first
    pieces, total = [first], len(first)
    os.set_blocking(fd, False)
    try:
        while total < nbytes and (piece := os.read(fd, nbytes - total)):
            pieces.append(piece)
            total += len(piece)
    except BlockingIOError:
        pass
    finally:
        os.set_blocking(fd, True)
    return b"".join(pieces)
