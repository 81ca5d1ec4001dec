"""An object in a store, written while the result is made: part by part, and visible only once it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from isal import isal_zlib

from app.core.errors import Refusal
from app.core.frames import clear_frames
from app.core.interfaces import Receipt
from app.core.page import Page
from app.stores.catalogue import Located
from app.stores.objects import NoSuchUpload, ObjectInfo, Piece, SentPart, Writing, undo, whole_crc32
from app.stores.part_sizes import PartSizes

T = TypeVar("T")

log = logging.getLogger("weir")

_SMALL_BYTES = 64 * 1024
"""Pages below this are copied together: a call for each costs more than that."""


class Ledger(Protocol):
    """Where writes are noted before they begin, so that a later process can end what this one could not. Calls block;
    each returns once the note is durable."""

    def open(self, url: str, token: str) -> int:
        """A write to ``url`` is about to begin; the number of its entry."""
        ...

    def begun(self, entry: int, upload_id: str) -> None:
        """It has become a multipart upload."""
        ...

    def completing(self, entry: int, nbytes: int, digest: str | None) -> None:
        """Everything is sent; from now on there may be an object."""
        ...

    def made(self, entry: int) -> None:
        """There is the object. The entry says so until the record of its run does, whose transaction removes it; it is
        closed where there is no such record. Does not block."""
        ...

    def close(self, entry: int) -> None:
        """It is over, and nobody needs to be told."""
        ...

    def leave(self, entry: int) -> None:
        """It could not be ended here: somebody has to see to it later."""
        ...


class _Part:
    """The pages that make up a part, which stay where they are until the store has acknowledged it."""

    def __init__(self, number: int, offset: int, size: int) -> None:
        self.number = number
        self.offset = offset
        self.size = size
        self.nbytes = 0
        self.pieces: list[Piece] = []

    def add(self, piece: memoryview) -> None:
        last = self.pieces[-1] if self.pieces else None
        if piece.nbytes >= _SMALL_BYTES:
            self.pieces.append(piece)
        elif isinstance(last, bytearray) and len(last) < _SMALL_BYTES:
            last += piece
        else:
            self.pieces.append(bytearray(piece))
        self.nbytes += piece.nbytes


class MultipartSink:
    """Parts are cut from pages without copying them, and ``in_flight`` of them are sent at a time; a result of one part
    is put at once. Each part carries its CRC-32, which the store checks, as it does that of the whole. A SHA-256 of all
    costs as much as sending it does, and is made only where ``hashed``.

    The ``target``'s store tries again where a call may succeed. ``stop`` is set by ``abort``, so that it does not go on
    trying then. Whatever fails, or is cancelled, leaves no object and no upload, not even where the store had made the
    object and could not say so; what could not be undone stays in the ``ledger``. So does what was committed, until the
    run's record is written: ``abort`` takes it out where there will be none.
    """

    def __init__(
        self,
        target: Located,
        writing: Writing,
        *,
        sizes: PartSizes,
        in_flight: int,
        page_bytes: int,
        hashed: bool,
        executor: Executor,
        ledger: Ledger,
        stop: threading.Event,
        on_abort: Callable[[bool], object],
    ) -> None:
        """``page_bytes`` is the largest page; ``on_abort`` is told whether an abort succeeded."""
        # A page at a cut belongs to two parts, and is held by both.
        self.holds = (in_flight + 1) * (sizes.most_bytes + page_bytes)
        self._store = target.store
        self._key = target.key
        self.url = target.url
        self._writing = writing
        self._sizes = sizes
        self._executor = executor
        self._ledger = ledger
        self._stop = stop
        self._on_abort = on_abort
        self._places = asyncio.Semaphore(in_flight)
        self._sending: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._part = _Part(1, 0, sizes.size(1))
        self._sent: list[SentPart] = []
        self._sha256 = hashlib.sha256() if hashed else None
        self._entry: int | None = None
        self._upload_id: str | None = None
        self._beginning = False
        self._completing = False
        self._ended = False
        self.object: ObjectInfo | None = None
        """The object, once it is committed."""

    async def write(self, page: Page) -> None:
        """Take a page; returns at once unless that fills a part and all places are taken."""
        rest = memoryview(page.payload).cast("B")
        while rest.nbytes:
            room = self._part.size - self._part.nbytes
            self._part.add(rest[:room])
            rest = rest[room:]
            if self._part.nbytes == self._part.size:
                full, self._part = self._part, self._following(self._part)
                await self._ship(full)
                del full

    async def commit(self) -> Receipt:
        """Send what is left and make the object. Raises ``precondition_failed`` where one is there already that was not
        to be overwritten."""
        last = self._part
        if self._upload_id is None:
            await self._hash(last)
            await self._on_thread(self._open)
            await self._note_completing(last.nbytes)
            await self._make(lambda: self._put(last))
        else:
            if last.nbytes:
                await self._ship(last)
            await self._all_sent()
            self._sent.sort(key=lambda part: part.number)
            await self._note_completing(sum(part.nbytes for part in self._sent))
            upload_id = self._upload_id
            await self._make(lambda: self._store.complete(self._key, upload_id, self._sent, self._writing))
        assert self.object is not None
        self._ended = True
        crc32 = whole_crc32(self._sent)
        return Receipt(self.object.nbytes, self._digest, self.object.etag.strip('"'), len(self._sent), crc32)

    async def abort(self) -> None:
        """Leave no upload behind; see ``Sink.abort``. What is committed stays, and the ledger forgets it."""
        if self._ended:
            if self.object is not None and self._entry is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._on_thread(self._forget)
            return
        self._ended = True
        self._stop.set()
        for task in self._sending:
            task.cancel()
        while self._sending:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(self._sending)
        self._part.pieces.clear()
        if self._failure is not None:
            clear_frames(self._failure)
            self._failure = None
        if self._entry is None:
            return
        with contextlib.suppress(asyncio.CancelledError):
            await self._on_thread(self._abort)

    def _following(self, part: _Part) -> _Part:
        number, offset = part.number + 1, part.offset + part.size
        if number > self._sizes.max_parts:
            raise Refusal(
                "object_too_large",
                f"the result is larger than {self._sizes.max_parts} parts can hold ({offset} bytes): send its length"
                " along (Content-Length), raise S3_PART_BYTES, or raise MEMORY_BUDGET",
            )
        return _Part(number, offset, self._sizes.size(number))

    async def _ship(self, part: _Part) -> None:
        """Begin to send a part, once there is a place for it."""
        await self._hash(part)
        if self._upload_id is None:
            await self._on_thread(self._open)
            self._upload_id = await self._on_thread(self._begin)
        await self._places.acquire()
        if self._failure is not None:
            self._places.release()
            raise self._failure
        task = asyncio.create_task(self._send(self._upload_id, part))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, upload_id: str, part: _Part) -> None:
        try:
            self._sent.append(await self._on_thread(self._put_part, upload_id, part))
        except NoSuchUpload:
            self._failure = Refusal("store_failed", f"{self.url}: somebody else ended the upload")
        except Exception as error:
            self._failure = self._failure or error
        finally:
            part.pieces.clear()
            self._places.release()

    async def _all_sent(self) -> None:
        while self._sending:
            await asyncio.wait(self._sending)
        if self._failure is not None:
            raise self._failure

    def _put_part(self, upload_id: str, part: _Part) -> SentPart:
        return self._store.put_part(self._key, upload_id, part.number, part.offset, part.pieces, _crc32(part))

    def _put(self, part: _Part) -> ObjectInfo:
        crc32 = _crc32(part)
        info = self._store.put(self._key, part.pieces, crc32, self._writing)
        self._sent.append(SentPart(1, 0, part.nbytes, crc32, info.etag))
        return info

    async def _hash(self, part: _Part) -> None:
        """Put a part into the digest of all; parts come in order."""
        sha256 = self._sha256
        if sha256 is not None:
            await self._on_thread(_update, sha256, part)

    @property
    def _digest(self) -> str | None:
        return None if self._sha256 is None else self._sha256.hexdigest()

    def _open(self) -> None:
        """Noted on the thread that asks for it: whoever is cancelled meanwhile is not given it, and has to close it."""
        self._entry = self._ledger.open(self.url, self._writing.token)

    def _begin(self) -> str:
        assert self._entry is not None
        self._beginning = True
        upload_id = self._store.begin(self._key, self._writing)
        self._upload_id = upload_id  # known before anything else can go wrong
        self._ledger.begun(self._entry, upload_id)
        return upload_id

    async def _make(self, call: Callable[[], ObjectInfo]) -> None:
        """Make the object. Who cancels from here on is too late if it is made."""

        def make() -> None:
            self.object = call()
            assert self._entry is not None
            self._ledger.made(self._entry)

        try:
            await self._on_thread(make)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.object is None or task is None:
                raise
            task.uncancel()

    async def _note_completing(self, nbytes: int) -> None:
        assert self._entry is not None
        self._completing = True
        await self._on_thread(self._ledger.completing, self._entry, nbytes, self._digest)

    def _forget(self) -> None:
        entry, self._entry = self._entry, None
        assert entry is not None
        try:
            self._ledger.close(entry)
        except Refusal as refusal:  # the entry stays, and does no harm to an object that is whole
            log.warning("%s is written, and its entry in the ledger could not be closed: %s", self.url, refusal)

    def _abort(self) -> None:
        assert self._entry is not None
        try:
            if self._beginning and self._upload_id is None:
                raise Refusal("store_failed", "whether an upload was begun is not known")
            if self._upload_id is not None:
                self._stop.clear()  # for the abort itself there is patience
                with contextlib.suppress(NoSuchUpload):
                    self._store.abort(self._key, self._upload_id)
            if self._completing:
                self._stop.clear()
                undo(self._store, self._key, self._writing.token)
            self._ledger.close(self._entry)
            self._on_abort(True)
        except Exception as error:
            self._on_abort(False)
            self._ledger.leave(self._entry)
            log.warning("the upload to %s was not aborted, it will be tried again: %s", self.url, error)

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking ``work``; when cancelled, wait for it first, because what it works on is ours."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        try:
            return await asyncio.shield(future)
        except Exception as error:
            clear_frames(error)  # the parts that were being sent
            raise
        except asyncio.CancelledError:
            self._stop.set()
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((future,))
            if not future.cancelled():
                future.exception()
            raise
        finally:
            del future  # it remembers the failure, which remembers this frame


def _crc32(part: _Part) -> int:
    crc32 = 0
    for piece in part.pieces:
        crc32 = isal_zlib.crc32(piece, crc32)
    return crc32


def _update(sha256: hashlib._Hash, part: _Part) -> None:
    for piece in part.pieces:
        sha256.update(piece)
