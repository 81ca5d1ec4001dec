"""Which bytes of a kept result answer a request: preconditions and ranges (RFC 9110, sections 13 and 14).

A kept result never changes: it has one strong entity tag, one size and one time. Nothing is read here; the answer names
the slices of the file that the caller is to send.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate

from starlette.datastructures import Headers

_MAX_RANGES = 16
"""More ranges than this in one request are no download; the whole is sent, as RFC 9110, 14.2 lets a server do."""
_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")
_TAG = re.compile(r'(?:^|,)[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')
"""An entity tag (RFC 9110, 8.8.3) as an element of a list. Commas may stand in a tag, quotes may not."""
_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
"""The forms of a date that RFC 9110, 5.6.7 has a recipient accept; the first is the one that is sent."""


@dataclass(frozen=True, slots=True)
class Slice:
    """``nbytes`` of the file, from ``offset`` on; never none, and never beyond the end."""

    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer and what its body is made of, in order: texts, and slices of the file.

    ``headers`` are as ASGI wants them, names in lower case. ``pieces`` add up to the Content-Length, but for HEAD.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: tuple[bytes | Slice, ...]


def decide(
    method: str, headers: Mapping[str, str], *, nbytes: int, etag: str, modified_at: float, media_type: str
) -> Answer:
    """The answer to a request for a file of ``nbytes`` that exists (RFC 9110, 13.2.2, 14.2 and 15.3.7).

    ``headers`` has lower-case names; in a ``Headers``, a name may come more than once. ``etag`` is strong, and in its
    quotes; ``modified_at`` is Unix time, told and compared in whole seconds. The status is 200, 206, 304, 412 or 416.

    HEAD gets the head of the whole, since ranges are defined for GET alone. Of any other method only the preconditions
    are judged: 412, or a 200 that lets it go ahead and holds no pieces.
    """
    modified_s = int(modified_at)
    failed = _failed_precondition(method, headers, etag, modified_s)
    if failed == 304:  # 15.4.5: no metadata beside the entity tag
        return Answer(304, [(b"etag", etag.encode("latin-1"))], ())
    if failed is not None:
        return _answer(failed, etag, modified_s, (), {})
    asked = _asked(headers, nbytes, etag, modified_s) if method == "GET" else None
    if asked is None:
        head = {"content-length": str(nbytes), "content-type": media_type}
        whole = (Slice(0, nbytes),) if method == "GET" and nbytes else ()
        return _answer(200, etag, modified_s, whole, head)
    if not asked:
        return _answer(416, etag, modified_s, (), {"content-range": f"bytes */{nbytes}"})
    if len(asked) == 1:
        head = {"content-range": _content_range(asked[0], nbytes), "content-type": media_type}
        return _answer(206, etag, modified_s, (asked[0],), head)
    boundary = secrets.token_hex(16)
    head = {"content-type": f"multipart/byteranges; boundary={boundary}"}
    return _answer(206, etag, modified_s, _multipart(asked, nbytes, media_type, boundary), head)


def _answer(
    status: int, etag: str, modified_s: int, pieces: tuple[bytes | Slice, ...], head: Mapping[str, str]
) -> Answer:
    """The headers that every answer with a Content-Length has, then ``head``."""
    fields = {
        "accept-ranges": "bytes",
        "etag": etag,
        "last-modified": formatdate(modified_s, usegmt=True),
        "content-length": str(sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in pieces)),
        **head,
    }
    return Answer(status, [(name.encode(), value.encode("latin-1")) for name, value in fields.items()], pieces)


def _failed_precondition(method: str, headers: Mapping[str, str], etag: str, modified_s: int) -> int | None:
    """304 or 412, if a precondition is false (RFC 9110, 13.2.2)."""
    reads = method in ("GET", "HEAD")
    if (wanted := _field(headers, "if-match")) is not None:
        if not _lists(wanted, etag, weakly=False):
            return 412
    elif (since_s := _seconds(_field(headers, "if-unmodified-since"))) is not None and modified_s > since_s:
        return 412
    if (owned := _field(headers, "if-none-match")) is not None:
        if _lists(owned, etag, weakly=True):
            return 304 if reads else 412
    elif reads and (since_s := _seconds(_field(headers, "if-modified-since"))) is not None and modified_s <= since_s:
        return 304
    return None


def _asked(headers: Mapping[str, str], nbytes: int, etag: str, modified_s: int) -> Sequence[Slice] | None:
    """The slices to send, none if no range can be satisfied; ``None`` for the whole (RFC 9110, 13.1.5 and 14.1.2).

    A date in ``If-Range`` is a strong validator here (8.8.2.2), for the file did not change within its second.
    """
    unit, _, listed = (_field(headers, "range") or "").partition("=")
    specs = [spec for element in listed.split(",") if (spec := element.strip(" \t"))]
    if unit.lower() != "bytes" or not 0 < len(specs) <= _MAX_RANGES:
        return None
    validator = _field(headers, "if-range")
    if validator is not None and validator != etag and _seconds(validator) != modified_s:
        return None
    slices: list[Slice] = []
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None or spec == "-" or (match[1] and match[2] and int(match[1]) > int(match[2])):
            return None
        if match[1]:
            start, end = int(match[1]), min(int(match[2]) + 1, nbytes) if match[2] else nbytes
        else:
            start, end = max(0, nbytes - int(match[2])), nbytes
        if start < end:
            slices.append(Slice(start, end - start))
    return _coalesced(slices)


def _coalesced(slices: Sequence[Slice]) -> Sequence[Slice]:
    """``slices`` with those joined that overlap or touch, each where the first of them was asked for (15.3.7.2)."""
    joined: list[tuple[int, int, int]] = []
    for place, piece in sorted(enumerate(slices), key=lambda placed: placed[1].offset):
        first, start, end = place, piece.offset, piece.offset + piece.nbytes
        if joined and start <= joined[-1][2]:
            before = joined.pop()
            first, start, end = min(before[0], first), before[1], max(before[2], end)
        joined.append((first, start, end))
    return [Slice(start, end - start) for _, start, end in sorted(joined)]


def _multipart(slices: Sequence[Slice], nbytes: int, media_type: str, boundary: str) -> tuple[bytes | Slice, ...]:
    """The body of ``multipart/byteranges`` (RFC 9110, 14.6)."""
    pieces: list[bytes | Slice] = []
    opening = f"--{boundary}\r\n"
    for piece in slices:
        head = f"{opening}Content-Type: {media_type}\r\nContent-Range: {_content_range(piece, nbytes)}\r\n\r\n"
        pieces += [head.encode("latin-1"), piece]
        opening = f"\r\n--{boundary}\r\n"
    return (*pieces, f"\r\n--{boundary}--\r\n".encode())


def _content_range(piece: Slice, nbytes: int) -> str:
    """A Content-Range (RFC 9110, 14.4)."""
    return f"bytes {piece.offset}-{piece.offset + piece.nbytes - 1}/{nbytes}"


def _field(headers: Mapping[str, str], name: str) -> str | None:
    """The value of a field, its lines joined (RFC 9110, 5.3); ``None`` if it is not there."""
    if isinstance(headers, Headers):
        lines = headers.getlist(name)
        return ", ".join(lines) if lines else None
    return headers.get(name)


def _lists(field: str, etag: str, *, weakly: bool) -> bool:
    """Whether the list of entity tags holds ``etag``, or is ``*`` (RFC 9110, 8.8.3.2)."""
    tags: Sequence[str] = _TAG.findall(field)
    return field.strip(" \t") == "*" or any(etag == (tag.removeprefix("W/") if weakly else tag) for tag in tags)


def _seconds(date: str | None) -> float | None:
    """An HTTP date as Unix time; ``None`` for what is not one, which is then to be ignored (RFC 9110, 13.1.3)."""
    if date is not None:
        for form in _DATES:
            with suppress(ValueError):
                return datetime.strptime(date, form).replace(tzinfo=UTC).timestamp()
    return None
