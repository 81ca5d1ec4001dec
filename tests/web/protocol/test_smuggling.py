"""Request smuggling: attacks that hide ``GET /smuggled`` where one reader of a connection sees a body and another sees
a request. Alone against the server, and through nginx and HAProxy, which keep their connections to it.

A front gives each request that it forwards a number which the attacker cannot know. What the app sees without a number
of its own was smuggled. The fronts are told to let through as much as they can.
"""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.web.protocol.corpus import (
    GOOD_CHUNKED,
    GOOD_POST,
    HELLO,
    Case,
    Seen,
    chunked,
    get,
    kept,
    post,
    refused,
    request,
)
from tests.web.protocol.echo_server import EchoServer, echoing
from tests.web.protocol.outcomes import CUTS, exchange, judge
from tests.web.protocol.raw_client import Answer, RawClient

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
N = len(SMUGGLED)
IN_A_BODY = Seen("POST", "/a", SMUGGLED)
LAST_CHUNK = b"0\r\n\r\n"
BEHIND_LAST_CHUNK = LAST_CHUNK + SMUGGLED
IN_A_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (N, SMUGGLED)
END = b"GET /end HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def taken_or_refused(name: str, raw: bytes, *sees: Seen) -> Case:
    return Case(name, raw, sees, frozenset({"kept", "closed", "refused"}))


def two_framings() -> Iterator[Case]:
    length = f"Content-Length: {len(BEHIND_LAST_CHUNK)}"
    yield refused("CL.TE", post(length, "Transfer-Encoding: chunked", body=BEHIND_LAST_CHUNK))
    yield refused("TE.CL", post("Transfer-Encoding: chunked", "Content-Length: 4", body=IN_A_CHUNK))
    yield refused("CL.TE-of-a-GET", get(length, "Transfer-Encoding: chunked") + BEHIND_LAST_CHUNK)
    yield refused("CL-0.TE", post("Content-Length: 0", "Transfer-Encoding: chunked", body=BEHIND_LAST_CHUNK))
    old = request(
        "POST /a HTTP/1.0", length, "Transfer-Encoding: chunked", "Connection: keep-alive", body=BEHIND_LAST_CHUNK
    )
    yield refused("CL.TE-in-version-1.0", old)
    by_length = Seen("POST", "/a", BEHIND_LAST_CHUNK)
    for name, coding in (
        ("xchunked", "Transfer-Encoding: xchunked"), ("space-before-colon", "Transfer-Encoding : chunked"),
        ("tab-before-colon", "Transfer-Encoding\t: chunked"), ("tab-before", "Transfer-Encoding:\tchunked"),
        ("vertical-tab-before", "Transfer-Encoding:\vchunked"), ("form-feed-before", "Transfer-Encoding:\fchunked"),
        ("begins-with-space", " Transfer-Encoding: chunked"), ("after-bare-LF", "X: y\nTransfer-Encoding: chunked"),
        ("after-bare-CR", "X: y\rTransfer-Encoding: chunked"), ("folded", "Transfer-Encoding:\r\n chunked"),
        ("name-folded", "Transfer-Encoding\r\n : chunked"),
        ("folded-into-another", "X: y\r\n Transfer-Encoding: chunked"),
        ("twice-with-rubbish", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        ("quotes", 'Transfer-Encoding: "chunked"'),
        ("rubbish-then-chunked", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
        ("identity", "Transfer-Encoding: identity"), ("chunked-identity", "Transfer-Encoding: chunked, identity"),
        ("identity-chunked", "Transfer-Encoding: identity, chunked"), ("underscore", "Transfer_Encoding: chunked"),
        ("NUL", "Transfer-Encoding: chunked\0"), ("name-with-NUL", "Transfer-Encoding\0: chunked"),
        ("space-behind", "Transfer-Encoding: chunked "), ("comma", "Transfer-Encoding: ,chunked"),
        ("empty", "Transfer-Encoding:"), ("mixed-case", "tRANSFER-eNCODING: cHUNKED"),
        ("parameter", "Transfer-Encoding: chunked;a=b"), ("high-byte", "Transfer-Encoding: \xffchunked"),
        ("CR-behind-name", "Transfer-Encoding\r: chunked"), ("two-colons", "Transfer-Encoding:: chunked"),
        ("dot", "Transfer.Encoding: chunked"),
    ):  # fmt: skip
        yield taken_or_refused(f"TE.TE-{name}-after-length", post(length, coding, body=BEHIND_LAST_CHUNK), by_length)
        yield taken_or_refused(f"TE.TE-{name}-before-length", post(coding, length, body=BEHIND_LAST_CHUNK), by_length)


def lengths() -> Iterator[Case]:
    yield kept("CL.0", post(f"Content-Length: {N}", body=SMUGGLED), IN_A_BODY)
    yield kept("CL.0-of-a-GET", get(f"Content-Length: {N}") + SMUGGLED, Seen("GET", "/g", SMUGGLED))
    for method in ("HEAD", "DELETE", "OPTIONS"):
        raw = request(f"{method} /a HTTP/1.1", "Host: t", f"Content-Length: {N}", body=SMUGGLED)
        yield kept(f"CL.0-of-{method}", raw, Seen(method, "/a", SMUGGLED))
    yield kept("chunked-GET", get("Transfer-Encoding: chunked") + IN_A_CHUNK, Seen("GET", "/g", SMUGGLED))
    for name, fields in (
        ("CL.CL-0-first", ("Content-Length: 0", f"Content-Length: {N}")), ("list", (f"Content-Length: 0, {N}",)),
        ("CL.CL-0-last", (f"Content-Length: {N}", "Content-Length: 0")), ("plus", (f"Content-Length: +{N}",)),
        ("negative", ("Content-Length: -1",)), ("hex", (f"Content-Length: {N:#x}",)),
        ("vertical-tab", (f"Content-Length:\v{N}",)), ("space-before-colon", (f"Content-Length : {N}",)),
        ("folded", (f"Content-Length:\r\n {N}",)), ("begins-with-space", (f" Content-Length: {N}",)),
        ("folded-into-another", ("X: y\r\n Content-Length: 99",)), ("after-bare-LF", (f"X: y\nContent-Length: {N}",)),
        ("after-bare-CR", (f"X: y\rContent-Length: {N}",)), ("NUL", (f"Content-Length: {N}\0",)),
        ("name-with-NUL", (f"Content-Length\0: {N}",)), ("empty", ("Content-Length:",)),
        ("digits-apart", ("Content-Length: 0\r\n 9",)), ("2-to-the-64", (f"Content-Length: {1 << 64}",)),
        ("2-to-the-64-and-more", (f"Content-Length: {(1 << 64) + N}",)), ("decimal-point", ("Content-Length: 0.9",)),
        ("CR-behind-name", (f"Content-Length\r: {N}",)),
        ("behind-an-empty-line-of-LF", (f"X: y\n\nContent-Length: {N}",)),
    ):  # fmt: skip
        yield refused(f"length-{name}", post(*fields, body=SMUGGLED))
    for name, field in (
        ("expect", "Expect: 100-continue"), ("expect-obfuscated", "Expect: x 100-continue"),
        ("expect-unknown", "Expect: x"), ("connection-names-it", "Connection: Content-Length"),
        ("connection-names-host", "Connection: Host"),
    ):  # fmt: skip
        yield taken_or_refused(f"length-and-{name}", post(field, f"Content-Length: {N}", body=SMUGGLED), IN_A_BODY)
        yield taken_or_refused(
            f"chunked-and-{name}", post(field, "Transfer-Encoding: chunked", body=IN_A_CHUNK), IN_A_BODY
        )
    for name, protocol in (("h2c", "h2c"), ("websocket", "websocket")):
        fields = ("Connection: Upgrade", f"Upgrade: {protocol}")
        raw = post(*fields, f"Content-Length: {N}", body=SMUGGLED)
        yield Case(f"upgrade-{name}-with-length", raw, (IN_A_BODY,), frozenset({"kept", "closed", "refused"}))
        raw = post(*fields, "Transfer-Encoding: chunked", body=IN_A_CHUNK)
        yield Case(f"upgrade-{name}-with-chunks", raw, (IN_A_BODY,), frozenset({"kept", "closed", "refused"}))


def heads() -> Iterator[Case]:
    for name, raw in (
        ("bare-LF-LF", b"GET /g HTTP/1.1\r\nHost: t\r\nX: y\n\n"),
        ("bare-CR-CR", b"GET /g HTTP/1.1\r\nHost: t\r\nX: y\r\r"),
        ("CRLF-CR", b"GET /g HTTP/1.1\r\nHost: t\r\n\r"),
        ("LF-CR-LF-CR", b"GET /g HTTP/1.1\r\nHost: t\n\r\n\r"),
        ("CR-and-a-letter", b"GET /g HTTP/1.1\r\nConnection: close\r\nHost: t\r\n\rZ"),
        ("version-0.9", b"GET /g\r\n"),
        ("no-empty-line", b"GET /g HTTP/1.1\r\nHost: t\r\n"),
        ("NUL-behind", b"GET /g HTTP/1.1\r\nHost: t\r\n\0\r\n"),
        ("target-with-LF", b"GET /g\n HTTP/1.1\r\nHost: t\r\n\r\n"),
        ("target-with-a-request", b"GET /g HTTP/1.1\r\nHost: t\r\n\r\nHost: t HTTP/1.1\r\n"),
        (
            "field-of-200-KiB",
            b"POST /a HTTP/1.1\r\nHost: t\r\nX: " + b"v" * 200_000 + b"\r\nContent-Length: %d\nX: y\r\n\r\n" % N,
        ),
    ):
        sees = (Seen("GET", "/g"),) if name == "target-with-a-request" else ()
        yield Case(f"head-{name}", raw + SMUGGLED, sees, frozenset({"refused"}))
    for name, good in (("GET", get()), ("POST", GOOD_POST), ("chunked", GOOD_CHUNKED)):
        sees = (Seen("GET", "/g") if name == "GET" else HELLO,)
        for junk_name, junk in (
            ("letters", b"xx"), ("NUL", b"\0"), ("a-chunk", b"5\r\nhello\r\n"), ("high-bytes", b"\xff\xff"),
            ("space", b" "),
        ):  # fmt: skip
            yield refused(f"junk-{junk_name}-behind-{name}", good + junk + SMUGGLED, *sees)


def chunks() -> Iterator[Case]:
    two_digits = b"%02x" % len(BEHIND_LAST_CHUNK)
    for name, size in (
        ("0x", b"0x0"), ("plus", b"+0"), ("minus", b"-0"), ("space-behind", b"0 "), ("space-before", b" 0"),
        ("tab-behind", b"0\t"), ("vertical-tab-behind", b"0\v"), ("underscore", b"0_0"), ("NUL-behind", b"0\0"),
        ("letter-behind", b"0g"), ("empty", b""), ("CR-behind", b"0\r"), ("comma", b"0,1"),
        ("17-digits", b"1" + b"0" * 16), ("33-digits", b"1" + b"0" * 32), ("decimal-point", b"0.0"),
        ("spaces-and-digit", b"0  5"), ("high-byte-behind", b"0\xff"), ("equals", b"0=1"), ("quotes", b'"0"'),
        ("LF-before", b"\n0"),
    ):  # fmt: skip
        yield refused(f"chunk-size-{name}", chunked(size + b"\r\n\r\n" + SMUGGLED))
        one = size.replace(b"0", b"5", 1) if b"0" in size else size
        yield refused(f"chunk-size-{name}-of-data", chunked(one + b"\r\nhello\r\n" + BEHIND_LAST_CHUNK))
    for name, body in (
        # An extension whose LF ends the line for one reader, and not for the other (as in CVE-2025-22871).
        ("extension-LF", b"2;\nxx\r\n" + two_digits + b"\r\n" + BEHIND_LAST_CHUNK + b"\r\n" + LAST_CHUNK),
        ("extension-name-LF", b"2;a\nxx\r\n" + two_digits + b"\r\n" + BEHIND_LAST_CHUNK + b"\r\n" + LAST_CHUNK),
        ("extension-value-LF", b"2;a=b\nxx\r\n" + two_digits + b"\r\n" + BEHIND_LAST_CHUNK + b"\r\n" + LAST_CHUNK),
        ("extension-CR", b"2;\rxx\r\n" + two_digits + b"\r\n" + BEHIND_LAST_CHUNK + b"\r\n" + LAST_CHUNK),
        ("size-LF", b"2\nxx\r\n" + two_digits + b"\r\n" + BEHIND_LAST_CHUNK + b"\r\n" + LAST_CHUNK),
        ("extension-LF-over-the-end", b"%x;\n" % 9 + b"xxxxxxxxx\r\n" + BEHIND_LAST_CHUNK),
        ("extension-quoted-CRLF", b'2;a="\r\nxx\r\n' + two_digits + b'\r\n"\r\n' + BEHIND_LAST_CHUNK),
        ("extension-quoted-LF", b'2;a="\n"\r\nxx\r\n' + BEHIND_LAST_CHUNK),
        # Two bytes of any kind, one, or none, where the data of a chunk ends.
        ("data-ends-in-letters", b"5\r\nhelloxx" + BEHIND_LAST_CHUNK),
        ("data-ends-in-LF", b"5\r\nhello\n" + BEHIND_LAST_CHUNK),
        ("data-ends-in-nothing", b"5\r\nhello" + BEHIND_LAST_CHUNK),
        ("data-ends-in-CR", b"5\r\nhello\r" + BEHIND_LAST_CHUNK),
        ("data-ends-in-CR-x", b"5\r\nhello\rx" + BEHIND_LAST_CHUNK),
        ("data-longer", b"5\r\nhello world\r\n" + BEHIND_LAST_CHUNK),
        ("data-ends-in-a-size", b"5\r\nhello" + two_digits + b"\r\n" + BEHIND_LAST_CHUNK + b"\r\n" + LAST_CHUNK),
        ("last-LF-LF", b"0\n\n" + SMUGGLED), ("last-CRLF-LF", b"0\r\n\n" + SMUGGLED),
        ("last-CR-CR", b"0\r\r" + SMUGGLED), ("last-LF-CRLF", b"0\n\r\n" + SMUGGLED),
        ("last-CRLF-CR-x", b"0\r\n\rx" + SMUGGLED), ("last-without-end", b"0\r\n" + SMUGGLED),
        ("last-extension-LF", b"0;\n\n" + SMUGGLED), ("trailer-LF-LF", b"0\r\nX: y\n\n" + SMUGGLED),
        ("trailer-is-a-request", b"0\r\n" + SMUGGLED[: SMUGGLED.index(b"\r\n") + 2] + b"Host: t\r\n\r\n"),
        ("trailer-CR", b"0\r\nX: y\r\r" + SMUGGLED), ("trailer-NUL", b"0\r\nX: y\0\r\n\r\n" + SMUGGLED),
        ("trailer-space-before-colon", b"0\r\nX : y\r\n\r\n" + SMUGGLED),
        ("trailer-without-colon", b"0\r\nX\r\n\r\n" + SMUGGLED),
    ):  # fmt: skip
        yield refused(f"chunk-{name}", chunked(body))
    flood = b"5;" + b"e" * (1 << 18)
    yield taken_or_refused("chunk-extension-flood", chunked(flood + b"\r\nhello\r\n0\r\n\r\n"), HELLO)
    yield taken_or_refused(
        "chunk-extension-flood-of-many",
        chunked((b"1;" + b"e" * 60 + b"\r\nx\r\n") * 4000 + LAST_CHUNK),
        Seen("POST", "/a", b"x" * 4000),
    )
    yield kept(
        "chunk-with-a-last-chunk-inside",
        chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BEHIND_LAST_CHUNK), BEHIND_LAST_CHUNK)),
        Seen("POST", "/a", BEHIND_LAST_CHUNK),
    )


ATTACKS: tuple[Case, ...] = (*two_framings(), *lengths(), *heads(), *chunks())
ANSWERED_BARE = ("head-version-0.9", "head-target-with-LF")
"""nginx answers these in HTTP/0.9, without a head."""


@pytest.fixture(scope="module", params=["stock", "ours"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    with echoing(request.param, tmp_path_factory.mktemp(request.param)) as echo_server:
        yield echo_server


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_alone(attack: Case, server: EchoServer) -> None:
    for cut in CUTS if server.protocol == "ours" else CUTS[1:2]:
        if server.protocol == "stock" and attack.name.startswith("upgrade-"):
            continue  # it passes over what comes in the same piece
        outcome = exchange(server, attack, cut(attack))
        judge(attack, outcome)
        assert all(seen["target"] != "/smuggled" for seen in (*outcome.seen, *outcome.given))
    assert not server.errors()


@dataclass(frozen=True)
class Front:
    """A reverse proxy before the server. It numbers the requests: the secret, then what nobody else counts."""

    port: int
    secret: str
    server: EchoServer


NGINX = """
daemon off;
user {user};
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_header_timeout 1s;
    client_body_timeout 1s;
    client_max_body_size 0;
    large_client_header_buffers 8 512k;
    ignore_invalid_headers off;
    underscores_in_headers on;
    upstream app {{ server 127.0.0.1:{app_port}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header X-Front-Request-Number "{secret}-$connection-$connection_requests";
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 64
    tune.bufsize 524288
defaults
    mode http
    timeout connect 5s
    timeout client 1s
    timeout server 5s
    timeout http-request 1s
    http-reuse always
    option accept-invalid-http-request
frontend front
    bind fd@{listener}
    http-request set-header X-Front-Request-Number {secret}-%rt
    default_backend app
backend app
    server app 127.0.0.1:{app_port}
"""


def front_command(kind: str, directory: Path, listener: socket.socket, secret: str, app_port: int) -> list[str]:
    program = shutil.which(kind) or shutil.which(kind, path="/usr/sbin:/usr/local/sbin")
    assert program, f"{kind} is not installed; deploy/prerequisites.sh installs it"
    text = {"nginx": NGINX, "haproxy": HAPROXY}[kind]
    config = directory / f"{kind}.conf"
    port = listener.getsockname()[1]
    user = f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
    config.write_text(
        text.format(
            directory=directory, app_port=app_port, port=port, listener=listener.fileno(), secret=secret, user=user
        )
    )
    if kind == "nginx":
        return [program, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    return [program, "-db", "-f", str(config)]


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def front(
    request: pytest.FixtureRequest, server: EchoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """It is given a socket that listens already, so that its port is free for sure and nobody has to wait for it."""
    directory = tmp_path_factory.mktemp(request.param)
    secret = secrets.token_hex(8)
    with socket.create_server(("127.0.0.1", 0)) as listener, (directory / "output").open("wb") as output:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            front_command(request.param, directory, listener, secret, server.port),
            env={"NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Front(port, secret, server)
        assert process.poll() is None, (directory / "output").read_text()
    finally:
        process.terminate()
        process.wait(10)


def answers_through(front: Front, raw: bytes) -> list[Answer]:
    """All that comes back until the connection ends; the last request of ``raw`` asks for that."""
    with RawClient(front.port) as client:
        client.send_all(raw)
        return list(iter(client.next_answer, None))


def test_the_front_keeps_its_connections_to_the_server(front: Front) -> None:
    front.server.seen()
    answers = answers_through(front, get() * 9 + END)
    assert [answer.seen()["target"] for answer in answers] == ["/g"] * 9 + ["/end"]
    assert len({seen["client_port"] for seen in front.server.seen()}) == 1


@pytest.mark.parametrize(
    "attack", [attack for attack in ATTACKS if attack.name not in ANSWERED_BARE], ids=lambda attack: attack.name
)
def test_behind_a_front(attack: Case, front: Front) -> None:
    front.server.seen()
    answers = [answer for answer in answers_through(front, attack.raw + END) if answer.status == 200]
    victims = answers_through(front, END.replace(b"/end", b"/victim"))
    assert [answer.seen()["target"] for answer in victims] == ["/victim"], "somebody else got an answer of the attack's"
    seen = front.server.seen()
    numbers = [each["front"] for each in seen]
    for number in numbers:
        assert len(number) == 1, f"smuggled: {seen}"
        assert number[0].startswith(front.secret), f"smuggled: {seen}"
        assert numbers.count(number) == 1, f"forwarded once, and seen more than once: {seen}"
    complete = [each for each in seen if each["complete"]]
    assert complete == [answer.seen() for answer in (*answers, *victims)], "not every request has its own answer"
    assert not front.server.errors()
