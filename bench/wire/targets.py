"""What Weir is to reach on the wire, within one run, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.kinds import KINDS
from bench.report import Result, ours_of
from bench.wire.works import NAMES


@dataclass(frozen=True, slots=True)
class Target:
    """In ``work``, Weir is to be at least ``times`` as fast as the fastest of ``contenders``."""

    work: str
    contenders: tuple[str, ...]
    times: float


TARGETS = (
    Target("upload", ("go",), 1.5),
    Target("upload", ("node",), 1.5),
    Target("upload-chunked", ("go",), 1.2),
    Target("echo", ("go",), 1.2),
    Target("echo", ("node",), 2.0),
    Target("upper", ("go",), 2.0),
    Target("upper", ("node",), 4.0),
    Target("disk", ("go",), 1.3),
    Target("disk", ("nginx",), 3.0),
    Target("download", ("nginx", "nginx-copy"), 1.1),
    Target("download", ("starlette",), 5.0),
)


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """The verdicts on what was measured, by work, as a Markdown table."""
    lines = [
        "### Targets",
        "",
        "| | beside | to reach | measured | reached |",
        "|---|---|---:|---:|---|",
    ]
    for target in TARGETS:
        if target.work in results:
            found = results[target.work]
            best = _best(found, target.contenders)
            ours = ours_of(found)
            ratio = best.seconds / ours.seconds if best and ours else None
            name = best.name if best else KINDS[target.contenders[0]].name
            lines.append(_line(target.work, name, f">= {target.times:g}x", ratio, ratio and ratio >= target.times))
    for work in NAMES:
        if work in results:
            ours, go = ours_of(results[work]), _best(results[work], ("go",))
            ratio = ours.cpu_s / go.cpu_s if ours and go and go.cpu_s else None
            # A hundredth is what the clock's ticks can tell.
            lines.append(_line(f"{work}, CPU s/GiB", KINDS["go"].name, "<= 1x", ratio, ratio and round(ratio, 2) <= 1))
    return "\n".join(lines) + "\n"


def _best(results: Sequence[Result], keys: tuple[str, ...]) -> Result | None:
    timed = [result for result in results if result.key in keys and result.samples]
    return min(timed, key=lambda result: result.seconds, default=None)


def _line(work: str, name: str, wanted: str, ratio: float | None, reached: bool | float | None) -> str:
    if ratio is None:
        return f"| {work} | {name} | {wanted} | | not measured |"
    return f"| {work} | {name} | {wanted} | {ratio:.2f}x | {'yes' if reached else 'NO'} |"
