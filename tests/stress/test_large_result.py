"""A result of 20 GiB is fetched over connections that break, and is the same."""

from __future__ import annotations

import hashlib
import http.client
import random
import subprocess
from pathlib import Path

import pytest

from tests.server import Server, serving

GIB = 1 << 30
SIZE_BYTES = 20 * GIB
CUTS = 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_large_result_is_resumed_after_every_cut(tmp_path: Path) -> None:
    with serving(
        tmp_path / "spool", fresh=True, memory_budget="64MiB", spool_limit="64GiB", max_body="64GiB"
    ) as server:
        pipe = f"yes 'a line of a result that is larger than any memory' | head -c {SIZE_BYTES} | curl -sS -T - -D -"
        headers = subprocess.run(
            f"{pipe} -o /dev/null '{server.transform}?upper&deliver=whole'",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.lower()
        run_id = headers.split("weir-run-id:")[1].split()[0]
        record = server.run(run_id)
        assert record["state"] == "succeeded", record["error"]
        assert record["output_bytes"] == SIZE_BYTES
        draw = random.Random(7)
        ends = [*sorted(draw.randrange(SIZE_BYTES) for _ in range(CUTS)), SIZE_BYTES]
        found, received, etag = hashlib.sha256(), 0, None
        for end in ends:
            received, etag = fetch(server, run_id, received, end, etag, found)
        assert received == SIZE_BYTES
        assert found.hexdigest() == record["digest"] == (etag or "").strip('"')
        # The budget, and the process itself.
        assert server.memory_kib() < (64 + 220) * 1024
        server.assert_at_rest()


def fetch(
    server: Server, run_id: str, begin: int, end: int, etag: str | None, found: hashlib._Hash
) -> tuple[int, str | None]:
    """Read the result from ``begin`` on, and break the connection once ``end`` is behind us; how far it came."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    wanted = {"Range": f"bytes={begin}-"} | ({"If-Range": etag} if etag else {})
    connection.request("GET", f"/v1/runs/{run_id}/result", headers=wanted)
    reply = connection.getresponse()
    assert reply.status == 206
    assert reply.headers["content-range"] == f"bytes {begin}-{SIZE_BYTES - 1}/{SIZE_BYTES}"
    received = begin
    while received < end and (piece := reply.read(1 << 20)):
        found.update(piece)
        received += len(piece)
    connection.close()
    return received, reply.headers["etag"]
