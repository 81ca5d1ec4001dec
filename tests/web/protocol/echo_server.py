"""The echo app in a process of its own, on a free port of the loopback, ended by its process id."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.web.protocol.raw_client import RawClient


class EchoServer:
    def __init__(self, protocol: str, log: Path) -> None:
        self.protocol = protocol
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.web.protocol.echo_app", protocol],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.strip().isdigit(), f"the {protocol} server did not begin: {log.read_text()}"
        self.port = int(line)

    def seen(self) -> list[dict[str, Any]]:
        """The requests that the app has seen since it was last asked, in order."""
        with RawClient(self.port) as client:
            client.send_all(b"GET /-/seen HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            answer = client.next_answer()
        assert answer is not None
        assert answer.status == 200
        requests: list[dict[str, Any]] = json.loads(answer.body)
        return requests

    def errors(self) -> str:
        """What the server has logged: nothing, unless an exception got out of the protocol or the app."""
        return self.log.read_text()

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextlib.contextmanager
def echoing(protocol: str, directory: Path) -> Iterator[EchoServer]:
    server = EchoServer(protocol, directory / f"{protocol}.log")
    try:
        yield server
    finally:
        server.stop()
