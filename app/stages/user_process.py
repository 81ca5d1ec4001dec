"""A user's step in a process of its own. Pages go there and come back through shared memory, as Arrow's IPC or as bytes."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from app.core.errors import Refusal
from app.core.page import Page
from app.stages.user import Results, UserStep

FRAME = struct.Struct("<cQ")
"""What goes over the pipes: a letter, and how many bytes stand in the shared memory (or, of an error, behind it).

To the step: ``P`` a page, ``N`` the next result. Back: ``S`` it has started, ``R`` a result, ``D`` no more, ``E`` it failed.
"""
_START_S = 30.0


class UserProcess:
    """See ``Operator``. Raises ``stage_failed`` where the step raises, dies, or takes longer than its time for a page."""

    def __init__(self, name: str, user: UserStep, argument: str, *, page_bytes: int) -> None:
        user.bound(argument)  # what is wrong with the argument is said now
        self.name = name
        self._user = user
        self._argument = argument
        self._results = Results(name, user.takes, page_bytes)
        # A page of the flow, with what IPC puts around it.
        self._room_bytes = int(2 * page_bytes * max(1.0, user.grows)) + 64 * 1024
        self.holds = user.memory_bytes + 2 * self._room_bytes + user.holds_bytes
        self.grows = user.grows + 1.0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = threading.Lock()
        self._is_over = False

    def interrupt(self) -> None:
        """End the process; whoever waits for it finds it gone."""
        with self._guard:
            self._is_over = True
            if self._process is not None:
                self._process.kill()

    def run(self, pages: Iterator[Page]) -> Iterator[Page]:
        """What the step makes of all pages."""
        with contextlib.ExitStack() as ends:
            there, back = (self._memory(ends, name) for name in ("page", "result"))
            (asked, asks), (answers, answered) = os.pipe(), os.pipe()
            ends.callback(os.close, asks)
            ends.callback(os.close, answers)
            try:
                self._start(there, back, asked, answered)
            finally:
                os.close(asked)
                os.close(answered)
            ends.callback(self._end)
            to, fro = self._mapped(ends, there), self._mapped(ends, back)
            self._wait(answers, _START_S)
            for page in pages:
                self._ask(asks, b"P", put(to, page.payload, self._results.takes))
                yield from self._results.pages(page, self._given(asks, answers, fro))

    def _given(self, asks: int, answers: int, fro: mmap.mmap) -> Iterator[Any]:
        while True:
            kind, nbytes = self._wait(answers, self._user.timeout_s)
            if kind == b"D":
                return
            yield taken(fro[:nbytes], self._results.takes)  # a copy: the next one is written over it
            self._ask(asks, b"N", 0)

    def _memory(self, ends: contextlib.ExitStack, what: str) -> int:
        fd = os.memfd_create(f"weir-{what}", os.MFD_CLOEXEC)
        ends.callback(os.close, fd)
        os.ftruncate(fd, self._room_bytes)
        return fd

    def _mapped(self, ends: contextlib.ExitStack, fd: int) -> mmap.mmap:
        return ends.enter_context(mmap.mmap(fd, self._room_bytes))

    def _start(self, *fds: int) -> None:
        words = [self.name, self._argument, str(self._user.memory_bytes), str(os.getpid()), *map(str, fds)]
        with self._guard:
            if self._is_over:
                raise Refusal("cancelled", "the run is over")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.stages.user_worker", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=fds,
            )

    def _end(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _ask(self, asks: int, kind: bytes, nbytes: int) -> None:
        try:
            os.write(asks, FRAME.pack(kind, nbytes))
        except BrokenPipeError:
            raise self._gone() from None

    def _wait(self, answers: int, timeout_s: float) -> tuple[bytes, int]:
        if not select.select([answers], [], [], timeout_s)[0]:
            detail = f"{self.name} took longer than its time limit of {timeout_s:g} s for a page, and was ended"
            raise Refusal("stage_failed", detail)
        frame = os.read(answers, FRAME.size)
        if len(frame) < FRAME.size:
            raise self._gone()
        kind, nbytes = FRAME.unpack(frame)
        if kind == b"E":
            detail = os.read(answers, nbytes).decode(errors="replace")
            raise Refusal("stage_failed", f"{self.name}: {detail}")
        return kind, nbytes

    def _gone(self) -> Refusal:
        assert self._process is not None
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return Refusal("stage_failed", f"the process of {self.name} ended by itself, with {how}")


def put(room: mmap.mmap, payload: Any, takes: str) -> int:
    """Write a page's payload into shared memory; how many bytes that are. Raises ``ValueError`` if there is no room."""
    if takes != "rows":
        if len(payload) > len(room):
            raise ValueError(f"a result of {len(payload)} bytes is more than the step has room for: raise grows")
        room[: len(payload)] = bytes(payload)
        return len(payload)
    needed = pa.MockOutputStream()
    with pa.ipc.new_stream(needed, payload.schema) as writer:
        writer.write_batch(payload)
    if needed.size() > len(room):
        raise ValueError(f"a result of {needed.size()} bytes is more than the step has room for: raise grows")
    sink = pa.FixedSizeBufferWriter(pa.py_buffer(memoryview(room)))
    with pa.ipc.new_stream(sink, payload.schema) as writer:
        writer.write_batch(payload)
    return int(needed.size())


def taken(data: Any, takes: str) -> Any:
    """The payload that ``put`` wrote."""
    if takes != "rows":
        return bytes(data)
    return pa.ipc.open_stream(pa.py_buffer(data)).read_next_batch()
