"""Objects as files under a directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Refusal
from app.stores.objects import (
    TOKEN,
    NoSuchUpload,
    ObjectInfo,
    OpenUpload,
    PartLimits,
    Piece,
    SentPart,
    Writing,
)

_UPLOADS = ".weir-uploads"
_XATTR = f"user.{TOKEN}"
_MOST_PIECES = 512
"""Of one writev(2), which takes 1,024."""


class DirectoryStore:
    """See ``ObjectStore``. A key is a path below ``root``, and never leads out of it. What is visible is whole and on
    disk (fsync); uploads grow in a hidden directory and take their name when they are complete."""

    def __init__(self, root: Path, name: str) -> None:
        self.limits = PartLimits(1, 1 << 40, 1 << 30, 1 << 60)
        self._root = root.resolve()
        self._name = name

    def url(self, key: str) -> str:
        """See ``ObjectStore.url``."""
        return f"store:{self._name}/{key}"

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        with self._translated(key), self._path(key).open("rb", buffering=0) as file:
            return self._info(key, file.fileno())

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        """See ``ObjectStore.read``. The file is held open, so what takes its place does not disturb."""
        with self._translated(key), self._path(key).open("rb", buffering=0) as file:
            end = offset + nbytes
            while offset < end:
                piece = os.pread(file.fileno(), min(piece_bytes, end - offset), offset)
                if not piece or self._info(key, file.fileno()).etag != etag:
                    raise Refusal("object_changed", f"{self.url(key)} changed while it was read")
                offset += len(piece)
                yield piece

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        upload_id = self.begin(key, writing)
        try:
            part = self.put_part(key, upload_id, 1, 0, pieces, crc32)
            return self.complete(key, upload_id, (part,), writing)
        except BaseException:
            with contextlib.suppress(NoSuchUpload, OSError):
                self.abort(key, upload_id)
            raise

    def begin(self, key: str, writing: Writing) -> str:
        """See ``ObjectStore.begin``."""
        self._path(key)
        upload_id = secrets.token_hex(8)
        with self._translated(key):
            place = self._root / _UPLOADS / upload_id
            place.mkdir(parents=True)
            (place / "key").write_bytes(key.encode())  # as text, a carriage return would come back as a line feed
            (place / "data").touch()
            with contextlib.suppress(OSError):  # a file system without attributes; then nothing can be proved by it
                os.setxattr(place / "data", _XATTR, writing.token.encode())
        return upload_id

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        """See ``ObjectStore.put_part``. The CRC-32 is not made once more: what is written is the memory it was made of."""
        with self._translated(key), self._data(key, upload_id).open("r+b", buffering=0) as file:
            nbytes = _write(file.fileno(), pieces, offset)
        return SentPart(number, offset, nbytes, crc32, f'"{crc32:08x}"')

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.complete``."""
        data, path = self._data(key, upload_id), self._path(key)
        with self._translated(key):
            with data.open("r+b", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != sum(part.nbytes for part in parts):
                    raise Refusal("store_failed", f"{self.url(key)}: the parts do not make up the object")
                os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            if writing.overwrite:
                os.replace(data, path)
            else:
                os.link(data, path)
            _fsync_directory(path.parent)
            shutil.rmtree(data.parent, ignore_errors=True)
        return self.head(key)

    def abort(self, key: str, upload_id: str) -> None:
        """See ``ObjectStore.abort``."""
        shutil.rmtree(self._data(key, upload_id).parent)

    def uploads(self, prefix: str) -> list[OpenUpload]:
        """See ``ObjectStore.uploads``."""
        found: list[OpenUpload] = []
        for place in (self._root / _UPLOADS).glob("*"):
            with contextlib.suppress(OSError):
                key = (place / "key").read_bytes().decode()
                if key.startswith(prefix):
                    found.append(OpenUpload(key, place.name, place.stat().st_ctime))
        return found

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        with self._translated(key):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or "\0" in key or any(part in ("", ".", "..") for part in parts) or parts[0] == _UPLOADS:
            raise Refusal("bad_argument", f"{key[:200]!r} cannot be the name of a file in a store")
        path = self._root.joinpath(*parts)
        if not path.parent.resolve().is_relative_to(self._root) or path.is_symlink():
            raise Refusal("forbidden", f"{key[:200]!r} leads out of the store")
        return path

    def _data(self, key: str, upload_id: str) -> Path:
        place = self._root / _UPLOADS / upload_id
        if not upload_id.isalnum() or not (place / "key").exists() or (place / "key").read_bytes() != key.encode():
            raise NoSuchUpload
        return place / "data"

    def _info(self, key: str, fd: int) -> ObjectInfo:
        seen = os.fstat(fd)
        metadata: dict[str, str] = {}
        with contextlib.suppress(OSError):
            metadata[TOKEN] = os.getxattr(fd, _XATTR).decode()
        etag = f'"{seen.st_ino:x}-{seen.st_size:x}-{seen.st_mtime_ns:x}"'
        return ObjectInfo(key, seen.st_size, etag, seen.st_mtime, metadata)

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise Refusal("not_found", f"there is no object {self.url(key)}") from error
        except FileExistsError as error:
            raise Refusal("precondition_failed", f"{self.url(key)} is there already") from error
        except PermissionError as error:
            raise Refusal("forbidden", f"{self.url(key)}: {error.strerror}") from error
        except OSError as error:
            raise Refusal("store_failed", f"{self.url(key)}: {error.strerror}") from error


def _write(fd: int, pieces: Sequence[Piece], offset: int) -> int:
    written = 0
    todo = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    while todo:
        count = os.pwritev(fd, todo[:_MOST_PIECES], offset + written)
        written += count
        while todo and count >= todo[0].nbytes:
            count -= todo.pop(0).nbytes
        if count:
            todo[0] = todo[0][count:]
    # The kernel begins to write it now, and not when all of it is to be on disk.
    os.posix_fadvise(fd, offset, written, os.POSIX_FADV_DONTNEED)
    return written


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
