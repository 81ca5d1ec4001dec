"""Runs the servers that are compared, reads what they cost from /proc, and ends each by its own process id."""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.inputs import cache_folder
from bench.kinds import ROOT, Kind

_START_S = 30.0
_END_S = 15.0
_QUIET_S = 0.3


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far, of the process and its children; the clock ticks 100 times a second."""
        ticks = 0
        for pid in self._tree():
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """The most memory that was ever resident (VmHWM), of the process and its children together."""
        peak_kib = 0
        for pid in self._tree():
            status = Path(f"/proc/{pid}/status").read_text()
            peak_kib += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        return peak_kib * 1024

    def wait_quiet(self) -> None:
        """Wait until it does nothing any more that belongs to its start."""
        until, before = time.monotonic() + _START_S, -1.0
        while (now := self.cpu_seconds()) > before and time.monotonic() < until:
            before = now
            time.sleep(_QUIET_S)

    def forget_peak(self) -> None:
        """Let ``peak_bytes`` begin again at what is resident now."""
        for pid in self._tree():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _tree(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
                except OSError:  # it has ended meanwhile
                    continue
        tree = [self.pid]
        for pid in tree:
            tree += parents.get(pid, [])
        return tree


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: the state is the first, the parent the second."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextmanager
def running(kind: Kind, *words: str) -> Iterator[Server]:
    """The server, started with ``words`` behind its command, answering, and ended with the block whatever happens."""
    command: Sequence[str] = [*(str(word) for word in kind.command()), *words]
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
