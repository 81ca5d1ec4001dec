"""What is kept of runs after their end: in files beside the spool, or in a store."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from app.core.errors import Refusal
from app.stores.catalogue import Stores
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile

_FILE = "file:"
_YOUNG_S = 60.0
"""A file may be known to a record that is about to be written."""


class KeptBytes(Protocol):
    """Something that is kept, opened to be read. It stays what it is until it is closed, even if it is dropped
    meanwhile."""

    nbytes: int
    fd: int | None
    """A descriptor to read it by, where it is a file."""

    def pieces(self, offset: int, nbytes: int, piece_bytes: int) -> Iterator[bytes]:
        """A stretch of it, in order. Blocks; any thread, one at a time."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Shelf:
    """Keeps files under names, in a directory that all processes on this disk share and that outlives them. What it
    keeps counts as used in ``spool``. Calls block.

    A place is how a record calls what is kept: ``file:PATH`` or an object's URL.
    """

    def __init__(self, directory: Path, spool: Spool, stores: Stores) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory.resolve()
        self._spool = spool
        self._stores = stores

    def put(self, file: SpoolFile, name: str) -> str:
        """Keep ``file``, durably, under ``name``; its place. What stood there goes: it is of an attempt whose server went
        down before the record knew of it. The file itself is the caller's to close."""
        path = self._directory / name
        self.drop(f"{_FILE}{path}")
        file.trim()
        file.link(path)
        self._spool.keep(file.nbytes)
        return f"{_FILE}{path}"

    def open(self, place: str) -> KeptBytes:
        """Open what is kept. Raises ``gone``."""
        if place.startswith(_FILE):
            return _File(Path(place.removeprefix(_FILE)))
        return _Object(self._stores, place)

    def path(self, place: str) -> Path | None:
        """The file of a place, where it is a file that is there."""
        path = Path(place.removeprefix(_FILE))
        return path if place.startswith(_FILE) and path.exists() else None

    def drop(self, place: str) -> None:
        """Forget what is kept. It is no error if that was done before."""
        if not place.startswith(_FILE):
            found = self._stores.reopen(place, threading.Event())
            found.store.delete(found.key)
            return
        path = Path(place.removeprefix(_FILE))
        with contextlib.suppress(FileNotFoundError):
            nbytes = path.stat().st_size
            path.unlink()
            self._spool.drop(nbytes)

    def take_stock(self, known: set[str]) -> None:
        """Count what stands here from before, and drop what no record knows: its process was killed between the two."""
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                seen = path.stat()
                # Since it was put here, which may be long after it was last written to.
                if f"{_FILE}{path}" in known or time.time() - seen.st_ctime < _YOUNG_S:
                    self._spool.keep(seen.st_size)
                else:
                    path.unlink()

    def drop_unknown(self, known: Callable[[], set[str]], *, older_than_s: float) -> None:
        """Drop what has stood here for that long and no record knows any more: a server with another disk that swept the
        record could not reach it. ``known`` is asked for only if there is anything so old."""
        until = time.time() - max(older_than_s, _YOUNG_S)
        old: list[str] = []
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ctime <= until:
                    old.append(f"{_FILE}{path}")
        if old:
            for place in set(old) - known():
                self.drop(place)


class SpooledBytes:
    """See ``KeptBytes``: a file of the spool that is held within a scope."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self._held = file.held()
        self.nbytes = file.nbytes
        self.fd: int | None = None

    def __enter__(self) -> SpooledBytes:
        self.fd = self._held.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pieces(self, offset: int, nbytes: int, piece_bytes: int) -> Iterator[bytes]:
        """See ``KeptBytes.pieces``."""
        assert self.fd is not None
        return _pieces(self.fd, offset, nbytes, piece_bytes)

    def close(self) -> None:
        """See ``KeptBytes.close``."""
        if self.fd is not None:
            self.fd = None
            self._held.__exit__(None, None, None)


class _File:
    def __init__(self, path: Path) -> None:
        try:
            self.fd: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Refusal("gone", "what was kept is no longer here, or on the disk of another server") from error
        self.nbytes = os.fstat(self.fd).st_size

    def pieces(self, offset: int, nbytes: int, piece_bytes: int) -> Iterator[bytes]:
        assert self.fd is not None
        return _pieces(self.fd, offset, nbytes, piece_bytes)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class _Object:
    fd: int | None = None

    def __init__(self, stores: Stores, place: str) -> None:
        self._stop = threading.Event()
        self._found = stores.reopen(place, self._stop)
        try:
            self._info = self._found.store.head(self._found.key)
        except Refusal as refusal:
            if refusal.code == "not_found":
                raise Refusal("gone", "what was kept is no longer in its store") from refusal
            raise
        self.nbytes = self._info.nbytes

    def pieces(self, offset: int, nbytes: int, piece_bytes: int) -> Iterator[bytes]:
        return self._found.store.read(
            self._found.key, offset=offset, nbytes=nbytes, etag=self._info.etag, piece_bytes=piece_bytes
        )

    def close(self) -> None:
        self._stop.set()


def _pieces(fd: int, offset: int, nbytes: int, piece_bytes: int) -> Iterator[bytes]:
    end = offset + nbytes
    while offset < end:
        piece = os.pread(fd, min(piece_bytes, end - offset), offset)
        if not piece:
            raise Refusal("source_failed", f"the kept file ends at byte {offset}")
        offset += len(piece)
        yield piece
