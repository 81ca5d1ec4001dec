"""The /healthz of a server while four transfers run on it, beside its /healthz when nothing does."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.client import Failed
from bench.kinds import KINDS
from bench.servers import Server
from bench.wire import pulse
from bench.wire.works import WireWork

_TRANSFERS = 4
CONTENDERS = ("weir", "weir-wire", "go")
_QUIET_S = 2.0


def table(works: Sequence[WireWork], servers: dict[str, Server | str]) -> tuple[str, bool]:
    """The figures as a Markdown table, and whether all of Weir's transfers ended well."""
    lines = [
        f"### /healthz, 100 requests/s, while {_TRANSFERS} transfers of {works[0].mib} MiB run (ms)",
        "",
        "| | | p50 | p99 | longest | requests | MB/s together |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    well = True
    for key in CONTENDERS:
        server = servers.get(key)
        if not isinstance(server, Server):
            continue
        with pulse.beside(server.url) as beats:
            time.sleep(_QUIET_S)
        lines.append(_line(key, "nothing else", beats, ""))
        for work in works:
            if not work.offered_by(key):
                continue
            try:
                work.prepare(key, server)
                with pulse.beside(server.url) as beats:
                    done = work.take_at_once(key, server, _TRANSFERS)
            except Failed as failure:
                well &= key == "go"
                lines.append(f"| {KINDS[key].name} | {work.title} | | | | | FAILED: {failure} |")
                continue
            speed = f"{_TRANSFERS * work.nbytes / 1e6 / done.seconds:,.0f}"
            lines.append(_line(key, work.title, beats, speed))
    return "\n".join(lines) + "\n", well


def _line(key: str, title: str, beats: pulse.Pulse, speed: str) -> str:
    figures = [f"{beats.percentile(percent) * 1000:.1f}" for percent in (50, 99, 100)]
    return f"| {KINDS[key].name} | {title} | {' | '.join(figures)} | {len(beats.seconds)} | {speed} |"
