"""Our own programs, forked from a process that has imported them: to import them takes two seconds, to fork a tenth."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

_fork_server = multiprocessing.get_context("forkserver")
_fork_server.set_forkserver_preload(["app.cli", "boto3", "psycopg", __name__])


class Forked:
    """``python -m MODULE ARGUMENTS`` for a module that is or changes the command line, and as much of
    ``subprocess.Popen`` as is needed for it. ``streams`` are open files, or their numbers, for 0, 1 and 2.
    """

    def __init__(
        self, module: str, *arguments: str, env: Mapping[str, str], streams: tuple[Any, Any, Any], cwd: Path | str = "."
    ) -> None:
        inherited = [_Inherited(file if isinstance(file, int) else file.fileno()) for file in streams]
        self._process = _fork_server.Process(
            target=_run, args=(module, arguments, dict(env), os.path.abspath(cwd), inherited), daemon=True
        )
        with patch.dict(sys.modules, __main__=ModuleType("__main__")):  # or it would run what runs the tests
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def run_forked(*arguments: str, data: bytes, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """``weir ARGUMENTS`` from pipe to pipe. What goes in, and what comes out, has to fit into a pipe: 64 KiB."""
    pipes = [os.pipe() for _ in range(3)]
    (source, feed), (output, sink), (errors, told) = pipes
    with open(feed, "wb") as file:
        file.write(data)
    process = Forked("app.cli", *arguments, env=env, streams=(source, sink, told), cwd=cwd)
    for fd in (source, sink, told):
        os.close(fd)
    try:
        status = process.wait(60)
    finally:
        process.send_signal(9)
    with open(output, "rb") as out, open(errors, "rb") as err:
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


class _Inherited:
    """The number of an open file, which is another one in the process that takes it over."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return _taken, (DupFd(self.fd),)


def _taken(duplicate: Any) -> _Inherited:
    return _Inherited(duplicate.detach())


def _run(module: str, arguments: tuple[str, ...], env: dict[str, str], cwd: str, streams: list[_Inherited]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream.fd, number)
        os.close(stream.fd)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    importlib.import_module(module)
    sys.exit(importlib.import_module("app.cli").main(arguments))
