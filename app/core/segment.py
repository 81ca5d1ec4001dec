"""How stages share threads, and what a run can hold at most because of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.interfaces import Operator, Stage


@dataclass(frozen=True, slots=True)
class Parallel:
    """Stateless stages, fused: a page makes one thread hop through all of them, several pages at a time, in order."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Serial:
    """Stages that keep their place, fused: one page at a time, one thread hop through all of them."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Pulled:
    """One operator on a thread of its own."""

    operator: Operator


Segment = Parallel | Serial | Pulled


def split(stages: Iterable[Stage | Operator]) -> list[Segment]:
    """Cut a chain into segments: neighbours of the same kind are fused, an operator stands alone."""
    segments: list[Segment] = []
    for stage in stages:
        kind = _kind(stage)
        last = segments[-1] if segments else None
        if kind == "pulled":
            segments.append(Pulled(stage))  # type: ignore[arg-type]
        elif kind == "parallel":
            fused = last.stages if isinstance(last, Parallel) else ()
            segments[len(segments) - bool(fused) :] = [Parallel((*fused, stage))]  # type: ignore[arg-type]
        else:
            fused = last.stages if isinstance(last, Serial) else ()
            segments[len(segments) - bool(fused) :] = [Serial((*fused, stage))]  # type: ignore[arg-type]
    return segments


def worst_case_bytes(
    segments: Sequence[Segment],
    *,
    page_bytes: int,
    high_water_bytes: int,
    lanes: int,
    outside_bytes: int,
) -> int:
    """The most bytes a run can hold: every edge full, a page in every hand, and all that stages keep back.

    ``page_bytes`` is the largest page on any edge, ``lanes`` how many pages a ``Parallel`` segment has in work, and
    ``outside_bytes`` what source and sink hold by themselves. The hands: the source's (a page, and the pieces it is
    joined from), each segment's (the page that waits to enter; the pages in work with all that exists because of
    them), and the sink's.
    """
    edge = max(high_water_bytes, page_bytes)
    total = outside_bytes + 2 * page_bytes + (len(segments) + 1) * edge + page_bytes
    for segment in segments:
        parts: tuple[Stage | Operator, ...] = (segment.operator,) if isinstance(segment, Pulled) else segment.stages
        in_work = 1.0 + sum(part.grows for part in parts)
        pages = lanes if isinstance(segment, Parallel) else 1
        total += sum(part.holds for part in parts) + page_bytes + int(pages * in_work * page_bytes)
    return total


def _kind(stage: Stage | Operator) -> Literal["parallel", "serial", "pulled"]:
    stateless: bool | None = getattr(stage, "stateless", None)  # an operator has no such word
    return "pulled" if stateless is None else "parallel" if stateless else "serial"
