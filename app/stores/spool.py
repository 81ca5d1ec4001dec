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
from bisect import insort
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import Refusal
from app.core.units import as_size
from app.stores.spool_file import SpoolFile, disk_refused

_PREFIX = "weir-"
_LOCK = "owner.lock"
_MOST_RECYCLED = 16


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """A snapshot. ``recycled_bytes`` are on disk beside ``used_bytes``, in files that wait to be written over;
    ``kept_bytes`` are among the used ones."""

    used_bytes: int
    limit_bytes: int
    open_files: int
    overflows: int
    recycled_bytes: int
    kept_bytes: int
    kept_files: int


class Spool:
    """A directory of one process, and the bytes that may be in it at once. Its calls block; they may come from any
    thread.

    Files that are done with are kept for the next ones, up to ``recycle_bytes`` and within the limit: a new file's pages
    are the slowest part of writing it.
    """

    def __init__(self, directory: Path, *, limit_bytes: int, recycle_bytes: int = 0) -> None:
        """Clear what dead processes left under ``directory``, and take a place of our own there."""
        self.directory, self._lock_fd = take_place(directory)
        self.limit_bytes = limit_bytes
        self._recycle_bytes = min(recycle_bytes, limit_bytes)
        self._used_bytes = 0
        self._open_files = 0
        self._overflows = 0
        self._kept_bytes = 0
        self._kept_files = 0
        self._recycled: list[tuple[int, int]] = []  # bytes on disk, descriptor: the smallest first
        self._guard = threading.Lock()
        self._closer = ThreadPoolExecutor(1, thread_name_prefix="weir-close")

    def open(self) -> SpoolFile:
        """An empty file without a name. Raises ``spool_full`` for a disk without room for one, ``spool_failed`` where
        none can be made: the directory is gone, or no descriptor is free."""
        with self._guard:
            disk_bytes, fd = self._recycled.pop() if self._recycled else (0, -1)
        if fd < 0:
            try:
                fd = self._new()
            except OSError as error:
                raise disk_refused(error) from error
        with self._guard:
            self._open_files += 1
        return SpoolFile(self, fd, disk_bytes)

    def close(self) -> None:
        """Remove the directory. Files that are still open keep working until they are closed."""
        self.make_room()
        self._recycle_bytes = 0
        self._closer.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock_fd)

    def note_overflow(self) -> None:
        """Count a result that went to disk because its client did not read."""
        with self._guard:
            self._overflows += 1

    def statistics(self) -> SpoolStatistics:
        """What is on disk, now."""
        with self._guard:
            recycled = sum(disk_bytes for disk_bytes, _ in self._recycled)
            return SpoolStatistics(
                self._used_bytes,
                self.limit_bytes,
                self._open_files,
                self._overflows,
                recycled,
                self._kept_bytes,
                self._kept_files,
            )

    def keep(self, nbytes: int) -> None:
        """Count a file that stands beside the spool, and takes of its limit."""
        with self._guard:
            self._used_bytes += nbytes
            self._kept_bytes += nbytes
            self._kept_files += 1

    def drop(self, nbytes: int) -> None:
        """Such a file is gone. One may be dropped by another process than kept it: the sum over all is right."""
        with self._guard:
            self._used_bytes -= nbytes
            self._kept_bytes -= nbytes
            self._kept_files -= 1

    # What its files call.

    def take(self, nbytes: int) -> None:
        """See ``spool_file.Owner``."""
        with self._guard:
            if self._used_bytes + nbytes > self.limit_bytes:
                raise Refusal(
                    "spool_full",
                    f"the disk spool holds {as_size(self._used_bytes)} of SPOOL_LIMIT={as_size(self.limit_bytes)}",
                )
            self._used_bytes += nbytes
            surplus = self._surplus()
        self._close_all(surplus)

    def give_back(self, nbytes: int) -> None:
        """See ``spool_file.Owner``."""
        with self._guard:
            self._used_bytes -= nbytes

    def make_room(self) -> bool:
        """See ``spool_file.Owner``."""
        with self._guard:
            given_up = [fd for _, fd in self._recycled]
            self._recycled.clear()
        for fd in given_up:
            os.close(fd)  # here and now: whoever asks needs the room
        return bool(given_up)

    def retire(self, fd: int, nbytes: int, disk_bytes: int, *, again: bool) -> None:
        """See ``spool_file.Owner``."""
        with self._guard:
            self._used_bytes -= nbytes
            self._open_files -= 1
            if again:
                insort(self._recycled, (disk_bytes, fd))
            surplus = [*self._surplus(), *([] if again else [fd])]
        self._close_all(surplus)

    def _surplus(self) -> list[int]:
        """Take the smallest recycled files out until the rest may stay."""
        room = min(self._recycle_bytes, self.limit_bytes - self._used_bytes)
        kept = sum(disk_bytes for disk_bytes, _ in self._recycled)
        surplus: list[int] = []
        while self._recycled and (kept > room or len(self._recycled) > _MOST_RECYCLED or not self._recycle_bytes):
            disk_bytes, fd = self._recycled.pop(0)
            kept -= disk_bytes
            surplus.append(fd)
        return surplus

    def _close_all(self, fds: list[int]) -> None:
        """To close the last descriptor of a file is to free its blocks: 55 to 200 ms for a GiB, which no caller should wait."""
        for fd in fds:
            self._closer.submit(os.close, fd)

    def _new(self) -> int:
        try:
            return os.open(self.directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
            fd, name = tempfile.mkstemp(dir=self.directory)
            os.unlink(name)
            return fd


def take_place(directory: Path) -> tuple[Path, int]:
    """A directory under ``directory`` that only this process has, and the descriptor of the lock that says so: it is the
    caller's to close. What processes that are gone left there is removed first; nobody else's is touched."""
    directory.mkdir(parents=True, exist_ok=True)
    all_places = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(all_places, fcntl.LOCK_EX)  # a place that was made and is not yet locked looks abandoned
        _clear_abandoned(directory)
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))
        lock_fd = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return place, lock_fd
    finally:
        os.close(all_places)


def _clear_abandoned(directory: Path) -> None:
    for place in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            fd = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)
            finally:
                os.close(fd)
