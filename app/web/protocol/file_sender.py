"""Files to the socket: on a thread, because a cold file would stall everybody on the loop, by the way that is fastest
here: ``sendfile``, ``splice`` through a pipe, or reading and sending page by page."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal, Protocol

Way = Literal["copy", "sendfile", "splice"]
WAYS: tuple[Way, ...] = ("sendfile", "splice", "copy")

_PIECE_BYTES = 1 << 20
_TURN_BYTES = 32 << 20
"""What a thread sends of one file before others get their turn."""
_PATIENCE_MS = 5
"""How long a thread waits for a client before it turns to others; the loop waits for the client then. On a busy machine a
client that is fast gets its time slice within this."""
_WAITS, _ENDED = 1, 2
"""What ``weir_send_file`` of ``send.c`` tells."""
_MEASURE_BYTES = 16 << 20
_CLEARLY = 0.8
_ROUNDS = 5


class FileShrank(OSError):
    """The file is shorter than what was announced of it. The answer cannot be completed."""


class Socket(Protocol):
    """The connection, as far as files need it."""

    def duplicate(self) -> int:
        """A descriptor of the same socket for the caller to close. Nothing of ours waits to be written to it."""
        ...


class Progress:
    """How much of one file is still to be sent; read on the loop, changed on a thread."""

    def __init__(self, left_bytes: int) -> None:
        self.left_bytes = left_bytes
        self.stopped = False
        self.changed = asyncio.Event()

    def stop(self) -> None:
        """Nobody takes it any more; called on the loop."""
        self.stopped = True
        self.changed.set()


class FileSender:
    """Sends parts of files. A thread is held only while its client takes what is sent: slow ones wait on the loop.
    ``library``, where there is one, has ``weir_send_file`` (``framing/native/send.c``)."""

    def __init__(self, executor: Executor, way: Way = "copy", library: ctypes.CDLL | None = None) -> None:
        self._executor = executor
        self._library = library
        self.way: Way = way

    async def open(self, path: str | os.PathLike[str]) -> int:
        """A descriptor to read ``path`` by; for ``close``."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, os.open, path, os.O_RDONLY | os.O_CLOEXEC
        )

    def close(self, fd: int) -> None:
        """Close what ``open`` gave."""
        os.close(fd)

    def extent(self, fd: int, offset: int | None, nbytes: int | None) -> tuple[int, int]:
        """Where to begin, and how many bytes that is: the file's own position and its end, where they are not told."""
        offset = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        return offset, max(0, os.fstat(fd).st_size - offset) if nbytes is None else nbytes

    async def send(self, fd: int, offset: int, progress: Progress, line: Socket) -> None:
        """Send ``progress.left_bytes`` from ``offset`` on; returns when the kernel has them.

        Raises ``FileShrank``, and ``OSError`` for what reading or the connection raises, or once ``progress`` was
        stopped. After that, or a cancellation, no thread uses either descriptor any more.
        """
        loop = asyncio.get_running_loop()
        end = offset + progress.left_bytes
        with _duplicated(line) as out, _Sending(self.way, fd, out, self._library) as sending:
            while progress.left_bytes:
                work = loop.run_in_executor(self._executor, sending.push, end, progress)
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    progress.stop()
                    await asyncio.wait((work,))
                    work.exception()
                    raise
                if sending.waits and not progress.stopped:
                    await _writable(loop, out, progress.changed)
                if progress.left_bytes and progress.stopped:
                    raise ConnectionAbortedError("the client is gone, or was given up")


class _OfThread(threading.local):
    """What belongs to a thread that sends files, whichever it sends."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_PIECE_BYTES))


_of_thread = _OfThread()


class _Sending:
    """One file on its way to one socket, with what the way needs: its thread's buffer while it is its turn, or a pipe."""

    def __init__(self, way: Way, fd: int, out: int, library: ctypes.CDLL | None) -> None:
        self._way = way
        self._library = library
        self._fd = fd
        self._out = out
        self._poll = select.poll()
        self._poll.register(out, select.POLLOUT)
        self._held = memoryview(b"")
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if way == "splice" else None
        self._in_pipe = 0
        self.waits = False
        """The client takes nothing at the moment."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, _PIECE_BYTES)

    def __enter__(self) -> _Sending:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._pipe or ():
            os.close(end)

    def push(self, end: int, progress: Progress) -> None:
        """Send until all is sent, its turn is over, or the client takes nothing for a while. Blocks; on a thread.

        Between turns it holds no memory: what was read and not taken is read again.
        """
        try:
            self._turn(end, progress)
        finally:
            self._held = memoryview(b"")

    def _turn(self, end: int, progress: Progress) -> None:
        until = max(0, progress.left_bytes - _TURN_BYTES)
        self.waits = False
        if self._way == "sendfile" and self._library is not None:
            self._by_c(self._library, end - progress.left_bytes, progress.left_bytes - until, progress)
            return
        step = {"copy": self._copy, "sendfile": self._sendfile, "splice": self._splice}[self._way]
        while progress.left_bytes > until and not progress.stopped:
            try:
                sent = step(end - progress.left_bytes, progress.left_bytes)
            except BlockingIOError:
                if not self._poll.poll(_PATIENCE_MS):
                    self.waits = True
                    return
                continue
            if sent == 0:
                raise FileShrank(f"the file ended {progress.left_bytes} bytes too early")
            progress.left_bytes -= sent

    def _by_c(self, library: ctypes.CDLL, offset: int, nbytes: int, progress: Progress) -> None:
        """A whole turn in one call: between two pieces of it, Python would take longer than the kernel."""
        sent = ctypes.c_int64()
        told = library.weir_send_file(self._out, self._fd, offset, nbytes, _PATIENCE_MS, ctypes.byref(sent))
        progress.left_bytes -= sent.value
        if told < 0:
            raise OSError(-told, os.strerror(-told))
        if told == _ENDED:
            raise FileShrank(f"the file ended {progress.left_bytes} bytes too early")
        self.waits = told == _WAITS

    def _copy(self, offset: int, nbytes: int) -> int:
        if not self._held:
            read = os.preadv(self._fd, [_of_thread.buffer[:nbytes]], offset)
            self._held = _of_thread.buffer[:read]
            if read == 0:
                return 0
        sent = os.write(self._out, self._held)
        self._held = self._held[sent:]
        return sent

    def _sendfile(self, offset: int, nbytes: int) -> int:
        return os.sendfile(self._out, self._fd, offset, min(nbytes, _TURN_BYTES))

    def _splice(self, offset: int, nbytes: int) -> int:
        assert self._pipe is not None
        if not self._in_pipe:
            self._in_pipe = os.splice(self._fd, self._pipe[1], min(nbytes, _PIECE_BYTES), offset_src=offset)
            if self._in_pipe == 0:
                return 0
        sent = os.splice(self._pipe[0], self._out, self._in_pipe)
        self._in_pipe -= sent
        return sent


@contextlib.contextmanager
def _duplicated(line: Socket) -> Iterator[int]:
    fd = line.duplicate()
    try:
        yield fd
    finally:
        os.close(fd)


async def _writable(loop: asyncio.AbstractEventLoop, fd: int, changed: asyncio.Event) -> None:
    changed.clear()
    loop.add_writer(fd, changed.set)
    try:
        await changed.wait()
    finally:
        loop.remove_writer(fd)


def fastest_way(directory: Path, library: ctypes.CDLL | None) -> Way:
    """Which way is the fastest on this machine: they take turns to send 16 MiB from ``directory`` over the loopback.
    Each has to win clearly against those before it: a server that starts has other things to do, and differences of some
    percent are noise. Takes a tenth of a second."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_MEASURE_BYTES))
            file.flush()
            rounds = [[_seconds(way, file.fileno(), library) for way in WAYS] for _ in range(_ROUNDS)]
    except OSError:
        return "copy"
    taken_s = dict(zip(WAYS, map(min, zip(*rounds, strict=True)), strict=True))
    best = WAYS[0]
    for way in WAYS[1:]:
        if taken_s[way] < _CLEARLY * taken_s[best]:
            best = way
    return best


def _seconds(way: Way, fd: int, library: ctypes.CDLL | None) -> float:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as taker:
        giver, _ = server.accept()
        with giver:
            giver.setblocking(False)
            drain = threading.Thread(target=_drain, args=(taker,))
            drain.start()
            began = time.perf_counter()
            progress = Progress(_MEASURE_BYTES)
            with _Sending(way, fd, giver.fileno(), library) as sending:
                while progress.left_bytes:
                    sending.push(_MEASURE_BYTES, progress)
            giver.shutdown(socket.SHUT_WR)
            drain.join()
            return time.perf_counter() - began


def _drain(taker: socket.socket) -> None:
    room = bytearray(_PIECE_BYTES)
    while taker.recv_into(room):
        pass
