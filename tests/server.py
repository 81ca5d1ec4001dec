"""A real server in a process of its own, on a free port of the loopback, ended by its process id."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.forked import Forked

Process = Forked | subprocess.Popen[bytes]

WIRE = os.environ.get("WEIR_TEST_WIRE", "pages")
"""Which HTTP protocol the servers of the tests speak by; the whole suite must hold with either."""

GAUGES_AT_REST = (
    "weir_memory_reserved_bytes",
    "weir_memory_demand_bytes",
    "weir_pages_leased_bytes",
    'weir_runs_in_flight{mode="stream"}',
    'weir_runs_in_flight{mode="whole"}',
    'weir_runs_in_flight{mode="sink"}',
    'weir_runs_in_flight{mode="async"}',
    "weir_spool_files",
    "weir_s3_parts_in_flight",
    "weir_s3_open_uploads",
)


class Server:
    """``fresh``: by an interpreter of its own, with the memory, the modules and the end that it has in earnest."""

    def __init__(self, spool: Path, *, module: str = "app.cli", fresh: bool = False, **settings: object) -> None:
        self.spool = spool
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
        environment |= {"WEIR_WIRE": WIRE}
        environment |= {f"WEIR_{name.upper()}": str(value) for name, value in settings.items()}
        environment |= {"WEIR_SPOOL_DIR": str(spool), "WEIR_PORT": "0", "PYTHONUNBUFFERED": "1"}
        self.log = spool.parent / f"{spool.name}.log"
        output, told = os.pipe()
        self.stdout = open(output)  # noqa: SIM115, for as long as the server runs
        with self.log.open("ab") as log, open(os.devnull) as nothing, open(told, "wb") as out:
            if fresh:
                command = [sys.executable, "-m", module, "serve"]
                streams = {"stdin": nothing, "stdout": out, "stderr": log}
                self.process: Process = subprocess.Popen(command, env=environment, **streams)
            else:
                self.process = Forked(module, "serve", env=environment, streams=(nothing, out, log))
        line = self.stdout.readline()
        found = re.search(r"http://([0-9.]+):(\d+)", line)
        assert found, f"no address in {line!r}: {self.log.read_text()}"
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}"
        self.transform = f"{self.url}/v1/transform"
        eventually(lambda: self.get("/readyz") == b"ready\n")

    @property
    def pid(self) -> int:
        return self.process.pid

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            data: bytes = reply.read()
        return data

    def metrics(self) -> dict[str, float]:
        lines = self.get("/metrics").decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}

    def runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = json.loads(self.get("/v1/runs?limit=1000"))["runs"]
        return runs

    def run(self, run_id: str, wait_s: float = 5.0) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.get(f"/v1/runs/{run_id}?wait={wait_s}"))
        return record

    def memory_kib(self, field: str = "VmHWM") -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))

    def assert_at_rest(self, within_s: float = 5.0) -> None:
        """Every gauge is zero, and nothing is in the spool but our own lock, the state, and what is kept by request."""

        def at_rest() -> bool:
            metrics = self.metrics()
            busy = [name for name in GAUGES_AT_REST if metrics[name] != 0]
            busy += [name for name, value in metrics.items() if name.startswith("weir_channel_bytes") and value]
            # What is kept by request stays; all else is given back.
            busy += [""] * (metrics["weir_spool_bytes"] != metrics["weir_kept_bytes"])
            return not busy and not self.left_in_spool()

        eventually(at_rest, within_s=within_s, told=lambda: str(self.metrics()) + str(self.left_in_spool()))

    def left_in_spool(self) -> list[Path]:
        left = [path for path in self.spool.rglob("*") if path.is_file() and path.name != "owner.lock"]
        return [path for path in left if path.parent.name != "kept" and not path.name.startswith("state.db")]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.stdout.close()


@contextlib.contextmanager
def serving(spool: Path, **settings: Any) -> Iterator[Server]:
    server = Server(spool, **settings)
    try:
        yield server
    finally:
        server.stop()


def eventually(holds: Callable[[], bool], within_s: float = 10.0, told: Callable[[], str] = str) -> None:
    """Wait until something holds; polling, because it happens in another process. The first of none is not there yet."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, IndexError):
            if holds():
                return
        assert time.monotonic() < deadline, f"did not come true within {within_s} s {told()}"
        time.sleep(0.02)
