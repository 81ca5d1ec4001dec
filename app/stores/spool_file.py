"""One file of the spool: it has no name, bytes are appended to it and read at any offset."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from app.core.errors import Refusal

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_refused(error: OSError) -> Refusal:
    """What the disk under SPOOL_DIR said, for who asked for the run."""
    if error.errno in _FULL:
        return Refusal("spool_full", "the disk under SPOOL_DIR is full")
    return Refusal("spool_failed", f"the disk under SPOOL_DIR: {error.strerror}")


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_refused(error) from error


class Owner(Protocol):
    """What a file asks of its spool."""

    def take(self, nbytes: int) -> None:
        """Room for ``nbytes`` more. Raises ``spool_full``."""
        ...

    def give_back(self, nbytes: int) -> None:
        """That room was not needed."""
        ...

    def make_room(self) -> bool:
        """The disk is full: give up what is only kept to be used again. False if there was nothing."""
        ...

    def retire(self, fd: int, nbytes: int, disk_bytes: int, *, again: bool) -> None:
        """A file is done with: it held ``nbytes``, and takes ``disk_bytes`` on disk. It may be used ``again`` unless it
        got a name."""
        ...


class SpoolFile:
    """Its calls block, and may come from any thread. ``close`` may come at any time: whoever reads or writes, or holds
    the file to send it, does so to the end, and only then is it given back.

    A file that was used before is written over, so that the kernel need not find new pages for it (twice as fast); what
    is left in it behind ``nbytes`` is never read.
    """

    def __init__(self, owner: Owner, fd: int, disk_bytes: int) -> None:
        self._owner = owner
        self._fd = fd
        self._disk_bytes = disk_bytes
        self._guard = threading.Lock()
        self._users = 0
        self._closed = False
        self._named = False
        self.nbytes = 0

    @property
    def path(self) -> str:
        """A name that works in this process for as long as the file is open; for what is ``trimmed``."""
        return f"/proc/self/fd/{self._fd}"

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """Its descriptor, which is not closed nor used for anything else within the scope."""
        with self._guard:
            if self._closed and not self._users:
                raise Refusal("gone", "the file is no longer kept")
            self._users += 1
        try:
            yield self._fd
        finally:
            self._let_go()

    def append(self, data: bytes | memoryview) -> None:
        """Write all of ``data`` at the end; one thread at a time. Raises ``spool_full`` for the spool's limit and for a
        full disk, ``spool_failed`` for whatever else the disk says."""
        view = memoryview(data).cast("B")
        with self.held() as fd:
            self._owner.take(view.nbytes)
            try:
                self._write(fd, view)
            except BaseException:
                self._owner.give_back(view.nbytes)
                raise
            self.nbytes += view.nbytes
            self._disk_bytes = max(self._disk_bytes, self.nbytes)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` at ``offset``; fewer only at the end of what was appended. Raises ``spool_failed``."""
        pieces: list[bytes] = []
        with self.held() as fd, _disk():
            nbytes = min(nbytes, self.nbytes - offset)
            while nbytes > 0 and (piece := os.pread(fd, nbytes, offset)):
                pieces.append(piece)
                offset += len(piece)
                nbytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def trim(self) -> None:
        """Cut off what an earlier use left behind the end, for readers that look for the end of the file. Raises
        ``spool_failed``."""
        with self.held() as fd, _disk():
            if self._disk_bytes > self.nbytes:
                os.ftruncate(fd, self.nbytes)
                self._disk_bytes = self.nbytes

    def link(self, path: Path) -> None:
        """Make what was appended durable, and give it a name; the file then outlives this process. Raises ``spool_full``,
        ``spool_failed``."""
        with self.held() as fd, _disk(), _opened(path.parent) as directory:
            os.fsync(fd)
            try:
                # By a descriptor of the directory: only then does Python call linkat(2), which follows the link.
                os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=directory, follow_symlinks=True)
            except FileNotFoundError:
                _copy(fd, path)  # a file system without O_TMPFILE: what was unlinked cannot be linked again
            os.fsync(directory)
        self._named = True

    def close(self) -> None:
        """Give the file back, once nobody uses it. May be called twice."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._users += 1
        self._let_go()

    def _let_go(self) -> None:
        with self._guard:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            self._owner.retire(self._fd, self.nbytes, self._disk_bytes, again=not self._named)

    def _write(self, fd: int, view: memoryview) -> None:
        written = 0
        while written < view.nbytes:
            try:
                written += os.pwrite(fd, view[written:], self.nbytes + written)
            except OSError as error:
                if error.errno not in _FULL or not self._owner.make_room():
                    raise disk_refused(error) from error


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy(fd: int, path: Path) -> None:
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as copy:
            os.lseek(fd, 0, os.SEEK_SET)
            while os.sendfile(copy.fileno(), fd, None, 1 << 30):
                pass
            os.fsync(copy.fileno())
        os.rename(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
