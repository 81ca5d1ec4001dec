"""Files to a socket, by each way: whole, in parts, to slow takers, and when the file is not what it was."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.framing.native import LIBRARY
from app.web.protocol.file_sender import WAYS, FileSender, FileShrank, Progress, Way, fastest_way

Pair = tuple[socket.socket, socket.socket]
Library = ctypes.CDLL | None
HOW: list[tuple[Way, Library]] = [*((way, None) for way in WAYS), ("sendfile", LIBRARY)]
HOW_NAMES = [*WAYS, "sendfile by C"]
DATA = random.Random(1).randbytes(5 << 20)


class Line:
    def __init__(self, giver: socket.socket) -> None:
        self.giver = giver

    def duplicate(self) -> int:
        return os.dup(self.giver.fileno())


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taker = socket.create_connection(server.getsockname())
        giver, _ = server.accept()
    giver.setblocking(False)
    with giver, taker:
        yield giver, taker


class Taker(threading.Thread):
    """Takes all until the end, after a while."""

    def __init__(self, taker: socket.socket, after_s: float = 0.0) -> None:
        super().__init__()
        self.taker, self.after_s, self.data = taker, after_s, bytearray()

    def run(self) -> None:
        threading.Event().wait(self.after_s)
        while piece := self.taker.recv(1 << 18):
            self.data += piece


@pytest.mark.parametrize(("way", "library"), HOW, ids=HOW_NAMES)
@pytest.mark.parametrize(("offset", "nbytes"), [(0, len(DATA)), (1234, 3_000_001), (len(DATA) - 1, 1)])
async def test_the_bytes_that_were_asked_for(
    way: Way, library: Library, offset: int, nbytes: int, file: int, pair: Pair
) -> None:
    giver, taker = pair
    takes = Taker(taker, after_s=0.1)  # longer than a thread waits: the loop has to
    takes.start()
    with ThreadPoolExecutor(1) as executor:
        progress = Progress(nbytes)
        await FileSender(executor, way, library).send(file, offset, progress, Line(giver))
    giver.shutdown(socket.SHUT_WR)
    takes.join()
    assert takes.data == DATA[offset : offset + nbytes]
    assert progress.left_bytes == 0


@pytest.mark.parametrize(("way", "library"), HOW, ids=HOW_NAMES)
async def test_a_file_that_shrinks_is_told(way: Way, library: Library, file: int, pair: Pair) -> None:
    giver, taker = pair
    os.ftruncate(file, 1000)
    takes = Taker(taker)
    takes.start()
    with ThreadPoolExecutor(1) as executor, pytest.raises(FileShrank):
        await FileSender(executor, way, library).send(file, 0, Progress(len(DATA)), Line(giver))
    giver.shutdown(socket.SHUT_WR)
    takes.join()
    assert len(takes.data) <= 1000


@pytest.mark.parametrize(("way", "library"), HOW, ids=HOW_NAMES)
async def test_who_is_given_up_leaves_no_thread_and_no_descriptor(
    way: Way, library: Library, file: int, pair: Pair
) -> None:
    giver, _ = pair
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(1) as executor:
        progress = Progress(len(DATA) * 10)
        sends = asyncio.ensure_future(FileSender(executor, way, library).send(file, 0, progress, Line(giver)))
        await asyncio.sleep(0.1)
        assert not sends.done()
        sends.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sends
        assert 0 < progress.left_bytes < len(DATA) * 10
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("way", "library"), HOW, ids=HOW_NAMES)
async def test_a_taker_that_is_gone_is_an_error(way: Way, library: Library, file: int, pair: Pair) -> None:
    giver, taker = pair
    taker.close()
    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match=r"reset|pipe"):
        await FileSender(executor, way, library).send(file, 0, Progress(len(DATA)), Line(giver))


def test_the_fastest_way_is_one_of_them(tmp_path: Path) -> None:
    assert fastest_way(tmp_path, LIBRARY) in WAYS
    assert fastest_way(tmp_path, None) in WAYS
    assert fastest_way(tmp_path / "nowhere", LIBRARY) == "copy"
