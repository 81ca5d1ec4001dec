"""What Weir is to reach on the wire, within one run, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import targets
from bench.kinds import KINDS
from bench.report import Result, ours_of
from bench.targets import Target
from bench.wire.works import NAMES

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
    lines = [targets.beside(target, results[target.work]) for target in TARGETS if target.work in results]
    for work in NAMES:
        if work in results:
            ours, go = ours_of(results[work]), targets.fastest(results[work], ("go",))
            ratio = ours.cpu_s / go.cpu_s if ours and go and go.cpu_s else None
            measured = None if ratio is None else f"{ratio:.2f}x"
            # A hundredth is what the clock's ticks can tell.
            reached = ratio is not None and round(ratio, 2) <= 1
            lines.append(targets.line(f"{work}, CPU s/GiB", KINDS["go"].name, "<= 1x", measured, reached))
    return targets.table("Targets", lines)
