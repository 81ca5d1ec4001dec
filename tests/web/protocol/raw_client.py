"""A client that sends bytes as they are and reads answers strictly; it knows when the server has read what it sent."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

TIMEOUT_S = 10.0
"""No answer takes longer, on a busy machine either; a wait of this length is a hang."""

_ESTABLISHED, _CLOSE_WAIT = 1, 8
_SOCK_DIAG_BY_FAMILY, _NLMSG_ERROR, _NLM_F_REQUEST, _NETLINK_SOCK_DIAG = 20, 2, 1, 4
_LOOPBACK = socket.inet_aton("127.0.0.1")


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    def seen(self) -> dict[str, Any]:
        """What the echo app saw of the request."""
        seen: dict[str, Any] = json.loads(self.fields["seen"])
        if self.fields["answers"] != "HEAD":
            assert json.loads(self.body) == seen, "the answer has the body of another one"
        return seen


class RawClient:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = port
        self.interim: list[int] = []
        self.transcript = bytearray()
        self._received = bytearray()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.socket.close()

    def send_all(self, data: bytes) -> None:
        """Send; that the server has closed is no failure here, the answers tell it."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send each piece once the server has read the one before it, so that it reads each for itself."""
        ours = self.socket.getsockname()[1]
        with _SocketDiagnosis() as diagnosis, contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.socket.sendall(piece)
                give_up = time.monotonic() + TIMEOUT_S
                while (unread := diagnosis.unread_bytes(self.port, ours)) != 0:
                    if unread is None:
                        return  # the server has closed the connection
                    assert time.monotonic() < give_up, f"hang: the server does not read; {unread} bytes wait for it"
                    os.sched_yield()

    def send_no_more(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def next_answer(self) -> Answer | None:
        """The next final answer; None if the server has ended the connection instead. Interim ones are counted."""
        while True:
            answer = self._read_answer()
            if answer is None or answer.status >= 200:
                return answer
            self.interim.append(answer.status)

    def await_interim(self, status: int) -> None:
        answer = self._read_answer()
        assert answer is not None
        assert answer.status == status

    def _read_answer(self) -> Answer | None:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if not self._receive():
                assert not self._received, f"the connection ends within an answer: {bytes(self._received)!r}"
                return None
        lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        assert len(fields) == len(lines) - 1, f"a field stands twice: {lines}"
        if status[0] == "1" or fields.get("answers") == "HEAD":
            return Answer(int(status), fields, b"")
        assert "transfer-encoding" not in fields, lines
        length = int(fields["content-length"])
        while len(self._received) < length:
            assert self._receive(), f"the connection ends within the body of an answer: {lines}"
        body = bytes(self._received[:length])
        del self._received[:length]
        return Answer(int(status), fields, body)

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            raise AssertionError(
                f"hang: neither an answer nor the end within {TIMEOUT_S} s, after {bytes(self._received)!r}"
            ) from None
        except ConnectionError:
            data = b""
        self._received += data
        self.transcript += data
        return bool(data)


class _SocketDiagnosis:
    """Asks the kernel (sock_diag, inet_diag) about the server's end of a connection."""

    def __enter__(self) -> _SocketDiagnosis:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._netlink.close()

    def unread_bytes(self, server_port: int, client_port: int) -> int | None:
        """How much the server has not read yet; None if its end is closed."""
        connection = struct.pack("!HH4s12x4s12x", server_port, client_port, _LOOPBACK, _LOOPBACK)
        asked = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + connection
        asked += struct.pack("=I8s", 0, b"\xff" * 8)
        self._netlink.send(struct.pack("=IHHII", 16 + len(asked), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + asked)
        told = self._netlink.recv(8192)
        if struct.unpack_from("=IH", told)[1] == _NLMSG_ERROR:
            return None
        state = told[17]
        unread: int = struct.unpack_from("=I", told, 16 + 4 + 48 + 4)[0]
        return unread if state in (_ESTABLISHED, _CLOSE_WAIT) else None
