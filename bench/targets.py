"""What Weir is to reach beside others, within one run: a line for each, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.kinds import KINDS
from bench.report import Result, ours_of
from bench.tables.references import REFERENCES


@dataclass(frozen=True, slots=True)
class Target:
    """In ``work``, Weir is to be at least ``times`` as fast as the fastest of ``contenders``."""

    work: str
    contenders: tuple[str, ...]
    times: float


def table(title: str, lines: Sequence[str]) -> str:
    """The lines as a Markdown table."""
    head = [f"### {title}", "", "| | beside | to reach | measured | reached |", "|---|---|---:|---:|---|"]
    return "\n".join([*head, *lines]) + "\n"


def beside(target: Target, results: Sequence[Result]) -> str:
    """How many times as fast as the fastest of the others Weir was."""
    best, ours = fastest(results, target.contenders), ours_of(results)
    ratio = best.seconds / ours.seconds if best and ours else None
    name = best.name if best else " or ".join(map(_name, target.contenders))
    measured = None if ratio is None else f"{ratio:.2f}x"
    return line(target.work, name, f">= {target.times:g}x", measured, ratio is not None and ratio >= target.times)


def line(work: str, name: str, wanted: str, measured: str | None, reached: bool) -> str:
    """Any line; ``measured`` is None for what was not."""
    if measured is None:
        return f"| {work} | {name} | {wanted} | | not measured |"
    return f"| {work} | {name} | {wanted} | {measured} | {'yes' if reached else 'NO'} |"


def fastest(results: Sequence[Result], keys: Sequence[str]) -> Result | None:
    """The fastest of those with samples."""
    timed = [result for result in results if result.key in keys and result.samples]
    return min(timed, key=lambda result: result.seconds, default=None)


def _name(key: str) -> str:
    return KINDS[key].name if key in KINDS else REFERENCES[key].name
