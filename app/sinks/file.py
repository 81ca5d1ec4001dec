"""A local file that appears only once it is whole; or standard output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.core.page import Page


class FileSink:
    """Writes beside ``path`` under another name, and takes the name at ``commit``, after the bytes are on disk.

    ``abort`` removes what was written, so that nothing partial ever bears the name.
    """

    holds = 0

    def __init__(self, path: Path, executor: Executor) -> None:
        self._path = path
        self._executor = executor
        self._nbytes = 0
        try:
            self._fd, self._partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        except OSError as error:
            raise Refusal("sink_failed", f"{path}: {error.strerror}") from error

    async def write(self, page: Page) -> None:
        """Append a page."""
        await _on_thread(self._executor, _write_all, self._fd, page.payload)
        self._nbytes += page.nbytes

    async def commit(self) -> Receipt:
        """Make the file durable and give it its name, and the permissions that a new file gets."""
        await _on_thread(self._executor, self._rename)
        return Receipt(self._nbytes)

    async def abort(self) -> None:
        """Remove what was written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self._partial)

    def _rename(self) -> None:
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(self._fd, 0o666 & ~umask)
        os.fsync(self._fd)
        os.rename(self._partial, self._path)
        os.close(self._fd)
        self._fd = -1


class StdoutSink:
    """Writes to a descriptor that someone else owns. What was written cannot be taken back: the exit status tells."""

    holds = 0

    def __init__(self, fd: int, executor: Executor) -> None:
        self._fd = fd
        self._executor = executor
        self._nbytes = 0

    async def write(self, page: Page) -> None:
        """Write a page."""
        await _on_thread(self._executor, _write_all, self._fd, page.payload)
        self._nbytes += page.nbytes

    async def commit(self) -> Receipt:
        """Nothing is left to do."""
        return Receipt(self._nbytes)

    async def abort(self) -> None:
        """Nothing can be done."""


async def _on_thread(executor: Executor, work: Callable[..., object], *arguments: object) -> None:
    """Run blocking ``work``; when cancelled, wait for it first: the descriptor must not be closed under it."""
    future: asyncio.Future[object] = asyncio.get_running_loop().run_in_executor(executor, work, *arguments)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        raise
    except BrokenPipeError as error:
        raise Refusal("sink_failed", "the reader of the output left") from error
    except OSError as error:
        raise Refusal("sink_failed", f"writing failed: {error.strerror}") from error


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(fd, view) :]
