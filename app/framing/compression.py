"""Compressed payloads, made and undone in pages: the steps ``compress`` and ``decompress``, and content codings."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size
from app.framing.codecs import DECODER_ERRORS, Decoder, find_codec
from app.framing.parts import Parts

STEP_CODECS = ("gzip", "zstd", "lz4")
"""What the steps ``compress`` and ``decompress`` know."""
CONTENT_CODINGS = ("gzip", "zstd", "br")
"""What the header fields Content-Encoding and Accept-Encoding know; ``x-gzip`` is another name of the first."""

_KIB, _MIB = 1024, 1024 * 1024
_BLOCK_BYTES = 16 * _KIB
"""Decoders are fed blocks of the input that begin at multiples of this, however its pages were cut, so that the verdict
does not depend on the cuts. Larger, and a bomb is noticed later; smaller, and calls are what costs."""
_PART_BYTES = 256 * _KIB
"""The most that is asked of a decoder at once: some make room for all of it beforehand."""
_FREE_BYTES = _MIB
"""What may come out before the ratio is looked at: a few bytes of zeros compress well without being a bomb."""


class Compress:
    """Byte pages to one compressed member or frame with a checksum; of no pages, a valid empty one.

    ``codec`` is one of ``STEP_CODECS`` and ``CONTENT_CODINGS``; ``bad_argument`` otherwise. The same input gives the
    same bytes out however it was cut, in pages of at most ``page_bytes``. It is fed in parts of 256 KiB, and what the
    codec's window holds stays in it until more input comes: nothing is flushed in between.
    """

    name = "compress"
    stateless = False
    grows = 2.25  # what does not compress: its parts, and the page they are joined to

    def __init__(self, codec: str, *, page_bytes: int) -> None:
        found = find_codec(codec)
        self._encoder = found.encoder()
        self._out = Parts(page_bytes)
        self._part = bytearray()
        self.holds = found.encoder_bytes + 6 * _PART_BYTES

    def feed(self, page: Page) -> Iterator[Page]:
        """The compressed bytes that ``page`` pushes out of the codec's window; often none."""
        data = memoryview(page.payload)
        start = 0
        while start < len(data):
            piece = data[start : start + _PART_BYTES - len(self._part)]
            start += len(piece)
            if len(piece) == _PART_BYTES:
                yield from self._out.add(self._encoder.compress(piece))
                continue
            self._part += piece
            if len(self._part) == _PART_BYTES:
                yield from self._take_part()
        yield from self._out.drain()

    def flush(self) -> Iterator[Page]:
        """The rest, and the end mark with its checksum."""
        yield from self._take_part()
        yield from self._out.add(self._encoder.flush())
        yield from self._out.drain()

    def _take_part(self) -> Iterator[Page]:
        part, self._part = self._part, bytearray()
        yield from self._out.add(self._encoder.compress(memoryview(part)))


class Decompress:
    """Compressed byte pages to the bytes they were made of, in pages of at most ``page_bytes``, made lazily.

    ``codec`` is one of ``STEP_CODECS`` and ``CONTENT_CODINGS``; ``bad_argument`` otherwise. Members and frames may
    follow each other (not with ``br``), zeros may follow the last member of a gzip file. The result's ``byte`` counts
    decoded bytes; ``line`` is left at 1, as in all pages of raw bytes.

    Refusals: ``expansion_too_large`` once more than 1 MiB came out and that is more than ``max_expansion`` times what
    went in (counted in blocks of 16 KiB, a begun one in full); ``page_too_large`` for a zstd window above 8 MiB;
    ``corrupt_input`` with the offset in the compressed input as ``byte``: where the member begins that is none, or the
    block of 16 KiB in which decoding failed; ``truncated_input``, also for an input without a byte.
    """

    name = "decompress"
    stateless = False
    grows = 0.0  # however little comes in, a whole page may come out: that is in ``holds``

    def __init__(self, codec: str, *, page_bytes: int, max_expansion: float) -> None:
        self._name, self._codec = codec, find_codec(codec)
        self._max_expansion = max_expansion
        self._decoder: Decoder | None = None
        self._head = b""  # the first bytes of a member, too few to know it by
        self._members = 0
        self._member_byte = 0
        self._in_bytes = 0
        self._out = Parts(page_bytes)
        self.holds = self._codec.decoder_bytes + 2 * page_bytes + 2 * _PART_BYTES

    def feed(self, page: Page) -> Iterator[Page]:
        """What can be decoded by now."""
        data = memoryview(page.payload)
        start = 0
        while start < len(data):
            stop = start + _BLOCK_BYTES - self._in_bytes % _BLOCK_BYTES
            block = bytes(data[start:stop])
            self._in_bytes += len(block)
            for part in self._decode(block):
                yield from self._out.add(part)
                self._check_expansion()
            start = stop
        yield from self._out.drain()

    def flush(self) -> Iterator[Page]:
        """Nothing comes out; raises unless the input ended where a member did."""
        if self._decoder is not None or self._head or not self._members:
            raise Refusal(
                "truncated_input",
                f"the {self._name} data ends after {self._in_bytes} bytes, before its end mark: send all of it"
                if self._in_bytes
                else f"the input is empty, and {self._name} data never is",
                byte=self._in_bytes,
            )
        yield from ()

    def _decode(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._decoder is None:
                data = self._begin(data)
                if self._decoder is None:
                    return
            try:
                part = self._decoder.decompress(data, min(_PART_BYTES, self._out.page_bytes))
            except DECODER_ERRORS as error:
                raise self._undecodable(error) from None
            data = b""
            ended = self._decoder.eof
            if ended:
                data = self._decoder.unused_data or b""
                self._members += 1
                self._decoder = None
            if part:
                yield part
            elif not ended:
                return

    def _begin(self, data: bytes) -> bytes:
        """Start a decoder if ``data``, with what is kept of it, shows a member's first bytes; else keep it."""
        data, self._head = self._head + data, b""
        if self._codec.padded and self._members:
            data = data.lstrip(b"\0")
        if not data:
            return b""
        if self._members and not self._codec.members:
            raise self._undecodable("data follows the end mark")
        self._member_byte = self._in_bytes - len(data)
        length = len(self._codec.magics[0])
        if not any(magic.startswith(data[:length]) for magic in self._codec.magics):
            raise self._undecodable(
                f"what follows the end of member {self._members} does not begin another"
                if self._members
                else f"this is not how {self._name} data begins"
            )
        if len(data) < length:
            self._head = data
            return b""
        self._decoder = self._codec.decoder()
        return data

    @property
    def _block_byte(self) -> int:
        """Where the block begins that the last byte belongs to."""
        return (self._in_bytes - 1) // _BLOCK_BYTES * _BLOCK_BYTES

    def _check_expansion(self) -> None:
        taken_bytes = self._block_byte + _BLOCK_BYTES
        if self._out.total_bytes > max(_FREE_BYTES, self._max_expansion * taken_bytes):
            raise Refusal(
                "expansion_too_large",
                f"{as_size(self._in_bytes)} of {self._name} data became {as_size(self._out.total_bytes)} and more:"
                f" over MAX_EXPANSION={self._max_expansion:g}; decompress it before sending, or raise the limit",
                byte=self._block_byte,
            )

    def _undecodable(self, error: Exception | str) -> Refusal:
        if "too much memory" in str(error):
            return Refusal(
                "page_too_large",
                "the zstd frame wants a window of more than 8 MiB (RFC 9659): compress without --long and --ultra",
                byte=self._member_byte,
            )
        if isinstance(error, str) and self._codec.members:
            byte = self._member_byte
        else:
            byte = max(self._member_byte, self._block_byte)
        return Refusal("corrupt_input", f"the {self._name} data is broken at or after byte {byte}: {error}", byte=byte)
