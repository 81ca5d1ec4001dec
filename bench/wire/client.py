"""The C client, ``peers/wire/client.c``: it sends the block again and again and checks every byte that comes back."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Literal

from bench.client import Failed
from bench.compiler import c_program
from bench.kinds import PEERS
from bench.wire.body import block_file

Expected = Literal["same", "upper", "size", "nothing"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What came of one call: seconds from the first connect to the last byte, and bytes of all answers' bodies."""

    seconds: float
    received_bytes: int
    status: int
    field: str = ""


def transfer(
    url: str,
    *,
    method: str,
    nbytes: int,
    expects: Expected,
    chunk_bytes: int | None = None,
    connections: int = 1,
    bytes_per_s: int | None = None,
    field: str | None = None,
) -> Transfer:
    """Send ``nbytes`` (or, with GET, receive them) on each of the connections at once.

    Raises ``Failed`` unless every byte of every answer is what ``expects`` says, and ``Absent`` without a compiler.
    ``field`` is a response field that is wanted, too. ``bytes_per_s`` holds each connection back, in both directions.
    """
    options = {
        "block": block_file(),
        "bytes": nbytes,
        "expect": expects,
        "chunk": chunk_bytes,
        "connections": connections,
        "rate": bytes_per_s,
        "field": field,
    }
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    command = [str(c_program(PEERS / "wire" / "client.c")), method, url, *words]
    process = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if process.returncode:
        raise Failed((process.stderr.strip().splitlines() or [f"the client exits {process.returncode}"])[0][:200])
    return Transfer(**json.loads(process.stdout))
