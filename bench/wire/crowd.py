"""What many slow clients at once cost in memory: each sends, and takes, its text slowly through an upper case."""

from __future__ import annotations

from collections.abc import Sequence

from bench.client import Failed
from bench.compiler import Absent
from bench.kinds import BUDGET_MIB, KINDS
from bench.servers import running
from bench.wire.client import transfer
from bench.wire.works import WireWork

_CLIENTS = 128
_BYTES_PER_S = 256 * 1024
_SECONDS = 10
_MIB = 1 << 20
# As many runs as there are clients, and none of them is sent away while others take its place in the budget.
_WORDS = {"weir": (f"--max-flows={_CLIENTS}", "--admit-timeout=10min")}


def table(upper: WireWork, keys: Sequence[str]) -> tuple[str, bool]:
    """The figures as a Markdown table, and whether all of Weir's answers were right."""
    nbytes = _BYTES_PER_S * _SECONDS
    lines = [
        f"### {_CLIENTS} slow clients at once, {nbytes / _MIB:.1f} MiB each at {_BYTES_PER_S // 1024} KiB/s through"
        f" upper case; Weir with MEMORY_BUDGET={BUDGET_MIB}MiB",
        "",
        "| | seconds | idle MiB | above idle | CPU s | answers |",
        "|---|---:|---:|---:|---:|---|",
    ]
    well = True
    for key in keys:
        if not upper.offered_by(key):
            continue
        kind = KINDS[key]
        try:
            with running(kind, *_WORDS.get(key, ())) as server:
                server.wait_quiet()
                idle, before = server.peak_bytes(), server.cpu_seconds()
                done = transfer(
                    server.url + upper.routes[key].path,
                    method="POST",
                    nbytes=nbytes,
                    expects="upper",
                    connections=_CLIENTS,
                    bytes_per_s=_BYTES_PER_S,
                )
                above, cpu_s = server.peak_bytes() - idle, server.cpu_seconds() - before
        except (Failed, Absent, RuntimeError) as failure:
            well &= key != "weir"
            lines.append(f"| {kind.name} | | | | | FAILED: {failure} |")
            continue
        figures = f"{done.seconds:.1f} | {idle / _MIB:,.0f} | {above / _MIB:,.0f} | {cpu_s:.2f}"
        lines.append(f"| {kind.name} | {figures} | right |")
    return "\n".join(lines) + "\n", well
