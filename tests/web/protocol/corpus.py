"""Requests as bytes, with what may come of each: written from RFC 9110 and RFC 9112, and from what the test suites of
llhttp and h11 cover.

``kept``: the app sees these requests, and the connection can be used again. ``closed``: it sees them, and the server
ends the connection, so that what stands behind is not answered. ``refused``: it sees the requests that stand before the
bad one, then comes a refusal, then the end. ``either``: the recipient has the choice; but if the request is taken, then
with this body, and so that the request behind it is found. ``unfinished``: the last request has no end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

REFUSALS = frozenset({400, 413, 414, 417, 431, 501, 505})


@dataclass(frozen=True)
class Seen:
    method: str
    target: str
    body: bytes = b""


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes
    sees: tuple[Seen, ...]
    ends: frozenset[str]
    """Of ``kept``, ``closed``, ``closed early``, ``refused`` and ``unfinished``."""


def kept(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw, sees, frozenset({"kept"}))


def closed(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw + BEHIND, sees, frozenset({"closed"}))


def answered(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw, sees, frozenset({"kept", "closed"}))


def refused(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw + BEHIND, sees, frozenset({"refused"}))


def either(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw + BEHIND, (*sees, SEES_BEHIND), frozenset({"kept", "closed", "refused"}))


def refused_or_closed(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw + BEHIND, sees, frozenset({"closed", "refused"}))


def unfinished(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw, sees, frozenset({"unfinished"}))


def request(first_line: str, *fields: str, body: bytes = b"") -> bytes:
    return "".join(f"{line}\r\n" for line in (first_line, *fields)).encode("latin-1") + b"\r\n" + body


def post(*fields: str, body: bytes = b"") -> bytes:
    return request("POST /a HTTP/1.1", "Host: t", *fields, body=body)


def get(*fields: str, target: str = "/g") -> bytes:
    return request(f"GET {target} HTTP/1.1", "Host: t", *fields)


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


BEHIND = b"GET /behind HTTP/1.1\r\nHost: t\r\n\r\n"
SEES_BEHIND = Seen("GET", "/behind")
GET = Seen("GET", "/g")
EMPTY = Seen("POST", "/a")
HELLO = Seen("POST", "/a", b"hello")
CHUNKED_HELLO = b"5\r\nhello\r\n0\r\n\r\n"
GOOD_POST = post("Content-Length: 5", body=b"hello")
GOOD_CHUNKED = chunked(CHUNKED_HELLO)


def methods() -> Iterator[Case]:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        yield kept(f"method-{method}", request(f"{method} /m HTTP/1.1", "Host: t"), Seen(method, "/m"))
        with_body = request(f"{method} /m HTTP/1.1", "Host: t", "Content-Length: 5", body=b"hello")
        yield kept(f"method-{method}-with-body", with_body, Seen(method, "/m", b"hello"))
        with_chunks = request(f"{method} /m HTTP/1.1", "Host: t", "Transfer-Encoding: chunked", body=CHUNKED_HELLO)
        yield kept(f"method-{method}-with-chunks", with_chunks, Seen(method, "/m", b"hello"))
    known = (
        "TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT"
    )
    known += " MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK QUERY"
    for method in (*known.split(), "BREW", "get", "Get", "POSTED", "PO", "GE!"):
        yield either(f"method-{method}", request(f"{method} /m HTTP/1.1", "Host: t"), Seen(method, "/m"))
    yield either("method-of-5000-letters", request("A" * 5000 + " /m HTTP/1.1", "Host: t"), Seen("A" * 5000, "/m"))
    for name, method in (
        ("empty", ""), ("with-NUL", "G\0T"), ("with-colon", "GET:"), ("with-DEL", "GE\x7f"), ("with-tab", "G\tT"),
        ("in-quotes", '"GET"'), ("with-a-slash", "GET/"), ("not-ASCII", "G\xc9T"),
    ):  # fmt: skip
        yield refused(f"method-{name}", request(f"{method} /m HTTP/1.1", "Host: t"))
    connect = request("CONNECT t:443 HTTP/1.1", "Host: t:443")
    yield Case("method-CONNECT", connect, (), frozenset({"refused"}))
    with_body = request("CONNECT t:443 HTTP/1.1", "Host: t:443", "Content-Length: 5", body=b"hello")
    yield Case("method-CONNECT-with-body", with_body, (), frozenset({"refused"}))


def request_lines() -> Iterator[Case]:
    for name, target, seen in (
        ("origin-form", "/a/b?c=d&e=f", "/a/b?c=d&e=f"), ("percent-encoded", "/a%20b%2Fc?d=%26", "/a%20b%2Fc?d=%26"),
        ("two-slashes", "//a//b", "//a//b"), ("dot-segments", "/a/../b/./c", "/a/../b/./c"),
        ("all-punctuation", "/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@"), ("two-question-marks", "/a?b?c", "/a?b?c"),
        ("absolute-form", "http://t/abs?x=1", "/abs?x=1"), ("absolute-form-with-port", "http://t:80/abs", "/abs"),
    ):  # fmt: skip
        yield kept(f"target-{name}", get(target=target), Seen("GET", seen))
    for name, target, seen in (
        ("absolute-form-of-another-host", "http://other/abs", "/abs"), ("absolute-form-https", "https://t/abs", "/abs"),
        ("percent-NUL", "/a%00b", "/a%00b"), ("bad-percent", "/a%zz%", "/a%zz%"),
        ("percent-not-UTF-8", "/%ff%fe", "/%ff%fe"), ("curly-brackets", "/{a}|^`", "/{a}|^`"),
        ("backslash", "/a\\b", "/a\\b"), ("of-70000-bytes", "/" + "t" * 70000, "/" + "t" * 70000),
        ("of-3000-bytes", "/" + "t" * 3000, "/" + "t" * 3000), ("with-quotes", "/a\"b'<c>", "/a\"b'<c>"),
    ):  # fmt: skip
        yield either(f"target-{name}", get(target=target), Seen("GET", seen))
    for name, target in (
        ("with-space", "/a b"), ("with-tab", "/a\tb"), ("with-NUL", "/a\0b"), ("with-control-byte", "/a\x01b"),
        ("with-DEL", "/a\x7fb"), ("with-bare-CR", "/a\rb"), ("with-bare-LF", "/a\nb"), ("relative", "a/b"),
        ("missing", ""), ("authority-form-for-GET", "t:80"), ("only-a-scheme", "http://"),
    ):  # fmt: skip
        yield refused(f"target-{name}", get(target=target))
    # What the app is told of these is left open by the gateway interface: they are refused, or the target is the path.
    yield either("target-with-fragment", get(target="/a?b#c"), Seen("GET", "/a?b"))
    yield either("target-empty-query", get(target="/a?"), Seen("GET", "/a"))
    yield either("target-absolute-form-without-path", get(target="http://t"), Seen("GET", "/"))
    yield either("target-absolute-form-with-user", get(target="http://u:p@t/abs"), Seen("GET", "/abs"))
    yield either("target-not-ASCII", get(target="/\xc3\xa9"), Seen("GET", "/\xc3\xa9"))
    yield either("target-asterisk-form", request("OPTIONS * HTTP/1.1", "Host: t"), Seen("OPTIONS", "*"))
    yield either("target-asterisk-form-for-GET", get(target="*"), Seen("GET", "*"))

    for version in ("1.2", "1.9"):
        yield either(f"version-{version}", request(f"GET /v HTTP/{version}", "Host: t"), Seen("GET", "/v"))
    for version in ("2.0", "3.0"):
        yield refused_or_closed(f"version-{version}", request(f"GET /v HTTP/{version}", "Host: t"), Seen("GET", "/v"))
    for name, line in (
        ("lower-case", "GET /v http/1.1"), ("mixed-case", "GET /v Http/1.1"), ("of-two-digits", "GET /v HTTP/1.10"),
        ("leading-zero", "GET /v HTTP/01.1"), ("without-minor", "GET /v HTTP/1"), ("with-a-dot-only", "GET /v HTTP/1."),
        ("with-a-comma", "GET /v HTTP/1,1"), ("with-plus", "GET /v HTTP/+1.1"), ("negative", "GET /v HTTP/-1.1"),
        ("with-space-inside", "GET /v HTTP/1 .1"), ("with-space-before-slash", "GET /v HTTP /1.1"),
        ("with-a-letter", "GET /v HTTP/1.a"), ("empty", "GET /v HTTP/"), ("of-the-far-future", "GET /v HTTP/9.9"),
        ("HTTPS", "GET /v HTTPS/1.1"), ("ICE", "GET /v ICE/1.0"), ("HTP", "GET /v HTP/1.1"),
        ("twice", "GET /v HTTP/1.1 HTTP/1.1"), ("with-rubbish-behind", "GET /v HTTP/1.1x"),
    ):  # fmt: skip
        yield refused(f"version-{name}", request(line, "Host: t"))
    yield closed("version-1.0", request("GET /v HTTP/1.0"), Seen("GET", "/v"))
    old_post = request("POST /v HTTP/1.0", "Content-Length: 5", body=b"hello")
    yield closed("version-1.0-with-body", old_post, Seen("POST", "/v", b"hello"))
    kept_alive = request("GET /v HTTP/1.0", "Connection: keep-alive")
    yield answered("version-1.0-keep-alive", kept_alive, Seen("GET", "/v"))
    # llhttp reads RTSP too.
    yield refused_or_closed("version-RTSP", request("GET /v RTSP/1.0", "Host: t"), Seen("GET", "/v"))
    yield refused_or_closed("version-0.9", b"GET /v\r\n", Seen("GET", "/v"))
    yield refused_or_closed("version-0.9-and-an-empty-line", b"GET /v\r\n\r\n", Seen("GET", "/v"))
    yield refused_or_closed("version-0.9-told", request("GET /v HTTP/0.9", "Host: t"), Seen("GET", "/v"))

    for name, line in (
        ("two-spaces-after-method", "GET  /l HTTP/1.1"), ("two-spaces-before-version", "GET /l  HTTP/1.1"),
        ("tab-after-method", "GET\t/l HTTP/1.1"), ("tab-before-version", "GET /l\tHTTP/1.1"),
        ("space-after-version", "GET /l HTTP/1.1 "), ("tab-after-version", "GET /l HTTP/1.1\t"),
    ):  # fmt: skip
        yield either(f"request-line-{name}", request(line, "Host: t"), Seen("GET", "/l"))
    for name, raw in (
        ("form-feed-after-method", request("GET\f/l HTTP/1.1", "Host: t")),
        ("vertical-tab-before-version", request("GET /l\vHTTP/1.1", "Host: t")),
        ("begins-with-space", request(" GET /l HTTP/1.1", "Host: t")),
        ("begins-with-tab", request("\tGET /l HTTP/1.1", "Host: t")),
        ("begins-with-NUL", request("\0GET /l HTTP/1.1", "Host: t")),
        ("begins-with-a-byte-order-mark", request("\xef\xbb\xbfGET /l HTTP/1.1", "Host: t")),
        ("ends-with-CR-CR-LF", b"GET /l HTTP/1.1\r\r\nHost: t\r\n\r\n"),
        ("ends-with-CR", b"GET /l HTTP/1.1\rHost: t\r\n\r\n"),
        ("ends-with-CR-and-a-letter", b"GET /l HTTP/1.1\rxHost: t\r\n\r\n"),
        ("of-a-response", request("HTTP/1.1 200 OK", "Content-Length: 0")),
        ("HTTP-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))),
        ("TLS-client-hello", bytes.fromhex("16030100c2010000be0303") + bytes(range(32)) + b"\r\n\r\n"),
        ("SSH-banner", b"SSH-2.0-OpenSSH_9.2\r\n"), ("rubbish", b"\xff\xfe\xfd\xfc\r\n\r\n"),
    ):  # fmt: skip
        yield refused(f"request-line-{name}", raw)
    for name, before in (("CRLF", b"\r\n"), ("three-CRLF", b"\r\n\r\n\r\n")):
        yield kept(f"request-line-after-{name}", before + get(), GET)
    for name, before in (("LF", b"\n"), ("CR", b"\r"), ("1000-CRLF", b"\r\n" * 1000)):
        yield either(f"request-line-after-{name}", before + get(), GET)
    yield either("lines-all-end-in-LF", get().replace(b"\r\n", b"\n"), GET)
    yield either("request-line-ends-in-LF", b"GET /g HTTP/1.1\nHost: t\r\n\r\n", GET)
    yield refused("lines-all-end-in-CR", get().replace(b"\r\n", b"\r"))


def fields() -> Iterator[Case]:
    for name, field in (
        ("empty-value", "X:"), ("only-spaces", "X:   \t "), ("no-space-after-colon", "X:y"), ("tab-inside", "X: a\tb"),
        ("spaces-around", "X: \t y \t "), ("colons-inside", "X: a:b::c"), ("of-3000-bytes", "X: " + "v" * 3000),
        ("all-token-characters", "!#$%&'*+-.^_`|~09azAZ: y"), ("twice", "X: 1\r\nX: 2"), ("quotes", 'X: "a\\"b"'),
    ):  # fmt: skip
        yield kept(f"field-{name}", get(field), GET)
    for name, field in (
        ("value-not-ASCII", "X: \x80\xe9\xff"), ("value-of-70000-bytes", "X: " + "v" * 70000),
        ("value-of-a-megabyte", "X: " + "v" * (1 << 20)), ("name-of-9000-bytes", "n" * 9000 + ": v"),
        ("100-of-them", "\r\n".join(f"X-{n}: {n}" for n in range(100))),
        ("2000-of-them", "\r\n".join(f"X-{n}: {n}" for n in range(2000))),
        ("50000-of-them", "\r\n".join("a: b" for _ in range(50000))), ("value-with-tab-only-at-its-end", "X: a\t"),
    ):  # fmt: skip
        yield either(f"field-{name}", get(field), GET)
    for name, field in (
        ("name-empty", ": v"), ("name-with-space", "X Y: v"), ("space-before-colon", "X : v"), ("without-colon", "XY"),
        ("tab-before-colon", "X\t: v"), ("name-with-NUL", "X\0Y: v"), ("name-with-control-byte", "X\x01Y: v"),
        ("name-with-DEL", "X\x7f: v"), ("name-not-ASCII", "X\xe9: v"), ("name-in-brackets", "(X): v"),
        ("name-with-slash", "X/Y: v"), ("name-with-quotes", '"X": v'), ("name-with-bare-CR", "X\rY: v"),
        ("name-with-bare-LF", "X\nY: v"), ("value-with-NUL", "X: a\0b"), ("value-with-NUL-at-its-end", "X: a\0"),
        ("value-with-bare-CR", "X: a\rb"), ("value-with-bare-CR-at-its-end", "X: a\r"), ("value-is-bare-CR", "X:\r"),
        ("name-with-vertical-tab", "X\v: v"), ("name-with-at", "X@Y: v"), ("name-with-equals", "X=Y: v"),
    ):  # fmt: skip
        yield refused(f"field-{name}", get(field))
    for code in (0x01, 0x08, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F, 0x7F):
        yield either(f"field-value-with-byte-{code:02x}", get(f"X: a{chr(code)}b"), GET)
    for name, field in (
        ("with-space", "X: a\r\n b"), ("with-tab", "X: a\r\n\tb"), ("of-nothing", "X: a\r\n "),
        ("twice", "X: a\r\n b\r\n c"), ("after-an-empty-value", "X:\r\n b"), ("before-the-colon", "X\r\n : a"),
    ):  # fmt: skip
        yield either(f"obs-fold-{name}", get(field), GET)
    yield refused("field-first-begins-with-space", request("GET /g HTTP/1.1", " Host: t"))
    yield refused("field-first-begins-with-tab", request("GET /g HTTP/1.1", "\tX: y", "Host: t"))
    yield either("field-ends-in-LF", b"GET /g HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", GET)
    yield either("fields-end-in-LF", b"GET /g HTTP/1.1\r\nHost: t\r\n\n", GET)
    yield either("fields-end-in-LF-LF", b"GET /g HTTP/1.1\r\nHost: t\n\n", GET)
    yield refused("fields-end-in-CR-and-a-letter", b"GET /g HTTP/1.1\r\nHost: t\r\n\rx")
    yield refused("fields-end-in-CR-CR-LF", b"GET /g HTTP/1.1\r\nHost: t\r\n\r\r\n")
    yield either("host-missing", request("GET /g HTTP/1.1"), GET)
    yield either("host-empty", request("GET /g HTTP/1.1", "Host:"), GET)
    yield either("host-twice", get("Host: t"), GET)
    yield either("host-twice-unequal", get("Host: other"), GET)
    yield either("host-with-bad-characters", request("GET /g HTTP/1.1", "Host: a/b@c d"), GET)
    yield either("host-with-a-list", request("GET /g HTTP/1.1", "Host: a, b"), GET)


def content_lengths() -> Iterator[Case]:
    for name, field in (
        ("5", "Content-Length: 5"), ("without-space", "Content-Length:5"), ("lower-case", "content-length: 5"),
        ("upper-case", "CONTENT-LENGTH: 5"), ("space-behind", "Content-Length: 5 "),
        ("tab-before", "Content-Length:\t5"),
    ):  # fmt: skip
        yield kept(f"content-length-{name}", post(field, body=b"hello"), HELLO)
    yield kept("content-length-0", post("Content-Length: 0"), EMPTY)
    yield kept("content-length-none", post(), EMPTY)
    large = random.Random(1).randbytes(300_000)
    yield kept("content-length-300000", post("Content-Length: 300000", body=large), Seen("POST", "/a", large))
    for name, fields_of_it in (
        ("leading-zero", ["05"]), ("leading-zeros", ["0" * 30 + "5"]), ("tab-behind", ["5\t"]),
        ("list-of-equal", ["5, 5"]), ("list-of-equal-without-space", ["5,5"]), ("twice-equal", ["5", "5"]),
        ("three-times-equal", ["5", "5", "5"]), ("equal-but-for-a-zero", ["5", "05"]),
    ):  # fmt: skip
        raw = post(*(f"Content-Length: {value}" for value in fields_of_it), body=b"hello")
        yield either(f"content-length-{name}", raw, HELLO)
    for name, fields_of_it in (
        ("empty", [""]), ("only-space", ["  "]), ("negative", ["-5"]), ("negative-zero", ["-0"]), ("plus", ["+5"]),
        ("hex", ["0x5"]), ("hex-digit", ["a"]), ("decimal-point", ["5.0"]), ("exponent", ["5e0"]), ("word", ["five"]),
        ("space-inside", ["5 5"]), ("underscore", ["1_0"]), ("list-of-unequal", ["5, 6"]), ("list-of-5-and-0", ["5,0"]),
        ("list-with-empty", ["5,"]), ("list-begins-empty", [",5"]), ("twice-unequal", ["5", "6"]),
        ("0-and-5", ["0", "5"]), ("5-and-empty", ["5", ""]), ("empty-and-5", ["", "5"]), ("5-and-rubbish", ["5", "x"]),
        ("parameter", ["5;a=b"]), ("vertical-tab", ["5\v"]), ("vertical-tab-before", ["\v5"]), ("NUL", ["5\0"]),
        ("bare-CR", ["5\r"]), ("no-break-space", ["5\xa0"]), ("arabic-digit", ["\xd9\xa5"]),
        ("full-width-digit", ["\xef\xbc\x95"]), ("quotes", ['"5"']), ("2-to-the-64", [str(1 << 64)]),
        ("2-to-the-64-and-5", [str((1 << 64) + 5)]), ("2-to-the-65-and-5", [str((1 << 65) + 5)]),
        ("of-40-digits", ["9" * 40]), ("of-5000-digits", ["1" * 5000]), ("folded", ["\r\n 5"]),
        ("folded-before-a-digit", ["5\r\n 5"]), ("plus-behind", ["5+"]), ("comma-only", [","]),
    ):  # fmt: skip
        raw = post(*(f"Content-Length: {value}" for value in fields_of_it), body=b"hello")
        yield refused(f"content-length-{name}", raw)
    for name, field in (
        ("space-before-colon", "Content-Length : 5"), ("tab-before-colon", "Content-Length\t: 5"),
        ("begins-with-space", " Content-Length: 5"), ("name-with-NUL", "Content-Length\0: 5"),
        ("name-with-bare-CR", "\rContent-Length: 5"), ("after-bare-LF", "X: y\nContent-Length: 5"),
        ("after-bare-CR", "X: y\rContent-Length: 5"), ("after-LF-CR", "X: y\n\rContent-Length: 5"),
        ("after-an-empty-value-and-LF", "X:\nContent-Length: 5"),
        ("after-an-empty-value-and-CR", "X:\rContent-Length: 5"),
    ):  # fmt: skip
        yield refused(f"content-length-{name}", post(field, body=b"hello"))
    for name, field in (("with-underscore", "Content_Length: 5"), ("with-prefix", "X-Content-Length: 5")):
        yield refused(f"no-content-length-{name}", post(field, body=b"hello"), EMPTY)
    for name, length in (
        ("longer-than-the-body", 6), ("2-to-the-63-less-1", (1 << 63) - 1), ("2-to-the-63", 1 << 63),
        ("2-to-the-64-less-1", (1 << 64) - 1),
    ):  # fmt: skip
        yield unfinished(f"content-length-{name}", post(f"Content-Length: {length}", body=b"hello"))
    yield refused(
        "content-length-shorter-than-the-body", post("Content-Length: 4", body=b"hello"), Seen("POST", "/a", b"hell")
    )
    yield refused("content-length-0-with-body", post("Content-Length: 0", body=b"hello"), EMPTY)


def transfer_encodings() -> Iterator[Case]:
    for name, field in (
        ("chunked", "Transfer-Encoding: chunked"), ("Chunked", "Transfer-Encoding: Chunked"),
        ("CHUNKED", "TRANSFER-ENCODING: CHUNKED"), ("without-space", "transfer-encoding:chunked"),
        ("tab-before", "Transfer-Encoding:\tchunked"), ("space-behind", "Transfer-Encoding: chunked "),
    ):  # fmt: skip
        yield kept(f"transfer-encoding-{name}", post(field, body=CHUNKED_HELLO), HELLO)
    for name, values in (
        ("gzip-chunked", ["gzip, chunked"]), ("identity-chunked", ["identity, chunked"]), ("tab-behind", ["chunked\t"]),
        ("unknown-chunked", ["x-unknown, chunked"]), ("chunked-chunked", ["chunked, chunked"]),
        ("twice", ["chunked", "chunked"]), ("gzip-then-chunked", ["gzip", "chunked"]),
        ("list-ends-empty", ["chunked,"]), ("identity-then-chunked", ["identity", "chunked"]),
        ("list-begins-empty", [", chunked"]), ("empty-then-chunked", ["", "chunked"]), ("parameter", ["chunked;a=b"]),
        ("no-comma", ["gzip,chunked"]),
    ):  # fmt: skip
        raw = post(*(f"Transfer-Encoding: {value}" for value in values), body=CHUNKED_HELLO)
        yield either(f"transfer-encoding-{name}", raw, HELLO)
    for name, values in (
        ("identity", ["identity"]), ("gzip", ["gzip"]), ("deflate", ["deflate"]), ("unknown", ["pigeons"]),
        ("empty", [""]), ("only-space", ["  "]), ("chunked-gzip", ["chunked, gzip"]), ("xchunked", ["xchunked"]),
        ("chunkedx", ["chunkedx"]), ("chunked-identity", ["chunked, identity"]), ("chunk", ["chunk"]),
        ("vertical-tab-before", ["\vchunked"]), ("vertical-tab-behind", ["chunked\v"]), ("NUL-behind", ["chunked\0"]),
        ("form-feed-before", ["\fchunked"]), ("in-quotes", ['"chunked"']), ("in-single-quotes", ["'chunked'"]),
        ("space-inside", ["chun ked"]), ("space-and-a-word", ["chunked x"]), ("word-and-space", ["x chunked"]),
        ("semicolon-list", ["gzip;chunked"]), ("colon-before", [": chunked"]),
        ("chunked-then-identity", ["chunked", "identity"]), ("chunked-then-gzip", ["chunked", "gzip"]),
        ("chunked-then-rubbish", ["chunked", "x"]), ("bare-CR", ["chunked\r"]), ("folded", ["\r\n chunked"]),
        ("folded-behind", ["chunked\r\n , gzip"]), ("not-ASCII", ["chunked\xff"]), ("no-break-space", ["\xa0chunked"]),
        ("long-s", ["chun\xc5\xbfed"]), ("kelvin-sign", ["chun\xe2\x84\xaaed"]),
    ):  # fmt: skip
        raw = post(*(f"Transfer-Encoding: {value}" for value in values), body=CHUNKED_HELLO)
        yield refused(f"transfer-encoding-{name}", raw)
    for name, field in (
        ("space-before-colon", "Transfer-Encoding : chunked"), ("tab-before-colon", "Transfer-Encoding\t: chunked"),
        ("begins-with-space", " Transfer-Encoding: chunked"), ("begins-with-CR", "\rTransfer-Encoding: chunked"),
        ("after-bare-LF", "X: y\nTransfer-Encoding: chunked"), ("after-bare-CR", "X: y\rTransfer-Encoding: chunked"),
        ("name-with-NUL", "Transfer-Encoding\0: chunked"), ("name-folded", "Transfer-Encoding\r\n : chunked"),
        ("two-colons-apart", "Transfer-Encoding: : chunked"),
        ("name-with-vertical-tab", "Transfer-Encoding\v: chunked"),
    ):  # fmt: skip
        yield refused(f"transfer-encoding-{name}", post(field, body=CHUNKED_HELLO))
    for name, field in (
        ("with-underscore", "Transfer_Encoding: chunked"), ("with-prefix", "X-Transfer-Encoding: chunked"),
        ("TE", "TE: chunked"), ("without-hyphen", "TransferEncoding: chunked"),
        ("Content-Encoding", "Content-Encoding: chunked"),
    ):  # fmt: skip
        yield refused(f"no-transfer-encoding-{name}", post(field, body=CHUNKED_HELLO), EMPTY)
    both = ("Content-Length: 5", "Transfer-Encoding: chunked")
    # RFC 9112, section 6.1: refuse, or go by the coding and close. Here it is refused, as llhttp does it.
    for name, lines in (
        ("content-length-and-chunked", both), ("chunked-and-content-length", both[::-1]),
        ("content-length-0-and-chunked", ("Content-Length: 0", both[1])),
        ("chunked-and-content-length-0", (both[1], "Content-Length: 0")),
        ("content-length-and-identity", ("Content-Length: 5", "Transfer-Encoding: identity")),
        ("identity-and-content-length", ("Transfer-Encoding: identity", "Content-Length: 5")),
        ("content-length-and-empty-coding", ("Content-Length: 5", "Transfer-Encoding:")),
        ("empty-coding-and-content-length", ("Transfer-Encoding:", "Content-Length: 5")),
        ("content-length-and-gzip-chunked", ("Content-Length: 5", "Transfer-Encoding: gzip, chunked")),
        ("chunked-content-length-chunked", (both[1], both[0], both[1])),
        ("content-length-and-chunked-far-apart", (both[0], *(f"X-{n}: {n}" for n in range(50)), both[1])),
    ):  # fmt: skip
        yield refused(name, post(*lines, body=CHUNKED_HELLO))
    old = request("POST /a HTTP/1.0", "Transfer-Encoding: chunked", body=CHUNKED_HELLO)
    yield refused_or_closed("transfer-encoding-in-version-1.0", old, HELLO)
    old = request("POST /a HTTP/1.0", "Transfer-Encoding: chunked", "Connection: keep-alive", body=CHUNKED_HELLO)
    yield refused_or_closed("transfer-encoding-in-version-1.0-keep-alive", old, HELLO)


def chunked_bodies() -> Iterator[Case]:
    data = random.Random(2).randbytes(70_000)
    one_by_one = b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello")
    for name, body, seen in (
        ("empty", b"0\r\n\r\n", b""),
        ("one-chunk", CHUNKED_HELLO, b"hello"),
        ("empty-with-many-zeros", b"000000\r\n\r\n", b""),
        ("two-chunks", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        ("bytes-one-by-one", one_by_one + b"0\r\n\r\n", b"hello"),
        ("lower-case-hex", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ("upper-case-hex", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ("leading-zeros", b"0005\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("CRLF-as-data", b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        ("last-chunk-as-data", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
        ("a-request-as-data", b"%x\r\n%b\r\n0\r\n\r\n" % (len(BEHIND), BEHIND), BEHIND),
        ("all-bytes-as-data", b"100\r\n" + bytes(range(256)) + b"\r\n0\r\n\r\n", bytes(range(256))),
        ("a-large-chunk", b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data), data),
        (
            "many-chunks",
            b"".join(b"7\r\n%b\r\n" % data[at : at + 7] for at in range(0, 7000, 7)) + b"0\r\n\r\n",
            data[:7000],
        ),
        ("extension", b"5;a\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("extension-with-value", b"5;a=b\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("extension-in-quotes", b'5;a="b c"\r\nhello\r\n0\r\n\r\n', b"hello"),
        ("extension-quoted-semicolon", b'5;a="b;c=d"\r\nhello\r\n0\r\n\r\n', b"hello"),
        ("extension-quoted-pairs", b'5;a="\\"b\\\\"\r\nhello\r\n0\r\n\r\n', b"hello"),
        ("extensions", b"5;a;b=c;d=e\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("extension-on-the-last-chunk", b"5\r\nhello\r\n0;a=b\r\n\r\n", b"hello"),
        ("trailer", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", b"hello"),
        ("trailers", b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"hello"),
        ("trailer-without-data", b"0\r\nX: y\r\n\r\n", b""),
        ("trailer-after-an-extension", b"5;a\r\nhello\r\n0;b\r\nX: y\r\n\r\n", b"hello"),
    ):  # fmt: skip
        yield kept(f"chunked-{name}", chunked(body), Seen("POST", "/a", seen))
    for name, body in (
        ("size-of-16-digits", b"0000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("size-of-40-digits", b"0" * 39 + CHUNKED_HELLO),
        ("size-of-3000-digits", b"0" * 2999 + CHUNKED_HELLO),
        ("last-size-of-3000-digits", b"5\r\nhello\r\n" + b"0" * 3000 + b"\r\n\r\n"),
        ("extension-after-space", b"5 ;a\r\nhello\r\n0\r\n\r\n"),
        ("extension-begins-with-space", b"5; a\r\nhello\r\n0\r\n\r\n"),
        ("extension-spaces-around-equals", b"5;a = b\r\nhello\r\n0\r\n\r\n"),
        ("extension-ends-in-space", b"5;a \r\nhello\r\n0\r\n\r\n"),
        ("extension-with-tab", b"5;a=b\tc\r\nhello\r\n0\r\n\r\n"),
        ("extension-quoted-tab", b'5;a="\t"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quoted-not-ASCII", b'5;a="\xe9"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quoted-empty", b'5;a=""\r\nhello\r\n0\r\n\r\n'),
        ("extension-without-name", b"5;=b\r\nhello\r\n0\r\n\r\n"),
        ("extension-of-3000-bytes", b"5;" + b"e" * 3000 + b"\r\nhello\r\n0\r\n\r\n"),
        ("extension-of-64-KiB", b"5;" + b"e" * 65536 + b"\r\nhello\r\n0\r\n\r\n"),
        (
            "extensions-of-128-KiB-in-all",
            b"".join(b"1;%b\r\n%c\r\n" % (b"e" * 26000, byte) for byte in b"hello") + b"0\r\n\r\n",
        ),
        ("trailer-content-length", b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"),
        ("trailer-content-length-0", b"5\r\nhello\r\n0\r\nContent-Length: 0\r\n\r\n"),
        ("trailer-transfer-encoding", b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("trailer-transfer-encoding-identity", b"5\r\nhello\r\n0\r\nTransfer-Encoding: identity\r\n\r\n"),
        ("trailer-host", b"5\r\nhello\r\n0\r\nHost: evil\r\n\r\n"),
        ("trailer-trailer", b"5\r\nhello\r\n0\r\nTrailer: X\r\n\r\n"),
        ("trailer-of-3000-bytes", b"5\r\nhello\r\n0\r\nX: " + b"v" * 3000 + b"\r\n\r\n"),
        ("trailer-of-64-KiB", b"5\r\nhello\r\n0\r\nX: " + b"v" * 65536 + b"\r\n\r\n"),
        ("trailers-100", b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 100 + b"\r\n"),
        ("trailers-20000", b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 20000 + b"\r\n"),
        ("trailer-not-ASCII", b"5\r\nhello\r\n0\r\nX: \xe9\r\n\r\n"),
        ("trailer-folded", b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        ("trailer-ends-in-LF", b"5\r\nhello\r\n0\r\nX: y\n\r\n"),
        ("trailers-end-in-LF", b"5\r\nhello\r\n0\r\nX: y\r\n\n"),
    ):  # fmt: skip
        yield either(f"chunked-{name}", chunked(body), HELLO)
    yield kept("chunked-trailer-connection-close", chunked(b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n"), HELLO)
    for name, size in (
        ("empty", b""), ("0x", b"0x5"), ("0X", b"0X5"), ("x", b"x5"), ("hash", b"#5"), ("plus", b"+5"),
        ("minus", b"-5"), ("minus-zero", b"-0"), ("space-before", b" 5"), ("space-behind", b"5 "),
        ("tab-before", b"\t5"), ("tab-behind", b"5\t"), ("spaces-behind", b"5   "), ("space-inside", b"0 5"),
        ("vertical-tab-behind", b"5\v"), ("form-feed-behind", b"5\f"), ("NUL-behind", b"5\0"), ("NUL-before", b"\x005"),
        ("letter", b"g"), ("letter-behind", b"5g"), ("letter-h", b"5h"), ("decimal-point", b"5.0"), ("comma", b"5,"),
        ("underscore", b"0_5"), ("colon", b"5:"), ("quotes", b'"5"'), ("equals", b"5="), ("not-ASCII", b"5\xe9"),
        ("full-width-digit", b"\xef\xbc\x95"), ("CR-behind", b"5\r"), ("CR-before", b"\r5"), ("LF-before", b"\n5"),
        ("CRLF-before", b"\r\n5"), ("space-and-word", b"5 hello"), ("17-f", b"f" * 17),
        ("2-to-the-64", b"1" + b"0" * 16), ("2-to-the-64-and-5", b"1" + b"0" * 15 + b"5"),
        ("2-to-the-68-and-5", b"1" + b"0" * 16 + b"5"), ("of-5000-digits", b"1" * 5000), ("percent", b"%35"),
        ("at", b"@5"), ("backtick", b"`5"), ("slash", b"/5"), ("L", b"5L"), ("only-extension", b";a=b"),
        ("semicolon-only", b";"), ("negative-overflow", b"-fffffffffffffffb"),
    ):  # fmt: skip
        yield refused(f"chunk-size-{name}", chunked(size + b"\r\nhello\r\n0\r\n\r\n"))
    for name, body in (
        ("size-ends-in-LF", b"5\nhello\r\n0\r\n\r\n"), ("size-ends-in-CR", b"5\rhello\r\n0\r\n\r\n"),
        ("size-ends-in-LF-CR", b"5\n\rhello\r\n0\r\n\r\n"), ("size-ends-in-CR-CR-LF", b"5\r\r\nhello\r\n0\r\n\r\n"),
        ("size-ends-in-CR-and-a-letter", b"5\rxhello\r\n0\r\n\r\n"), ("all-lines-end-in-LF", b"5\nhello\n0\n\n"),
        ("data-without-end", b"5\r\nhello0\r\n\r\n"), ("data-ends-in-LF", b"5\r\nhello\n0\r\n\r\n"),
        ("data-ends-in-CR", b"5\r\nhello\r0\r\n\r\n"), ("data-ends-in-LF-CR", b"5\r\nhello\n\r0\r\n\r\n"),
        ("data-ends-in-CR-CR-LF", b"5\r\nhello\r\r\n0\r\n\r\n"), ("data-ends-in-two-letters", b"5\r\nhelloxx0\r\n\r\n"),
        ("data-ends-in-CR-and-a-letter", b"5\r\nhello\rx0\r\n\r\n"),
        ("data-longer-than-the-size", b"4\r\nhello\r\n0\r\n\r\n"),
        ("data-ends-in-spaces", b"5\r\nhello  \r\n0\r\n\r\n"),
        ("data-shorter-than-the-size", b"6\r\nhello\r\n0\r\n\r\n"), ("data-far-longer", b"1\r\nhello\r\n0\r\n\r\n"),
        ("two-CRLF-after-data", b"5\r\nhello\r\n\r\n0\r\n\r\n"), ("extension-with-LF", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("extension-with-CR", b"5;a\rb\r\nhello\r\n0\r\n\r\n"), ("extension-ends-in-LF", b"5;a\nhello\r\n0\r\n\r\n"),
        ("extension-ends-in-CR", b"5;a\rhello\r\n0\r\n\r\n"), ("empty-extension-ends-in-LF", b"5;\nhello\r\n0\r\n\r\n"),
        ("extension-with-NUL", b"5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("extension-with-control-byte", b"5;a\x01\r\nhello\r\n0\r\n\r\n"),
        ("extension-with-DEL", b"5;a\x7f\r\nhello\r\n0\r\n\r\n"),
        ("extension-value-with-LF", b"5;a=b\nc\r\nhello\r\n0\r\n\r\n"),
        ("extension-value-with-CR", b"5;a=b\rc\r\nhello\r\n0\r\n\r\n"),
        ("extension-quoted-CRLF", b'5;a="\r\nhello\r\n0\r\n\r\n"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quoted-LF", b'5;a="\n"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quoted-CR", b'5;a="\r"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quoted-NUL", b'5;a="\0"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quoted-pair-CR", b'5;a="\\\r\n"\r\nhello\r\n0\r\n\r\n'),
        ("extension-quotes-not-closed", b'5;a="b\r\nhello\r\n0\r\n\r\n'),
        ("extension-empty", b"5;\r\nhello\r\n0\r\n\r\n"), ("extension-twice-empty", b"5;;\r\nhello\r\n0\r\n\r\n"),
        ("extension-after-quotes", b'5;a="b"c\r\nhello\r\n0\r\n\r\n'),
        ("extension-name-in-brackets", b"5;(a)\r\nhello\r\n0\r\n\r\n"),
        ("last-chunk-with-LF", b"5\r\nhello\r\n0\n\r\n"), ("last-chunk-twice-LF", b"5\r\nhello\r\n0\n\n"),
        ("last-chunk-CR-CR-LF", b"5\r\nhello\r\n0\r\r\n"), ("last-chunk-with-space", b"5\r\nhello\r\n0 \r\n\r\n"),
        ("last-chunk-without-end", b"5\r\nhello\r\n0\r\n"), ("last-line-is-CR-and-a-letter", b"5\r\nhello\r\n0\r\n\rx"),
        ("last-chunk-minus-zero", b"5\r\nhello\r\n-0\r\n\r\n"),
        ("trailer-with-bare-CR", b"5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n"),
        ("trailer-with-NUL", b"5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n"),
        ("trailer-without-colon", b"5\r\nhello\r\n0\r\nXY\r\n\r\n"),
        ("trailer-with-space-before-colon", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
        ("trailer-without-name", b"5\r\nhello\r\n0\r\n: y\r\n\r\n"),
        ("trailer-name-with-control-byte", b"5\r\nhello\r\n0\r\nX\x01: y\r\n\r\n"),
        ("trailer-begins-with-space", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n"),
        ("second-size-bad", b"5\r\nhello\r\nx\r\nhello\r\n0\r\n\r\n"),
        ("second-size-empty", b"5\r\nhello\r\n\r\n0\r\n\r\n"), ("data-begins-with-a-request", BEHIND),
    ):  # fmt: skip
        yield refused(f"chunked-{name}", chunked(body))
    # Nothing of these ends. A server that waits for more and keeps it all can be filled up.
    flood = 2 << 20
    for name, body in (
        ("size", b"0" * flood), ("extension", b"5;" + b"e" * flood), ("extension-in-quotes", b'5;a="' + b"e" * flood),
        ("extensions", b"5" + b";a=b" * (flood // 4)),
        ("extensions-of-many-chunks", b"1;eeeeeeee\r\nx\r\n" * (flood // 15)),
        ("trailer-name", b"0\r\n" + b"n" * flood), ("trailer-value", b"0\r\nX: " + b"v" * flood),
        ("trailers", b"0\r\n" + b"X: y\r\n" * (flood // 6)),
    ):  # fmt: skip
        yield Case(f"chunked-endless-{name}", chunked(body), (), frozenset({"refused"}))
    for name, body in (
        ("nothing", b""), ("size", b"5"), ("size-and-CR", b"5\r"), ("data", b"5\r\nhel"),
        ("data-without-its-end", b"5\r\nhello"), ("data-and-CR", b"5\r\nhello\r"), ("no-last-chunk", b"5\r\nhello\r\n"),
        ("last-size", b"5\r\nhello\r\n0"), ("no-last-line", b"5\r\nhello\r\n0\r\n"),
        ("last-CR", b"5\r\nhello\r\n0\r\n\r"), ("trailer", b"5\r\nhello\r\n0\r\nX: y"), ("extension", b"5;a=b"),
        ("size-of-2-to-the-56", b"1" + b"0" * 14 + b"\r\nhello"),
    ):  # fmt: skip
        yield unfinished(f"chunked-ends-after-{name}", chunked(body))
    for name, size in (("2-to-the-64-less-1", b"f" * 16), ("2-to-the-63", b"8" + b"0" * 15)):
        yield unfinished(f"chunk-size-{name}", chunked(size + b"\r\nhello"))


def sequences() -> Iterator[Case]:
    yield kept("two-GETs", get() + get(target="/h"), GET, Seen("GET", "/h"))
    yield kept(
        "fifty-GETs", b"".join(get(target=f"/{n}") for n in range(50)), *(Seen("GET", f"/{n}") for n in range(50))
    )
    yield kept("POST-then-GET", GOOD_POST + get(), HELLO, GET)
    yield kept("chunked-then-GET", GOOD_CHUNKED + get(), HELLO, GET)
    yield kept("chunked-with-trailer-then-GET", chunked(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n") + get(), HELLO, GET)
    yield kept("POST-chunked-POST-chunked", (GOOD_POST + GOOD_CHUNKED) * 2, HELLO, HELLO, HELLO, HELLO)
    yield kept("empty-bodies", (post("Content-Length: 0") + chunked(b"0\r\n\r\n") + post()) * 2, *[EMPTY] * 6)
    yield kept("HEAD-then-GET", request("HEAD /h HTTP/1.1", "Host: t") + get(), Seen("HEAD", "/h"), GET)
    large = random.Random(3).randbytes(100_000)
    many = b"".join(post(f"Content-Length: {len(large)}", body=large) + get() for _ in range(3))
    yield kept("large-POST-GET-three-times", many, *[Seen("POST", "/a", large), GET] * 3)
    chunks = chunked(b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (60_000, large[:60_000], 40_000, large[60_000:]))
    yield kept("large-chunked-GET-three-times", (chunks + get()) * 3, *[Seen("POST", "/a", large), GET] * 3)
    yield kept(
        "a-request-as-body",
        post(f"Content-Length: {len(BEHIND)}", body=BEHIND) + get(),
        Seen("POST", "/a", BEHIND),
        GET,
    )
    yield kept("POST-CRLF-GET", GOOD_POST + b"\r\n" + get(), HELLO, GET)
    yield kept("chunked-CRLF-CRLF-GET", GOOD_CHUNKED + b"\r\n\r\n" + get(), HELLO, GET)
    for name, good, seen in (("GET", get(), GET), ("POST", GOOD_POST, HELLO), ("chunked", GOOD_CHUNKED, HELLO)):
        yield either(f"{name}-LF-GET", good + b"\n" + get(), seen, GET)
        yield either(f"{name}-CR-GET", good + b"\r" + get(), seen, GET)
        yield refused(f"{name}-then-rubbish", good + b"rubbish\r\n\r\n", seen)
        yield refused(f"{name}-then-a-letter", good + b"x", seen)
        yield refused(f"{name}-then-NUL", good + b"\0", seen)
        yield refused(f"{name}-then-space", good + b" ", seen)
        yield refused(f"{name}-then-high-bytes", good + b"\xff\xff", seen)
        yield refused(f"{name}-then-a-bad-field", good + get("X : y"), seen)
        yield refused(f"{name}-then-a-bad-length", good + post("Content-Length: x"), seen)
        yield refused(
            f"{name}-then-both-framings", good + post("Content-Length: 5", "Transfer-Encoding: chunked"), seen
        )
        yield refused(f"{name}-then-a-bad-chunk", good + chunked(b"x\r\n"), seen)
        yield refused(f"{name}-{name}-then-rubbish", good + good + b"rubbish\r\n\r\n", seen, seen)
        yield unfinished(f"{name}-then-half-a-head", good + b"GET /half HTTP/1.1\r\nHost", seen)
        yield unfinished(f"{name}-then-half-a-body", good + post("Content-Length: 9", body=b"hell"), seen)
        yield unfinished(f"{name}-then-half-a-chunk", good + chunked(b"9\r\nhell"), seen)
    yield unfinished("half-a-method", b"GE")
    yield unfinished("half-a-request-line", b"GET /half HTT")
    yield unfinished("half-a-field", b"GET /half HTTP/1.1\r\nHos")
    yield unfinished("no-empty-line", b"GET /half HTTP/1.1\r\nHost: t\r\n")
    yield unfinished("half-an-empty-line", b"GET /half HTTP/1.1\r\nHost: t\r\n\r")
    yield unfinished("nothing", b"")
    yield unfinished("only-CRLF", b"\r\n\r\n")


def connections() -> Iterator[Case]:
    close = "Connection: close"
    yield closed("connection-close", get(close), GET)
    yield closed("connection-Close", get("connection: Close"), GET)
    yield closed("connection-close-with-body", post(close, "Content-Length: 5", body=b"hello"), HELLO)
    yield closed("connection-close-with-chunks", post(close, "Transfer-Encoding: chunked", body=CHUNKED_HELLO), HELLO)
    yield closed(
        "connection-close-with-trailer", post(close, "Transfer-Encoding: chunked", body=b"0\r\nX: y\r\n\r\n"), EMPTY
    )
    yield closed("connection-close-then-rubbish", get(close) + b"\0rubbish\r\n\r\n", GET)
    yield closed("connection-close-on-the-second", get() + get(close), GET, GET)
    yield closed("connection-close-in-a-list", get("Connection: x, close"), GET)
    yield closed("connection-close-and-keep-alive", get("Connection: close, keep-alive"), GET)
    yield closed("connection-keep-alive-and-close", get("Connection: keep-alive, close"), GET)
    yield closed("connection-close-of-two-fields", get("Connection: keep-alive", close), GET)
    yield kept("connection-keep-alive", get("Connection: keep-alive") + get(), GET, GET)
    yield kept("connection-unknown", get("Connection: x-something") + get(), GET, GET)
    yield kept("connection-empty", get("Connection:") + get(), GET, GET)
    yield kept("connection-closed-is-no-close", get("Connection: closed") + get(), GET, GET)
    # No field of HTTP, but llhttp obeys it.
    raw = get("Proxy-Connection: close") + get()
    yield Case("proxy-connection-close", raw, (GET, GET), frozenset({"kept", "closed early"}))
    yield either(
        "connection-names-content-length", post("Connection: Content-Length", "Content-Length: 5", body=b"hello"), HELLO
    )
    chunks = post("Connection: Transfer-Encoding", "Transfer-Encoding: chunked", body=CHUNKED_HELLO)
    yield either("connection-names-transfer-encoding", chunks, HELLO)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    web_socket = (*upgrade, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    for name, lines in (("websocket", web_socket), ("unknown", ("Connection: Upgrade", "Upgrade: x/1")), ("h2c", h2c)):
        yield answered(f"upgrade-{name}", get(*lines), GET)
        yield answered(f"upgrade-{name}-with-body", post(*lines, "Content-Length: 5", body=b"hello"), HELLO)
        yield answered(
            f"upgrade-{name}-with-chunks", post(*lines, "Transfer-Encoding: chunked", body=CHUNKED_HELLO), HELLO
        )
        # A server that does not change the protocol goes on with HTTP; one that ends the connection is safe too.
        yield Case(
            f"upgrade-{name}-then-GET", get(*lines) + get(), (GET, GET), frozenset({"kept", "closed", "closed early"})
        )
        raw = post(*lines, "Content-Length: 5", body=b"hello") + get()
        yield Case(
            f"upgrade-{name}-with-body-then-GET", raw, (HELLO, GET), frozenset({"kept", "closed", "closed early"})
        )
    yield kept("upgrade-without-connection", get("Upgrade: websocket") + get(), GET, GET)
    yield kept("connection-upgrade-without-upgrade", get("Connection: Upgrade") + get(), GET, GET)
    expect = "Expect: 100-continue"
    yield kept("expect-with-body", post(expect, "Content-Length: 5", body=b"hello"), HELLO)
    yield kept("expect-upper-case", post("EXPECT: 100-CONTINUE", "Content-Length: 5", body=b"hello"), HELLO)
    yield kept("expect-with-chunks", post(expect, "Transfer-Encoding: chunked", body=CHUNKED_HELLO), HELLO)
    yield kept("expect-without-body", get(expect), GET)
    yield kept("expect-then-GET", post(expect, "Content-Length: 5", body=b"hello") + get(), HELLO, GET)
    yield refused(
        "expect-with-bad-framing", post(expect, "Content-Length: 5", "Transfer-Encoding: chunked", body=CHUNKED_HELLO)
    )
    yield refused("expect-with-bad-chunk", post(expect, "Transfer-Encoding: chunked", body=b"x\r\n"))
    yield closed(
        "expect-in-version-1.0", request("POST /a HTTP/1.0", expect, "Content-Length: 5", body=b"hello"), HELLO
    )
    yield either("expect-unknown", post("Expect: 200-maybe", "Content-Length: 5", body=b"hello"), HELLO)
    yield either("expect-list", post("Expect: 100-continue, x", "Content-Length: 5", body=b"hello"), HELLO)
    yield either("expect-twice", post(expect, expect, "Content-Length: 5", body=b"hello"), HELLO)


CASES: tuple[Case, ...] = (
    *methods(), *request_lines(), *fields(), *content_lengths(), *transfer_encodings(), *chunked_bodies(), *sequences(),
    *connections(),
)  # fmt: skip
