"""The head of an answer, and how its body is framed (RFC 9112, sections 4 to 7). Plain functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

Headers = Iterable[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """``data`` goes out as it is. ``length_bytes`` is what the body must have; None where it is ``chunked`` or ends with
    the connection. Nothing may follow it where the answer is ``bare``."""

    data: bytes
    length_bytes: int | None
    chunked: bool
    bare: bool
    close: bool


def reply_head(
    status: int,
    headers: Headers,
    *,
    default_headers: Headers,
    method: str,
    http_version: str,
    keep_alive: bool,
    trailers: bool = False,
) -> ReplyHead:
    """Put the head together. Raises ``ValueError`` for what must not be in one.

    A body without Content-Length is chunked for HTTP/1.1 and ends with the connection for HTTP/1.0. ``trailers`` are
    only possible where it is chunked. ``close``: the connection ends with this answer.
    """
    lines = [_STATUS_LINES[status]]
    length_bytes: int | None = None
    bare = method == "HEAD" or status in (204, 304)
    for name, value in (*default_headers, *headers):
        line = _line("header", name, value)
        low = name.lower()
        if low == b"content-length":
            length_bytes = int(value)
        elif low == b"transfer-encoding":
            continue  # the framing is for the server to choose
        elif low == b"connection":
            keep_alive = keep_alive and b"close" not in value.lower()
            continue
        lines.append(line)
    chunked = False
    if length_bytes is None and not bare:
        chunked = http_version == "1.1"
        keep_alive = keep_alive and chunked
        if chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
    if trailers and not chunked:
        raise ValueError("trailers need a chunked body")
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return ReplyHead(b"".join(lines), None if bare or chunked else length_bytes, chunked, bare, not keep_alive)


def trailer_block(trailers: Headers) -> bytes:
    """The end of a chunked body, with its trailer fields. Raises ``ValueError`` for what must not be in one."""
    return b"".join((b"0\r\n", *(_line("trailer", name, value) for name, value in trailers), b"\r\n"))


def _line(kind: str, name: bytes, value: bytes) -> bytes:
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise ValueError(f"the {kind} {name[:40]!r}: {value[:40]!r} cannot be sent")
    return b"%b: %b\r\n" % (name, value)
