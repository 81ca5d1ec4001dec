"""Text in other encodings becomes UTF-8, page by page, before anything looks at it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from app.core.errors import Refusal
from app.core.page import Page
from app.framing.parts import Parts

_PIECE_BYTES = 64 * 1024
"""What is decoded in one go: a text of it, at four bytes a character, and its UTF-8 beside it."""

_MARKS = {
    "utf-16": ((codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF16_LE, "utf-16-le"), (b"", "utf-16-le")),
    "utf-32": ((codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF32_LE, "utf-32-le"), (b"", "utf-32-le")),
}
"""Byte order marks, and what follows them. Python's own decoders of a stream refuse one without a mark."""
_UTF8 = ("utf-8", "ascii")
_CHARSETS = frozenset(
    (
        "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
        *(f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)),
        *(f"cp125{page}" for page in range(9)),
        "cp437", "cp850", "cp852", "cp866", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic",
        "cp932", "cp949", "cp950", "big5", "euc_jp", "euc_kr", "gb2312", "gbk", "gb18030", "shift_jis",
    )
)  # fmt: skip
"""By Python's names: encodings in which no byte is ever taken back, and few bytes wait for what follows."""


def find_charset(name: str) -> str | None:
    """Python's name of an encoding by one of its usual names (those of IANA, mostly); None for UTF-8 and what it includes.

    Raises ``bad_argument`` if it is not known.
    """
    wanted = name.strip() or "utf-8"
    try:
        found = codecs.lookup(wanted).name if wanted.isascii() and "\0" not in wanted else ""
    except LookupError:
        found = ""
    if found == "utf-8-sig" or found in _UTF8:
        return None
    if found not in _CHARSETS:
        raise Refusal(
            "bad_argument",
            f"encoding={name[:80]!r} is not known; known are utf-8, utf-16, utf-32, latin-1, iso-8859-2 and on,"
            " windows-1250 and on, and the usual ones of East Asia and of DOS",
        )
    return found


class Transcode:
    """Byte pages in ``charset`` (what ``find_charset`` gives) to byte pages of UTF-8, of at most ``page_bytes``.

    ``byte`` and ``line`` of what follows are those of the UTF-8 text. What cannot be decoded is ``bad_encoding`` with
    its byte in the pages that come in. A byte order mark decides between the two orders of UTF-16 and UTF-32, and is left
    out; without it the low byte is first.
    """

    name = "transcode"
    stateless = False
    grows = 3.5  # a byte may become three; they are given in pages, one by one

    def __init__(self, charset: str, *, page_bytes: int) -> None:
        self._charset = charset
        self._mark = b""
        self._mark_bytes = len(_MARKS[charset][0][0]) if charset in _MARKS else 0
        self._decoder = codecs.getincrementaldecoder(_MARKS[charset][-1][1] if charset in _MARKS else charset)("strict")
        self._out = Parts(page_bytes)
        self._taken_bytes = 0
        self._keeps_ascii = _is_identity(charset)
        self.holds = 2 * page_bytes + 10 * _PIECE_BYTES

    def feed(self, page: Page) -> Iterator[Page]:
        """The text of ``page``, but for a character at its end that is not whole."""
        data = memoryview(page.payload)
        if len(self._mark) < self._mark_bytes:
            missing = self._mark_bytes - len(self._mark)
            self._mark, data = self._mark + bytes(data[:missing]), data[missing:]
            if len(self._mark) < self._mark_bytes:
                return
            yield from self._out.add(self._begin())
        for start in range(0, len(data), _PIECE_BYTES):
            yield from self._out.add(self._utf8(bytes(data[start : start + _PIECE_BYTES])))
        yield from self._out.drain()

    def flush(self) -> Iterator[Page]:
        """Nothing, if the last character was whole; ``bad_encoding`` if not."""
        if len(self._mark) < self._mark_bytes:
            self._begin()
        self._utf8(b"", final=True)
        return iter(())

    def _begin(self) -> bytes:
        mark, charset = next(order for order in _MARKS[self._charset] if self._mark.startswith(order[0]))
        self._decoder = codecs.getincrementaldecoder(charset)("strict")
        self._taken_bytes = len(mark)
        return self._utf8(self._mark[len(mark) :])

    def _utf8(self, piece: bytes, *, final: bool = False) -> bytes:
        waiting_bytes = len(self._decoder.getstate()[0])
        if self._keeps_ascii and not waiting_bytes and piece.isascii():
            self._taken_bytes += len(piece)
            return piece
        try:
            text = self._decoder.decode(piece, final).encode()
        except UnicodeError as error:
            start = error.start if isinstance(error, UnicodeDecodeError) else 0
            byte = self._taken_bytes - waiting_bytes + start
            raise Refusal(
                "bad_encoding",
                f"byte {byte} is not {self._charset}: say the input's own encoding, or mend it there",
                byte=byte,
            ) from None
        self._taken_bytes += len(piece)
        return text


def _is_identity(charset: str) -> bool:
    """Whether ASCII in ``charset`` is ASCII."""
    ascii_bytes = bytes(range(128))
    return ascii_bytes.decode(charset, "replace") == ascii_bytes.decode()
