"""Objects in memory: for tests, and the shortest reading of what a store has to do."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.core.errors import Refusal
from app.stores.objects import (
    TOKEN,
    NoSuchUpload,
    ObjectInfo,
    OpenUpload,
    PartLimits,
    Piece,
    SentPart,
    Transient,
    Writing,
)


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    etag: str
    modified_at: float
    metadata: Mapping[str, str]


@dataclass(slots=True)
class _Upload:
    key: str
    writing: Writing
    began_at: float
    parts: dict[int, bytes] = field(default_factory=dict)


_ROOMY = PartLimits(1, 1 << 30, 10_000, 1 << 40)


class MemoryStore:
    """See ``ObjectStore``."""

    def __init__(self, limits: PartLimits = _ROOMY) -> None:
        self.limits = limits
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}
        self._ids = itertools.count(1)
        self._guard = threading.Lock()

    def url(self, key: str) -> str:
        """See ``ObjectStore.url``."""
        return f"memory:{key}"

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        found = self._find(key)
        return ObjectInfo(key, len(found.data), found.etag, found.modified_at, found.metadata)

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        for start in range(offset, offset + nbytes, piece_bytes):
            found = self._find(key)
            if found.etag != etag:
                raise Refusal("object_changed", f"{self.url(key)} changed while it was read")
            yield found.data[start : min(start + piece_bytes, offset + nbytes)]

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        self._store(key, _checked(pieces, crc32), writing)
        return self.head(key)

    def begin(self, key: str, writing: Writing) -> str:
        """See ``ObjectStore.begin``."""
        with self._guard:
            upload_id = str(next(self._ids))
            self._uploads[upload_id] = _Upload(key, writing, time.time())
        return upload_id

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        """See ``ObjectStore.put_part``."""
        data = _checked(pieces, crc32)
        with self._guard:
            self._open(key, upload_id).parts[number] = data
        return SentPart(number, offset, len(data), crc32, f'"{hashlib.md5(data).hexdigest()}"')

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.complete``."""
        with self._guard:
            upload = self._open(key, upload_id)
            data = b"".join(upload.parts[part.number] for part in parts)
        self._store(key, data, writing)
        with self._guard:
            self._uploads.pop(upload_id, None)
        return self.head(key)

    def abort(self, key: str, upload_id: str) -> None:
        """See ``ObjectStore.abort``."""
        with self._guard:
            self._open(key, upload_id)
            del self._uploads[upload_id]

    def uploads(self, prefix: str) -> list[OpenUpload]:
        """See ``ObjectStore.uploads``."""
        with self._guard:
            found = [OpenUpload(upload.key, name, upload.began_at) for name, upload in self._uploads.items()]
        return [upload for upload in found if upload.key.startswith(prefix)]

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        with self._guard:
            self._objects.pop(key, None)

    def _find(self, key: str) -> _Object:
        with self._guard:
            try:
                return self._objects[key]
            except KeyError:
                raise Refusal("not_found", f"there is no object {self.url(key)}") from None

    def _open(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise NoSuchUpload
        return upload

    def _store(self, key: str, data: bytes, writing: Writing) -> None:
        with self._guard:
            if not writing.overwrite and key in self._objects:
                raise Refusal("precondition_failed", f"{self.url(key)} is there already")
            etag = f'"{hashlib.md5(data).hexdigest()}-{next(self._ids)}"'
            self._objects[key] = _Object(data, etag, time.time(), {TOKEN: writing.token})


def _checked(pieces: Sequence[Piece], crc32: int) -> bytes:
    data = b"".join(pieces)
    if zlib.crc32(data) != crc32:
        raise Transient("digest", "the body does not have the CRC-32 that was sent with it")
    return data
