"""How stages share threads, and what a run can hold at most because of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.core.interfaces import Brisk, Gathers, Operator, Resizes, Sated, Sheds, Stage


@dataclass(frozen=True, slots=True)
class Parallel:
    """Stateless stages, fused: a page makes one thread hop through all of them, several pages at a time, in order. Stages
    that keep their place may stand on both sides: each page goes through these when it is its turn. Those that lead are
    brisk; those that trail gather."""

    stages: tuple[Stage, ...]
    lead: tuple[Stage, ...] = ()
    trail: tuple[Stage, ...] = ()

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """In the order in which pages come to them."""
        return (*self.lead, *self.stages, *self.trail)


@dataclass(frozen=True, slots=True)
class Serial:
    """Stages that keep their place, fused: one page at a time, one thread hop through all of them."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Pulled:
    """One operator on a thread of its own."""

    operator: Operator


@dataclass(frozen=True, slots=True)
class Quick:
    """Stages of which a page costs no more than a hop to a thread, mostly: whoever makes a page takes it through them in
    place."""

    stages: tuple[Stage, ...]


Segment = Parallel | Serial | Pulled | Quick


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
    return _joined([_in_place(segment) for segment in segments])


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """What would run on the loop runs on the thread that a page is taken to behind it; and what gathers, on the one that
    it comes from."""
    joined: list[Segment] = []
    for segment in segments:
        before = joined[-1] if joined else None
        if isinstance(segment, Parallel) and isinstance(before, Quick):
            joined[-1] = replace(segment, lead=before.stages)
        elif isinstance(segment, Serial) and isinstance(before, Parallel) and _gathers(segment.stages):
            joined[-1] = replace(before, trail=segment.stages)
        else:
            joined.append(segment)
    return joined


def _gathers(stages: Sequence[Stage]) -> bool:
    return isinstance(stages[-1], Gathers) and not any(isinstance(stage, Sated) for stage in stages)


def _in_place(segment: Segment) -> Segment:
    """A slow neighbour goes to a thread anyway, and takes brisk ones along."""
    if isinstance(segment, Parallel | Serial) and all(isinstance(stage, Brisk) for stage in segment.stages):
        return Quick(segment.stages)
    return segment


def worst_case_bytes(
    segments: Sequence[Segment],
    *,
    page_bytes: int,
    high_water_bytes: int,
    lanes: int,
    outside_bytes: int,
    source_page_bytes: int | None = None,
) -> int:
    """The most bytes a run can hold: every edge full, a page in every hand, and all that stages keep back.

    ``page_bytes`` is the largest page on any edge, but for those behind a stage that ``Resizes``, and the first one,
    where it is ``source_page_bytes``: then the first stage cuts all pages down, or joins them. ``lanes`` is how many
    pages a ``Parallel`` segment has in work, and ``outside_bytes`` what source and sink hold by themselves. The hands:
    the source's (a page, and the two that it reads ahead or the pieces it is joined from), each segment's (the page
    that waits to enter; the pages in work with all that exists because of them; and a page of results that wait to
    leave a ``Pulled`` one), and the sink's (the first page may wait for the second). A ``Quick`` segment is in the hand
    before it.
    """
    page = page_bytes if source_page_bytes is None else source_page_bytes
    total = outside_bytes + 3 * page + max(high_water_bytes, page)
    for index, segment in enumerate(segments):
        parts = parts_of(segment)
        total += sum(part.holds for part in parts)
        later = page if index else page_bytes
        grown = [part.grows * (later if place else page) for place, part in enumerate(parts)]
        if isinstance(segment, Parallel):
            # One page at a time is led, and one at a time trails; what comes of the first may be a copy that each page
            # in work has by itself, or keep alive the page that it was cut from; and of the last a page of results.
            middle = slice(len(segment.lead), len(parts) - len(segment.trail))
            at_once = _fused_bytes(segment.stages, grown[middle])
            pages_bytes = page + later if segment.lead else page
            total += page + int(sum(grown) - sum(grown[middle]) + lanes * (pages_bytes + at_once))
            total += later if segment.trail else 0
        elif isinstance(segment, Quick):
            total += int(sum(grown))
        else:
            total += page + int(page + sum(grown)) + (later if isinstance(segment, Pulled) else 0)
        given = [part.gives_bytes for part in parts if isinstance(part, Resizes)]
        page = given[-1] if given else later
        if not isinstance(segment, Quick):
            total += max(high_water_bytes, page)
    total += 2 * page
    return total


def _fused_bytes(stages: Sequence[Stage], grown: Sequence[float]) -> float:
    """What one page becomes at the most on its way through ``stages``, of which each makes what ``grown`` has for it."""
    most = kept = 0.0
    for stage, nbytes in zip(stages, grown, strict=True):
        most = max(most, kept + nbytes)
        kept += nbytes * stage.keeps / stage.grows if isinstance(stage, Sheds) else nbytes
    return most


def parts_of(segment: Segment) -> tuple[Stage | Operator, ...]:
    """What a segment is made of, in the order in which pages come to it."""
    if isinstance(segment, Pulled):
        return (segment.operator,)
    return segment.all_stages if isinstance(segment, Parallel) else segment.stages


def _kind(stage: Stage | Operator) -> Literal["parallel", "serial", "pulled"]:
    stateless: bool | None = getattr(stage, "stateless", None)  # an operator has no such word
    return "pulled" if stateless is None else "parallel" if stateless else "serial"
