"""Objects by key: what every store of them does, be it S3, a directory or memory. Drivers have no policy: they neither
try again nor wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from isal import isal_zlib

from app.core.errors import Refusal

Piece = bytes | bytearray | memoryview
TransientReason = Literal["slow_down", "server_error", "timeout", "reset", "digest", "expired", "conflict"]

TOKEN = "weir-token"
"""The metadata name under which an object tells which writer made it: what proves a write whose answer was lost."""


ABSENT = ("not_found", "forbidden", "bad_argument")
"""How a store says that there is no object of ours: S3 forbids what is not there to who may not list."""


class Transient(Exception):
    """A call failed in a way that may pass: it may be made again. Whether it had its effect is not known.

    ``reason`` is a bounded word, a metric label.
    """

    def __init__(self, reason: TransientReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class NoSuchUpload(Exception):
    """The multipart upload is not open: it was completed, or aborted, or never begun."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object. ``etag`` as it is sent, with its quotes; it changes when the object does.
    ``metadata`` has lower-case names."""

    key: str
    nbytes: int
    etag: str
    modified_at: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the store has acknowledged. ``number`` counts from 1, ``offset`` is its first byte in the object."""

    number: int
    offset: int
    nbytes: int
    crc32: int
    etag: str


def whole_crc32(parts: Sequence[SentPart]) -> int:
    """The CRC-32 of all parts together, which are given in order."""
    crc32 = 0
    for part in parts:
        crc32 = isal_zlib.crc32_combine(crc32, part.crc32, part.nbytes)
    return crc32


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that is neither completed nor aborted. ``began_at`` is a Unix time."""

    key: str
    upload_id: str
    began_at: float


@dataclass(frozen=True, slots=True)
class PartLimits:
    """What a store asks of parts: all but the last have ``min_bytes`` at least, and the same size where it wants
    ``equal`` ones."""

    min_bytes: int
    max_bytes: int
    max_parts: int
    max_object_bytes: int
    equal: bool = False


@dataclass(frozen=True, slots=True)
class Writing:
    """How an object is to be written. ``token`` marks its writer (see ``TOKEN``). Unless ``overwrite``, an object that
    is there already makes the write fail with ``precondition_failed``."""

    token: str
    media_type: str
    coding: str | None = None
    overwrite: bool = True


class ObjectStore(Protocol):
    """Calls block, and may come from any thread. They raise ``Transient``, or a ``Refusal`` for what stays as it is:
    ``not_found``, ``forbidden``, ``precondition_failed``, ``object_changed``, ``store_failed``.

    Pieces of a body are sent in order and not copied; the caller keeps them until the call returns. ``crc32`` is that of
    the body (zlib's), which a store checks to which it is sent.
    """

    limits: PartLimits

    def url(self, key: str) -> str:
        """The object's name for people and for records."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """What there is under ``key``."""
        ...

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        """``nbytes`` from ``offset`` on, in pieces; ``object_changed`` once the object is not the one of ``etag``. Ends
        only when all of them were given."""
        ...

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        """Write a whole object at once."""
        ...

    def begin(self, key: str, writing: Writing) -> str:
        """Open a multipart upload; its id. Nothing is visible under ``key`` until it is completed."""
        ...

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        """Send a part. The same number again replaces it."""
        ...

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        """Make the object of ``parts``, which are all there are. Raises ``NoSuchUpload``."""
        ...

    def abort(self, key: str, upload_id: str) -> None:
        """Forget an upload and its parts. Raises ``NoSuchUpload``."""
        ...

    def uploads(self, prefix: str) -> list[OpenUpload]:
        """The open uploads of keys that begin with ``prefix``."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object. It is no error if there is none."""
        ...


def undo(store: ObjectStore, key: str, token: str) -> None:
    """Remove the object of a write that failed, if it was made all the same. One that another has put there since stays;
    should that happen between the look and the removal, it is lost."""
    try:
        found = store.head(key)
    except Refusal as refusal:
        if refusal.code in ABSENT:
            return
        raise
    if found.metadata.get(TOKEN) == token:
        store.delete(key)
