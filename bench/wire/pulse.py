"""How long /healthz takes while transfers run, asked 100 times a second by a process of its own.

A request is sent when it is due, whether or not those before it were answered, each on a connection of its own while it
lasts: a server that stalls is asked as often as one that does not.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.kinds import ROOT

_REQUESTS_PER_S = 100
_ANSWER_S = 30.0


@dataclass(slots=True)
class Pulse:
    """Seconds that each request took, shortest first; complete once the block of ``beside`` has ended."""

    seconds: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """Seconds within which that many percent of the requests were answered."""
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))]


@contextmanager
def beside(url: str) -> Iterator[Pulse]:
    """Ask the server as long as the block runs."""
    pulse = Pulse()
    command = [sys.executable, "-m", "bench.wire.pulse", url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
        try:
            yield pulse
        finally:
            pulse.seconds = sorted(json.loads(process.communicate(input="")[0]))


class _Asker:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._request = f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self.seconds: list[float] = []

    async def ask(self) -> None:
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
        begun = time.perf_counter()
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        if b"chunked" in lowered:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(int(lowered.partition(b"content-length:")[2].split()[0]))
        self.seconds.append(time.perf_counter() - begun)
        if b" 200 " not in head:
            raise RuntimeError(f"/healthz answers {head[:40]!r}")
        self._free.append((reader, writer))


async def _main(url: str) -> None:
    asker = _Asker(url)
    await asker.ask()
    asker.seconds.clear()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    told_to_end = loop.run_in_executor(None, sys.stdin.read)
    begun, asked = loop.time(), 0
    async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as group:
        while not told_to_end.done():
            group.create_task(asker.ask())
            asked += 1
            await asyncio.sleep(begun + asked / _REQUESTS_PER_S - loop.time())
        bound.reschedule(loop.time() + _ANSWER_S)
    print(json.dumps(asker.seconds))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
