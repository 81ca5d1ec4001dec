"""Several server processes on one port: started, watched, replaced and stopped by one that serves nothing itself."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import Refusal
from app.server import Place, serve_on
from app.settings import Settings
from app.stores.spool import take_place

log = logging.getLogger("weir")

BACKLOG = 2048
"""Connections that may wait on a socket to be accepted."""
_START_S = 60.0
_SHORT_LIFE_S = 5.0
_MOST_DELAY_S = 10.0
_PR_SET_PDEATHSIG = 1  # prctl(2)


def divided(settings: Settings) -> Settings:
    """What each worker may take: its share of the budget, the threads, the flows and the spool."""
    count = settings.workers
    return settings.model_copy(
        update={
            "memory_budget": settings.memory_budget // count,
            "query_memory": settings.query_memory // count,
            "worker_threads": max(1, settings.worker_threads // count),
            "max_flows": max(1, settings.max_flows // count),
            "spool_limit": settings.spool_limit // count,
        }
    )


def listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """``count`` sockets bound to one port, over which the kernel spreads connections (SO_REUSEPORT). They are kept for
    as long as the server runs, so what is queued on one waits for the worker that takes the place of a dead one."""
    bound: list[socket.socket] = []
    for _ in range(count):
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if count > 1:  # one alone does not share its port by accident
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, bound[0].getsockname()[1] if bound else port))
        bound.append(listener)
    return bound


@dataclass(slots=True)
class _Worker:
    place: Place
    listener: socket.socket
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    delay_s: float = 0.0
    due_at: float = 0.0


def supervise(settings: Settings, bound: list[socket.socket], ready: str) -> None:
    """Keep a worker running on every socket until SIGTERM or SIGINT; then let them drain.

    Prints ``ready`` once all of them answer. A worker that dies is replaced, after a growing while if it dies young;
    its runs are lost. Raises ``server_failed`` if they do not start. When this process is killed, its workers drain.
    """
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    with _private_directory(settings.spool_dir) as directory:
        workers = [_Worker(Place(n, len(bound), directory), listener) for n, listener in enumerate(bound)]
        try:
            for worker in workers:
                _start(worker, settings)
            _wait_until_ready(workers, stopping)
            if not stopping:
                print(ready, flush=True)
            while not stopping:
                _replace_dead(workers, settings)
                time.sleep(0.1)
        finally:
            _stop(workers, settings.drain_timeout)


def work(settings: Settings, place: Place, fd: int, parent: int) -> None:
    """Be a worker: serve on the inherited socket ``fd`` until the parent says, or is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return  # it died before it could be watched
    listener = socket.socket(fileno=fd)
    listener.listen(BACKLOG)
    serve_on(listener, settings, place)


def _start(worker: _Worker, settings: Settings) -> None:
    fd = worker.listener.fileno()
    words = (worker.place.number, worker.place.count, worker.place.directory, fd, os.getpid())
    command = [sys.executable, "-m", "app.cli", "serve", "--as-worker", *map(str, words)]
    shares = divided(settings).model_dump(mode="json", exclude_none=True)
    environment = os.environ | {f"WEIR_{name.upper()}": str(value) for name, value in shares.items()}
    # A process group of its own: Ctrl-C in a terminal is for the parent, which passes it on.
    inherited = [fd, int(worker.place.directory.name)]
    worker.process = subprocess.Popen(command, env=environment, pass_fds=inherited, process_group=0)
    worker.started_at = time.monotonic()


def _wait_until_ready(workers: list[_Worker], stopping: list[int]) -> None:
    until = time.monotonic() + _START_S
    for worker in workers:
        while not stopping and not _answers(worker.place.socket_of(worker.place.number)):
            assert worker.process is not None
            if worker.process.poll() is not None or time.monotonic() > until:
                raise Refusal("server_failed", f"worker {worker.place.number} did not start; its log says why")
            time.sleep(0.02)


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(path))
        return True
    return False


def _replace_dead(workers: list[_Worker], settings: Settings) -> None:
    now = time.monotonic()
    for worker in workers:
        if worker.process is not None and (status := worker.process.poll()) is not None:
            young = now - worker.started_at < _SHORT_LIFE_S
            worker.delay_s = min(_MOST_DELAY_S, 2 * worker.delay_s or 0.2) if young else 0.0
            worker.due_at = now + worker.delay_s
            worker.process = None
            log.error(
                "worker %d ended with %d; its runs are lost, another takes its place", worker.place.number, status
            )
        if worker.process is None and now >= worker.due_at:
            _start(worker, settings)


def _stop(workers: list[_Worker], drain_s: float) -> None:
    running = [worker.process for worker in workers if worker.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + drain_s + 10.0
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _private_directory(spool_dir: Path) -> Iterator[Path]:
    """Where the workers' sockets stand: only we may enter. What a killed parent left is cleared. It is named by a
    descriptor, which workers inherit."""
    directory, lock_fd = take_place(spool_dir)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        # The name of a UNIX socket has 107 bytes at the most; this way it is short, wherever the spool stands.
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock_fd)
