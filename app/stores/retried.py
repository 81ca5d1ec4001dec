"""A store that tries again."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.core.errors import Refusal
from app.stores.objects import (
    ABSENT,
    TOKEN,
    NoSuchUpload,
    ObjectInfo,
    ObjectStore,
    OpenUpload,
    Piece,
    SentPart,
    Transient,
    TransientReason,
    Writing,
)

T = TypeVar("T")

Others = Callable[[str, str], set[str] | None]
"""The ids of uploads to the object of that URL that are known to be of other writers than the one with that token; None
while one of those is beginning, as then its id is not known yet. Blocks."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Attempts in all, and the waits between them: up to ``base_s`` after the first, doubled each time, up to ``most_s``."""

    attempts: int = 8
    base_s: float = 0.2
    most_s: float = 10.0

    def wait_s(self, failures: int) -> float:
        """How long to wait after so many: anything up to the bound, so that those who failed together do not come back
        together (full jitter; Brooker, Exponential Backoff And Jitter, 2015)."""
        return random.uniform(0.0, min(self.most_s, self.base_s * 2.0 ** (failures - 1)))


class Retried:
    """See ``ObjectStore``; it raises no ``Transient``, but ``store_failed`` once its patience is over, and ``cancelled``
    soon after ``stop`` was set. Reading goes on at the byte where it broke off, and every byte renews the patience."""

    def __init__(
        self,
        store: ObjectStore,
        patience: Patience,
        on_retry: Callable[[TransientReason], object],
        stop: threading.Event,
        others: Others = lambda url, token: set(),
    ) -> None:
        self.limits = store.limits
        self._store = store
        self._patience = patience
        self._on_retry = on_retry
        self._stop = stop
        self._others = others

    def url(self, key: str) -> str:
        """See ``ObjectStore.url``."""
        return self._store.url(key)

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        return self._again(lambda: self._store.head(key))

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        end, failures = offset + nbytes, 0
        while offset < end:
            try:
                for piece in self._store.read(
                    key, offset=offset, nbytes=end - offset, etag=etag, piece_bytes=piece_bytes
                ):
                    yield piece
                    offset += len(piece)
                    failures = 0
            except Transient as failure:
                failures = self._wait(failure, failures)

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.put``. Where the first of several was made and its answer lost, it counts."""
        return self._surely(key, writing, lambda: self._store.put(key, pieces, crc32, writing))

    def begin(self, key: str, writing: Writing) -> str:
        """See ``ObjectStore.begin``. What an attempt opened whose answer was lost is aborted: it is told by its time, so
        another's upload to the same object that was begun meanwhile has to be known to ``others``. ``store_failed`` where
        they cannot be told for as long as the patience lasts; then what was begun is the caller's to find."""
        began, attempts = time.monotonic(), 0

        def attempt() -> str:
            nonlocal attempts
            attempts += 1
            return self._store.begin(key, writing)

        upload_id = self._again(attempt)
        if attempts > 1:
            self._abort_strays(key, upload_id, writing.token, time.monotonic() - began)
        return upload_id

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        """See ``ObjectStore.put_part``."""
        return self._again(lambda: self._store.put_part(key, upload_id, number, offset, pieces, crc32))

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.complete``. When an answer is lost, the object itself tells whether it was made."""
        return self._surely(key, writing, lambda: self._store.complete(key, upload_id, parts, writing))

    def abort(self, key: str, upload_id: str) -> None:
        """See ``ObjectStore.abort``."""
        self._again(lambda: self._store.abort(key, upload_id))

    def uploads(self, prefix: str) -> list[OpenUpload]:
        """See ``ObjectStore.uploads``."""
        return self._again(lambda: self._store.uploads(prefix))

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self._again(lambda: self._store.delete(key))

    def _again(self, call: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return call()
            except Transient as failure:
                failures = self._wait(failure, failures)

    def _surely(self, key: str, writing: Writing, call: Callable[[], ObjectInfo]) -> ObjectInfo:
        unsure = False

        def attempt() -> ObjectInfo:
            nonlocal unsure
            try:
                return call()
            except Transient:
                unsure = True
                raise

        try:
            return self._again(attempt)
        except (NoSuchUpload, Refusal):
            if unsure and (made := self._made(key, writing)) is not None:
                return made
            raise

    def _made(self, key: str, writing: Writing) -> ObjectInfo | None:
        """The object under ``key``, if it is the one of this writer."""
        try:
            found = self.head(key)
        except Refusal as refusal:
            if refusal.code in ABSENT:
                return None
            raise
        return found if found.metadata.get(TOKEN) == writing.token else None

    def _abort_strays(self, key: str, upload_id: str, token: str, within_s: float) -> None:
        opened = {upload.upload_id: upload.began_at for upload in self.uploads(key) if upload.key == key}
        ours = opened.pop(upload_id, None)
        # Times are the server's, and whole seconds on some.
        strays = [name for name, at in opened.items() if ours is not None and -1 <= ours - at <= within_s + 1]
        if strays:
            # Asked for after the list was made: who began an upload in it is known by now, or soon.
            known = self._again(lambda: self._known(key, token))
            for stray in strays:
                if stray not in known:
                    with contextlib.suppress(NoSuchUpload):
                        self.abort(key, stray)

    def _known(self, key: str, token: str) -> set[str]:
        known = self._others(self.url(key), token)
        if known is None:
            raise Transient("conflict", f"whose the uploads to {self.url(key)} are cannot be told yet")
        return known

    def _wait(self, failure: Transient, failures: int) -> int:
        failures += 1
        if failures >= self._patience.attempts:
            raise Refusal("store_failed", f"{failure.detail} ({failures} attempts)") from failure
        self._on_retry(failure.reason)
        if self._stop.wait(self._patience.wait_s(failures)):
            raise Refusal("cancelled", "the run ended while the store was tried again")
        return failures
