"""Arrow IPC streams and files (Arrow columnar format, "Serialization and Interprocess Communication")."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator

import pyarrow as pa

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.core.units import as_size
from app.framing.batches import Cutter, empty_batch, table_page
from app.framing.ipc import BATCH, DICTIONARY, SCHEMA, MessageHeader, WholeMessages

_MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
_BARE_SCHEMA_BYTES = 1024 * 1024


def reader(*, page_bytes: int, max_message_bytes: int) -> list[Stage]:
    """Byte pages of an IPC stream or file to table pages; see ``ArrowReader``."""
    return [ArrowReader(page_bytes=page_bytes, max_message_bytes=max_message_bytes)]


def writer() -> list[Stage]:
    """Table pages to the bytes of an IPC stream; see ``ArrowWriter``."""
    return [ArrowWriter()]


class ArrowReader:
    """Decodes each record batch as soon as it is whole, into pages of about ``page_bytes`` (see ``Cutter``).

    A file (``ARROW1``) is read as the stream that it contains: its footer is passed over, its last bytes are checked,
    and its dictionaries must stand before the rows. A stream may end without its end mark, at the end of a message, as
    the format allows.

    ``max_message_bytes`` bounds what is held of one message: its bytes, what they become when they are compressed, and
    the dictionaries so far. Refusals: ``page_too_large`` beyond that, before anything is decoded; ``truncated_input``;
    ``corrupt_input`` with the offset of the message as ``byte``; ``unsupported_type`` for a column (see ``Cutter``),
    or for a file with its dictionaries at the end.
    """

    name = "arrow-reader"
    stateless = False
    grows = 0.0  # a page is copied into the message it belongs to: that is in ``holds``

    def __init__(self, *, page_bytes: int, max_message_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._max_bytes = max_message_bytes
        # The message in work, and the one before, which pages downstream are still slices of. Then the page that
        # dictionaries are undone for.
        self.holds = 2 * max_message_bytes + 4 * page_bytes
        self._file = False
        self._ended = False
        self._tail = b""
        self._in_bytes = 0
        self._message_byte = 0
        self._bare = bytearray()
        self._header = MessageHeader(0, 0, None, ())
        self._held: deque[memoryview] = deque()
        self._whole = WholeMessages()
        self._stream: pa.RecordBatchStreamReader | None = None
        self._cutter: Cutter | None = None
        self._dictionary_bytes: dict[int, int] = {}
        self._given = False
        self._expect(8, self._take_start)

    def feed(self, page: Page) -> Iterator[Page]:
        """The rows of the record batches that are whole by now."""
        data = memoryview(page.payload)
        while len(data) and not self._ended:
            piece = data[: len(self._wanted) - self._got]
            self._wanted[self._got : self._got + len(piece)] = piece
            self._got += len(piece)
            self._in_bytes += len(piece)
            data = data[len(piece) :]
            while self._got == len(self._wanted) and not self._ended:
                yield from self._take(self._wanted)
        if len(data):
            self._take_rest(data)

    def flush(self) -> Iterator[Page]:
        """A page without rows if there was none; raises unless the input ended where a message did."""
        between = self._take == self._take_prefix and self._got == 0 and self._stream is not None and not self._file
        if not (self._ended or between) or (self._file and self._tail != _MAGIC):
            raise Refusal(
                "truncated_input",
                f"the Arrow data ends after {self._in_bytes} bytes, within a message: send all of it",
                byte=self._in_bytes,
            )
        if not self._given and self._cutter is not None:
            yield table_page(empty_batch(self._cutter.schema), first=True)

    def _expect(self, nbytes: int, take: Callable[[memoryview], Iterator[Page]]) -> None:
        """Collect ``nbytes`` of the input, then hand them to ``take``."""
        self._wanted = memoryview(pa.allocate_buffer(nbytes)).cast("B")
        self._got = 0
        self._take = take

    def _take_start(self, start: memoryview) -> Iterator[Page]:
        self._file = start[:6] == _MAGIC
        if self._file:
            self._message_byte = 8
            self._expect(8, self._take_prefix)
        else:
            yield from self._take_prefix(start)

    def _take_prefix(self, prefix: memoryview) -> Iterator[Page]:
        self._message_byte = self._in_bytes - 8
        (nbytes,) = struct.unpack_from("<i", prefix, 4)
        if prefix[:4] != _CONTINUATION:
            if self._file and self._stream is None:
                self._bare += prefix
                self._expect(8, self._take_bare)
                return
            raise self._corrupt(
                "no message begins here"
                if self._stream is not None
                else "this is not how an Arrow stream or file begins (streams of Arrow before 0.15 are not read)"
            )
        if nbytes == 0:
            self._ended = True
            if self._stream is None:
                raise self._corrupt("it ends without a schema")
        elif nbytes < 0:
            raise self._corrupt(f"a message says that it has {nbytes} bytes")
        else:
            self._check_room(nbytes)
            self._held.extend((prefix[:4], prefix[4:]))
            self._expect(nbytes, self._take_metadata)
        yield from ()

    def _take_bare(self, word: memoryview) -> Iterator[Page]:
        """Polars writes the schema of a file without its prefix: it goes up to where the next prefix stands."""
        (nbytes,) = struct.unpack_from("<i", word, 4)
        if word[:4] != _CONTINUATION or nbytes < 0 or nbytes % 8:
            self._bare += word
            if len(self._bare) > _BARE_SCHEMA_BYTES:
                raise self._corrupt("no message begins here")
            self._expect(8, self._take_bare)
            return
        metadata = memoryview(bytes(self._bare))
        self._held.extend((memoryview(_CONTINUATION), memoryview(struct.pack("<i", len(metadata)))))
        yield from self._take_metadata(metadata)
        yield from self._take(self._wanted)  # the schema's body, which has no bytes
        yield from self._take_prefix(word)

    def _take_metadata(self, metadata: memoryview) -> Iterator[Page]:
        try:
            self._header = header = MessageHeader.read(metadata)
        except struct.error:
            raise self._corrupt("a message's metadata cannot be read") from None
        if header.kind not in (SCHEMA, DICTIONARY, BATCH) or (header.kind == SCHEMA) == (self._stream is not None):
            raise self._corrupt(f"a message of kind {header.kind} is not expected here")
        if header.body_bytes < 0 or (header.kind == SCHEMA and header.body_bytes):
            raise self._corrupt(f"a message says that its body has {header.body_bytes} bytes")
        self._check_room(len(metadata) + header.body_bytes)
        self._held.append(metadata)
        self._expect(header.body_bytes, self._take_body)
        yield from ()

    def _take_body(self, body: memoryview) -> Iterator[Page]:
        header = self._header
        metadata_bytes = len(self._held[-1])
        try:
            cost_bytes = metadata_bytes + len(body) + header.decompressed_bytes(body)
        except struct.error:
            raise self._corrupt("a buffer lies outside of its message") from None
        self._check_room(cost_bytes)
        if header.dictionary is not None:
            key, is_delta = header.dictionary
            self._dictionary_bytes[key] = cost_bytes + (self._dictionary_bytes.get(key, 0) if is_delta else 0)
        self._whole.extend([*self._held, body])
        self._held.clear()
        self._expect(8, self._take_prefix)
        del body
        try:
            if header.kind == SCHEMA:
                self._stream = pa.ipc.open_stream(self._whole)
                self._cutter = Cutter(self._stream.schema, page_bytes=self._page_bytes)
            elif header.kind == BATCH and self._stream is not None and self._cutter is not None:
                self._check_dictionaries(self._cutter)
                batch = self._stream.read_next_batch()
                for piece in self._cutter.cut(batch, room_bytes=self._room_bytes - cost_bytes):
                    if piece.num_rows:
                        yield table_page(piece, first=not self._given)
                        self._given = True
        except (pa.ArrowException, OSError, ValueError, StopIteration) as error:
            raise self._corrupt(str(error) or "a message is missing") from None

    def _take_rest(self, data: memoryview) -> None:
        """What follows the end mark: nothing in a stream, the footer in a file."""
        if not self._file:
            self._message_byte = self._in_bytes
            raise self._corrupt("bytes follow the end mark: only one stream is read")
        self._in_bytes += len(data)
        self._tail = (self._tail + bytes(data[-6:]))[-6:]

    @property
    def _room_bytes(self) -> int:
        return self._max_bytes - sum(self._dictionary_bytes.values())

    def _check_room(self, cost_bytes: int) -> None:
        if cost_bytes > self._room_bytes:
            raise Refusal(
                "page_too_large",
                f"the Arrow message at byte {self._message_byte} needs {as_size(cost_bytes)} (with what it is"
                f" compressed from), {as_size(cost_bytes - self._room_bytes)} more than there is room for beside the"
                " dictionaries: write smaller record batches",
                byte=self._message_byte,
            )

    def _check_dictionaries(self, cutter: Cutter) -> None:
        if self._file and cutter.has_dictionaries and not self._dictionary_bytes:
            raise Refusal(
                "unsupported_type",
                "the Arrow file has its dictionaries behind its rows, as Polars writes them, and cannot be read while"
                " it comes in: send a stream (write_ipc_stream), or cast categorical columns to strings",
                byte=self._message_byte,
            )

    def _corrupt(self, what: str) -> Refusal:
        detail = f"the Arrow data is broken at byte {self._message_byte}: {what}"
        return Refusal("corrupt_input", detail, byte=self._message_byte)


class ArrowWriter:
    """Writes each page as one record batch; the schema with the first, the end mark at the end."""

    name = "arrow-writer"
    stateless = False
    holds = 1024 * 1024  # the schema, and the last dictionaries, which are those of the pages
    grows = 2.25  # bitmaps and offsets of a slice are made anew, then all parts are joined

    def __init__(self) -> None:
        self._parts = _Parts()
        self._stream: pa.RecordBatchStreamWriter | None = None
        self._out_bytes = 0

    def feed(self, page: Page) -> Iterator[Page]:
        """One page of bytes; none for a page without rows that is not the first."""
        batch: pa.RecordBatch = page.payload
        if self._stream is None:
            self._stream = pa.ipc.new_stream(self._parts, batch.schema)
        if batch.num_rows:
            self._stream.write_batch(batch)
        yield from self._drain()

    def flush(self) -> Iterator[Page]:
        """The end mark."""
        if self._stream is not None:
            self._stream.close()
            yield from self._drain()

    def _drain(self) -> Iterator[Page]:
        payload = b"".join(self._parts)
        self._parts.clear()
        if payload:
            page = Page(payload, len(payload), byte=self._out_bytes, first=self._out_bytes == 0)
            self._out_bytes += len(payload)
            yield page


class _Parts(list[bytes]):
    """A file, for Arrow, that keeps what is written as it comes."""

    closed = False

    def write(self, data: bytes) -> int:
        self.append(data)
        return len(data)

    def flush(self) -> None:
        pass
