"""The codecs that compression is made of: gzip (RFC 1952), zstd (RFC 8878), brotli (RFC 7932), lz4 frames."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import brotli
import lz4.frame
from isal import igzip_lib, isal_zlib

from app.core.errors import Refusal, known

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODEC_ALIASES = {"x-gzip": "gzip"}
"""RFC 9110, section 8.4.1.3."""

_KIB, _MIB = 1024, 1024 * 1024
_GZIP_HEADER_BYTES = 80 * _KIB
"""The longest gzip header: an extra field of 64 KiB, and a name."""
_WINDOW_LOG = 23
"""8 MiB, the largest window that a zstd content coding may ask for (RFC 9659)."""


class Encoder(Protocol):
    """As ``bz2.BZ2Compressor``."""

    def compress(self, data: memoryview, /) -> bytes:
        """What ``data`` pushes out of the window."""
        ...

    def flush(self) -> bytes:
        """The rest, and the end mark. Called once."""
        ...


class Decoder(Protocol):
    """As ``bz2.BZ2Decompressor``, for one member. It raises one of ``DECODER_ERRORS``."""

    @property
    def eof(self) -> bool:
        """The end mark was read and everything has come out."""
        ...

    @property
    def unused_data(self) -> bytes | None:
        """What was fed and lies behind the end mark."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most ``max_length`` bytes more; what was fed beyond them is kept, and comes when it is fed nothing."""
        ...


class _Lz4Encoder:
    """Blocks of 256 KiB; the first bytes out are the frame's header."""

    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor(
            block_size=lz4.frame.BLOCKSIZE_MAX256KB, block_linked=True, content_checksum=True
        )
        self._header: bytes = self._frame.begin()

    def compress(self, data: memoryview) -> bytes:
        out: bytes = self._header + self._frame.compress(data)
        self._header = b""
        return out

    def flush(self) -> bytes:
        out: bytes = self._header + self._frame.flush()
        return out


class _BrotliEncoder:
    def __init__(self) -> None:
        stream = brotli.Compressor(quality=1)
        self.compress: Callable[[memoryview], bytes] = stream.process
        self.flush: Callable[[], bytes] = stream.finish


class _GzipDecoder:
    """ISA-L loses its place in a header that has several of the optional fields, or a checksum, and comes in two calls:
    the header is kept here until it is whole."""

    def __init__(self) -> None:
        self._stream = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
        self._header: bytes | None = b""

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._header is not None:
            self._header += data
            if not _has_gzip_header(self._header):
                if len(self._header) > _GZIP_HEADER_BYTES:
                    raise RuntimeError("the header is longer than 80 KiB")
                return b""
            data, self._header = self._header, None
        return bytes(self._stream.decompress(data, max_length))


def _has_gzip_header(data: bytes) -> bool:
    """All of a member's header is there (RFC 1952, section 2.3)."""
    if len(data) < 10:
        return False
    extra, name, comment, checksum = (data[3] & bit for bit in (4, 8, 16, 2))
    end = 10
    if extra:
        end += 2 + int.from_bytes(data[10:12], "little")
    for text in (name, comment):
        if text:
            zero = data.find(b"\0", end)
            if zero < 0:
                return False
            end = zero + 1
    return len(data) >= end + (2 if checksum else 0)


class _BrotliDecoder:
    """Brotli's own limit lets the last of its growing blocks (32, 64, 256 KiB, ...) go beyond; what did is kept here.

    It does not tell what follows the stream: it fails on it.
    """

    unused_data = b""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return not self._rest and bool(self._stream.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data or not self._rest:
            self._rest += self._stream.process(data, output_buffer_limit=32 * _KIB)
        out, self._rest = self._rest[:max_length], self._rest[max_length:]
        return out


@dataclass(frozen=True, slots=True)
class Codec:
    """``magics``: how a member begins, all of one length. ``members``: several may follow each other. ``padded``: zeros
    may follow the last. ``encoder_bytes`` and ``decoder_bytes``: windows, tables and state, measured by what malloc has
    given out over text and noise; decoders at the largest window that is accepted."""

    encoder: Callable[[], Encoder]
    decoder: Callable[[], Decoder]
    magics: tuple[bytes, ...]
    members: bool
    padded: bool
    encoder_bytes: int
    decoder_bytes: int


def _zstd_encoder() -> Encoder:
    option = zstd.CompressionParameter
    return zstd.ZstdCompressor(options={option.compression_level: 1, option.checksum_flag: 1})


def _zstd_decoder() -> Decoder:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


_SKIPPABLE = tuple(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))  # RFC 8878, section 3.1.2; lz4 has the same

# Levels, by MB/s on one thread and share of the size on lineitem.csv: gzip 1: 439, 0.344 (2: 418, 0.340; 3: 280,
# 0.330); zstd 1: 296, 0.314 (3: 184, 0.302); brotli 1: 205, 0.324 (4: 50, 0.272). Each is the last that keeps up.
CODECS = {
    "gzip": Codec(
        lambda: isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31),
        _GzipDecoder,
        (b"\x1f\x8b\x08",),
        members=True,
        padded=True,
        encoder_bytes=512 * _KIB,
        decoder_bytes=256 * _KIB,
    ),
    "zstd": Codec(
        _zstd_encoder,
        _zstd_decoder,
        (b"\x28\xb5\x2f\xfd", *_SKIPPABLE),
        members=True,
        padded=False,
        encoder_bytes=1536 * _KIB,
        decoder_bytes=9 * _MIB,
    ),
    "br": Codec(
        _BrotliEncoder,
        _BrotliDecoder,
        (b"",),
        members=False,
        padded=False,
        encoder_bytes=4 * _MIB,
        # A window of 16 MiB, which is grown by halves: for a moment there is half as much beside it.
        decoder_bytes=25 * _MIB,
    ),
    "lz4": Codec(
        _Lz4Encoder,
        lz4.frame.LZ4FrameDecompressor,
        (b"\x04\x22\x4d\x18", *_SKIPPABLE),
        members=True,
        padded=False,
        encoder_bytes=512 * _KIB,
        decoder_bytes=9 * _MIB,  # blocks of up to 4 MiB, before and after decoding
    ),
}
# The stubs of isal declare its exception class as an instance; lz4 has no exception of its own.
_GZIP_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
DECODER_ERRORS: tuple[type[Exception], ...] = (_GZIP_ERROR, zstd.ZstdError, brotli.error, RuntimeError)
"""What decoders raise."""


def find_codec(name: str) -> Codec:
    """The codec called ``name``; ``bad_argument`` that lists them all otherwise."""
    try:
        return CODECS[CODEC_ALIASES.get(name, name)]
    except KeyError:
        raise Refusal("bad_argument", f"{name[:80]!r} is not a codec; known are {known(CODECS)}") from None
