"""A store whose parts are timed and counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from app.stores.objects import ObjectInfo, ObjectStore, OpenUpload, Piece, SentPart, Writing


class PartMeter:
    """How many parts are being sent, over all runs; ``observe`` gets the seconds that each took, well sent or not."""

    def __init__(self, observe: Callable[[float], object]) -> None:
        self._observe = observe
        self._guard = threading.Lock()
        self.in_flight = 0

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """The scope of one part's sending."""
        began = time.perf_counter()
        with self._guard:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._guard:
                self.in_flight -= 1
            self._observe(time.perf_counter() - began)


class Metered:
    """See ``ObjectStore``."""

    def __init__(self, store: ObjectStore, meter: PartMeter) -> None:
        self.limits = store.limits
        self._store = store
        self._meter = meter
        self.url = store.url
        self.head = store.head
        self.read: Callable[..., Iterator[bytes]] = store.read
        self.begin = store.begin
        self.complete = store.complete
        self.abort = store.abort
        self.uploads: Callable[[str], list[OpenUpload]] = store.uploads
        self.delete = store.delete

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        with self._meter.sending():
            return self._store.put(key, pieces, crc32, writing)

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        """See ``ObjectStore.put_part``."""
        with self._meter.sending():
            return self._store.put_part(key, upload_id, number, offset, pieces, crc32)
