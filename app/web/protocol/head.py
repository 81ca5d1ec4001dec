"""The head of a request: parsed by llhttp, and what its headers say about the body (RFC 9112, section 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

import httptools

MAX_HEAD_BYTES = 64 * 1024
_END = re.compile(rb"\r\n\r\n")
_DIGITS = re.compile(rb"[0-9]{1,18}")


class BadHead(Exception):
    """A head that is refused. What follows it on the connection cannot be trusted to be a request."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. ``length_bytes`` of its body is None where the body is chunked, and 0 where there is none."""

    method: str
    http_version: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    length_bytes: int | None
    keep_alive: bool
    expects_continue: bool
    takes_trailers: bool


class HeadReader:
    """Reads heads one after the other. llhttp is never shown a byte of a body, so it cannot differ from the reader of
    bodies about where one ends."""

    _tail: bytes

    def __init__(self) -> None:
        self._start()

    @property
    def begun(self) -> bool:
        """Bytes of a head have come."""
        return self._nbytes > 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Add bytes; once they complete a head, it and what came behind it. Raises ``BadHead``."""
        while data:
            # The end may lie across two pieces: it is looked for in the last three bytes of the one before, too.
            joined = self._tail + data
            found = _END.search(joined)
            cut = len(data) if found is None else found.end() - len(self._tail)
            self._nbytes += cut
            if self._nbytes > MAX_HEAD_BYTES:
                raise BadHead(431, f"the head of the request is larger than {MAX_HEAD_BYTES} bytes")
            self._tail = joined[-3:] if found is None else b""
            piece, data = data[:cut], data[cut:]
            self._parse(piece)
            if self._overrun or (self._complete and found is None):
                raise BadHead(400, "the head of a request ends with an empty line, CR LF")
            if self._complete:
                head = self._head()
                self._start()
                return head, data
        return None

    def _start(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._complete = False
        self._keep_alive = False
        self._overrun = False
        self._messages = 0
        self._nbytes = 0
        self._tail = b""

    def _parse(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # we speak HTTP/1.1 and nothing else: an offer to speak something else is passed over
        except httptools.HttpParserError as error:
            raise BadHead(400, f"this is no HTTP request: {error}") from error

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._messages += 1
        self._overrun = self._messages > 1

    def on_body(self, body: bytes) -> None:
        """A byte of a body: llhttp and we differ about where the head ends."""
        self._overrun = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The blank line. llhttp forgets what the head said once it has seen the end of the request."""
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()

    def _head(self) -> Head:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise BadHead(505, f"HTTP/{version} is not spoken here, HTTP/1.1 is")
        method = self._parser.get_method().decode("ascii")
        if method == "CONNECT":
            raise BadHead(501, "this is no proxy")
        raw_path, query = _target(self._url)
        seen = _values(self._headers)
        hosts = seen.get(b"host", [])
        if len(hosts) > 1 or (version == "1.1" and not hosts):
            raise BadHead(400, "a request needs one Host header")
        expected = b",".join(seen.get(b"expect", [])).strip().lower()
        if expected not in (b"", b"100-continue"):
            raise BadHead(417, f"the expectation {expected[:40]!r} is not known")
        return Head(
            method=method,
            http_version=version,
            path=unquote(raw_path.decode("ascii")),
            raw_path=raw_path,
            query_string=query,
            headers=self._headers,
            length_bytes=_body_length(seen, version),
            keep_alive=version == "1.1" and self._keep_alive,
            expects_continue=bool(expected) and version == "1.1",
            takes_trailers=version == "1.1" and b"trailers" in _elements(seen.get(b"te", [])),
        )


def _values(headers: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    seen: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        seen.setdefault(name, []).append(value.strip(b" \t"))
    return seen


def _elements(values: list[bytes]) -> list[bytes]:
    return [element.partition(b";")[0].strip().lower() for value in values for element in value.split(b",")]


def _target(url: bytes) -> tuple[bytes, bytes]:
    try:
        parsed = httptools.parse_url(url)
        path = parsed.path or b"/"
        path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
        raise BadHead(400, f"{url[:80]!r} is no target of a request") from error
    return path, parsed.query or b""


def _body_length(seen: dict[bytes, list[bytes]], version: str) -> int | None:
    """How long the body is; None if it is chunked. What could be read in two ways is refused (RFC 9112, 6.3)."""
    codings, lengths = seen.get(b"transfer-encoding"), seen.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise BadHead(400, "a request has Content-Length or Transfer-Encoding, not both")
        if version != "1.1":
            raise BadHead(400, "Transfer-Encoding needs HTTP/1.1")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadHead(501, "the only transfer coding that is undone here is chunked")
        return None
    if lengths is None:
        return 0
    if len(lengths) != 1 or _DIGITS.fullmatch(lengths[0]) is None:
        raise BadHead(400, "Content-Length is one number of at most 18 digits")
    return int(lengths[0])
