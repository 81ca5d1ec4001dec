"""The disk that takes what must not stay in memory: overflowing results, Parquet uploads, whole results, rejects.

Its files have no name: they are gone when they are closed, and when the process is killed. Names are needed for what
other libraries write by themselves (a database engine's spill files); those stand in a directory that belongs to one
process, held by a lock, and the next start clears the directories whose owner is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import Refusal
from app.core.units import as_size

_PREFIX = "weir-"
_LOCK = "owner.lock"


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """A snapshot."""

    used_bytes: int
    limit_bytes: int
    open_files: int
    overflows: int


class Spool:
    """A directory of one process, and the bytes that may be in it at once. Its calls block; they may come from any
    thread."""

    def __init__(self, directory: Path, *, limit_bytes: int) -> None:
        """Clear what dead processes left under ``directory``, and take a place of our own there."""
        directory.mkdir(parents=True, exist_ok=True)
        clear_abandoned(directory)
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._open_files = 0
        self._overflows = 0
        self._guard = threading.Lock()
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))
        self._lock_fd = os.open(self.directory / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def open(self) -> SpoolFile:
        """A new empty file without a name."""
        try:
            fd = os.open(self.directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
            fd, name = tempfile.mkstemp(dir=self.directory)
            os.unlink(name)
        with self._guard:
            self._open_files += 1
        return SpoolFile(self, fd)

    def close(self) -> None:
        """Remove the directory. Files that are still open keep working until they are closed."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock_fd)

    def note_overflow(self) -> None:
        """Count a result that went to disk because its client did not read."""
        with self._guard:
            self._overflows += 1

    def statistics(self) -> SpoolStatistics:
        """What is on disk, now."""
        with self._guard:
            return SpoolStatistics(self._used_bytes, self._limit_bytes, self._open_files, self._overflows)

    def _take(self, nbytes: int) -> None:
        with self._guard:
            if self._used_bytes + nbytes > self._limit_bytes:
                raise Refusal(
                    "spool_full",
                    f"the disk spool holds {as_size(self._used_bytes)} of SPOOL_LIMIT={as_size(self._limit_bytes)}",
                )
            self._used_bytes += nbytes

    def _give_back(self, nbytes: int, files: int) -> None:
        with self._guard:
            self._used_bytes -= nbytes
            self._open_files -= files


class SpoolFile:
    """A file without a name: bytes are appended, and read at any offset. Its calls block and may come from any thread;
    one at a time gets through, so that ``close`` never pulls the descriptor from under a write."""

    def __init__(self, spool: Spool, fd: int) -> None:
        self._spool = spool
        self._fd = fd
        self._guard = threading.Lock()
        self.nbytes = 0

    @property
    def path(self) -> str:
        """A name that works in this process for as long as the file is open."""
        return f"/proc/self/fd/{self._fd}"

    def append(self, data: bytes | memoryview) -> None:
        """Write all of ``data`` at the end. Raises ``spool_full`` for the spool's limit and for a full disk."""
        view = memoryview(data)
        with self._guard:
            self._spool._take(view.nbytes)
            try:
                self._write(view)
            except OSError as error:
                self._spool._give_back(view.nbytes, 0)
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise Refusal("spool_full", "the disk under SPOOL_DIR is full") from error
                raise
            self.nbytes += view.nbytes

    def read(self, offset: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` at ``offset``; fewer only at the end of the file."""
        pieces: list[bytes] = []
        with self._guard:
            while nbytes > 0 and (piece := os.pread(self._fd, nbytes, offset)):
                pieces.append(piece)
                offset += len(piece)
                nbytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give the disk back. May be called twice."""
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                self._spool._give_back(self.nbytes, 1)

    def _write(self, view: memoryview) -> None:
        written = 0
        while written < view.nbytes:
            written += os.pwrite(self._fd, view[written:], self.nbytes + written)


def clear_abandoned(directory: Path) -> int:
    """Remove the places of processes that are gone; their number. Nobody else's are touched."""
    cleared = 0
    for place in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            fd = os.open(place / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)
                cleared += 1
            finally:
                os.close(fd)
    return cleared
