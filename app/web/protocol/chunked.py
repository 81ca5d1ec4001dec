"""The chunked transfer coding (RFC 9112, section 7.1), undone in place and without I/O."""

from __future__ import annotations

import ctypes
import re

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSIONS = rb"((?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})" + _EXTENSIONS + rb"\r\n")
_SIZE_PREFIX = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?")
_TRAILER_LINE = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*\r\n")
_TRAILER_PREFIX = re.compile(rb"(?:" + _TOKEN + rb"(?::[\t\x20-\x7e\x80-\xff]*\r?)?|\r)?")
_FRAMING_FIELDS = (b"content-length", b"transfer-encoding")
_LINE_FEED = re.compile(rb"\n")

MAX_EXTENSION_BYTES = 16 * 1024
"""Chunk extensions of one body, all together. Nobody needs them; a flood of them is an attack."""
MAX_TRAILER_BYTES = 16 * 1024


class BadFraming(Exception):
    """The body is not what the grammar says; where its end is cannot be known any more."""


class _Plain(ctypes.Structure):
    """``chunked`` of ``framing/native/chunked.c``."""

    _fields_ = [("left", ctypes.c_int64), ("end", ctypes.c_int64), ("chunks", ctypes.c_int64)]


class Chunked:
    """Decodes one body. It is stricter than the RFC lets a recipient be: lines end in CRLF, sizes have at most 15 hex
    digits and no space around them, so that no two readers can differ about where a chunk ends.

    Trailer fields are checked and dropped. Once ``ended`` is true ``rest`` has the bytes that came behind the body.
    ``library``, where there is one, has ``weir_unchunk``: it reads what stands between chunks, in one call for all of
    those that a read brought, and what it does not know as plain is judged here.
    """

    def __init__(self, library: ctypes.CDLL | None = None) -> None:
        self._library = library
        self._plain = _Plain()
        self.ended = False
        self.rest = b""
        self.chunks = 0
        self._left_bytes = 0
        self._needs_line_end = False
        self._in_trailers = False
        self._line = bytearray()
        self._extension_bytes = 0
        self._trailer_bytes = 0

    @property
    def left_bytes(self) -> int:
        """How many bytes of the chunk that has begun are still to come."""
        return self._left_bytes

    def take(self, page: memoryview, start: int, stop: int) -> int:
        """Decode what was received into ``page[start:stop]``; the payload is moved to ``page[start:end]``, and ``end``
        is returned. Raises ``BadFraming``; no call may follow that, nor the end."""
        position = end = start
        while position < stop:
            if self._left_bytes or (self._needs_line_end and not self._line):
                position, end = self._take_data(page, position, stop, end)
                if position == stop:
                    break
            position = self._take_line(page, position, stop)
            if self.ended:
                self.rest = bytes(page[position:stop])
                break
        return end

    def _take_data(self, page: memoryview, position: int, stop: int, end: int) -> tuple[int, int]:
        """Move data to ``page[end:]``, of as many chunks as are known to be plain; where both ended."""
        if self._library is None:
            nbytes = min(self._left_bytes, stop - position)
            if position != end:
                page[end : end + nbytes] = page[position : position + nbytes]
            self._left_bytes -= nbytes
            return position + nbytes, end + nbytes
        plain, address = self._plain, ctypes.addressof(ctypes.c_char.from_buffer(page))
        plain.left, plain.end, plain.chunks = self._left_bytes, end, self.chunks
        position = self._library.weir_unchunk(address, position, stop, ctypes.byref(plain))
        self._left_bytes, self.chunks = plain.left, plain.chunks
        return position, plain.end

    def _take_line(self, page: memoryview, position: int, stop: int) -> int:
        """Go on with the line of framing that begins or continues at ``position``; where it was left."""
        found = _LINE_FEED.search(page, position, stop)
        until = stop if found is None else found.end()
        self._line += page[position:until]
        if len(self._line) > MAX_EXTENSION_BYTES:
            raise BadFraming("a line of the chunked coding is too long")
        if found is None:
            self._check_prefix()
        else:
            self._end_line(bytes(self._line))
            self._line.clear()
        return until

    def _check_prefix(self) -> None:
        """Refuse as soon as no line can come of what is there, rather than wait for its end."""
        if self._needs_line_end:
            fits = self._line == b"\r"
        else:
            prefix = _TRAILER_PREFIX if self._in_trailers else _SIZE_PREFIX
            fits = prefix.fullmatch(self._line) is not None
        if not fits:
            raise BadFraming(f"{bytes(self._line[:40])!r} cannot stand where the chunked coding has a line")

    def _end_line(self, line: bytes) -> None:
        if self._needs_line_end:
            if line != b"\r\n":
                raise BadFraming("the data of a chunk does not end where its size says")
            self._needs_line_end = False
        elif self._in_trailers:
            if line == b"\r\n":
                self.ended = True
                return
            self._trailer_bytes += len(line)
            field = _TRAILER_LINE.fullmatch(line)
            if field is None or self._trailer_bytes > MAX_TRAILER_BYTES or field[1].lower() in _FRAMING_FIELDS:
                raise BadFraming(f"{line[:40]!r} is no trailer field, or there are too many")
        else:
            head = _SIZE_LINE.fullmatch(line)
            if head is None:
                raise BadFraming(f"{line[:40]!r} is no chunk size")
            self._extension_bytes += len(head[2])
            if self._extension_bytes > MAX_EXTENSION_BYTES:
                raise BadFraming("too many chunk extensions")
            self._begin(int(head[1], 16))

    def _begin(self, size: int) -> None:
        self.chunks += 1
        self._left_bytes = size
        self._needs_line_end = size > 0
        self._in_trailers = size == 0
