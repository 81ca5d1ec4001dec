"""curl: the client that users have. It asks for the tables, and for each answer whose bytes are hashed."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.inputs import Input

_READ_BYTES = 1 << 20


class Failed(Exception):
    """A transfer that did not end well; the text says how."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed transfer: seconds as the client (or the reference) took them, and the CPU seconds of the other side."""

    seconds: float
    cpu_s: float
    peak_bytes: int | None = None


def send(url: str, source: Input, output: Path) -> float:
    """POST the file, write the answer to ``output`` and return the seconds that it took."""
    words = ["-o", str(output), "-w", "%{http_code} %{time_total} %{size_upload}"]
    command = [*_curl(url), *upload_of(source.path), *words]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    status, seconds, sent = process.stdout.split()
    if process.returncode or status != "200":
        raise Failed(f"status {status}, curl exits {process.returncode} {process.stderr.strip()[:200]}")
    if int(sent) != source.nbytes:
        raise Failed(f"answered after {sent} of {source.nbytes} bytes")
    return float(seconds)


def upload_of(path: Path) -> list[str]:
    """What tells curl to POST a file."""
    return ["-X", "POST", "-T", str(path)]


def digest(url: str, *words: str) -> str:
    """The SHA-256 of the answer that curl gets with ``words``."""
    found = hashlib.sha256()
    with subprocess.Popen([*_curl(url), *words, "--fail"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while block := process.stdout.read(_READ_BYTES):
            found.update(block)
        complaint = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise Failed(complaint[:200] or f"curl exits {process.returncode}")
    return found.hexdigest()


def _curl(url: str) -> list[str]:
    # Without "Expect:" curl waits for a 100 that not every server sends while it answers.
    return ["curl", "-sS", "-H", "Expect:", url]
