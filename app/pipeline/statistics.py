"""What is measured of a flow while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.channel import ChannelStatistics, Edge
from app.core.segment import Parallel, Segment, parts_of


@dataclass(slots=True)
class StageClock:
    """Where a stage's time goes, in seconds, and what passed through it.

    ``busy``: computing, summed over threads where it is ``parallel``. ``idle``: its segment waits for input.
    ``blocked``: its segment waits for room downstream.
    """

    name: str
    parallel: bool = False
    busy_s: float = 0.0
    idle_s: float = 0.0
    blocked_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    rows_in: int = 0
    rows_out: int = 0

    def add(self, other: StageClock) -> None:
        """Add what ``other`` has seen."""
        self.busy_s += other.busy_s
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out


def clocks_of(segment: Segment) -> list[StageClock]:
    """One for each of its stages, in their order."""
    clocks = [StageClock(stage.name) for stage in parts_of(segment)]
    if isinstance(segment, Parallel):
        for clock in clocks[len(segment.lead) :][: len(segment.stages)]:
            clock.parallel = True
    return clocks


@dataclass(frozen=True, slots=True)
class FlowStatistics:
    """A snapshot of a run, taken at any time. ``peak_bytes`` counts pages on edges and in hands."""

    input_bytes: int
    output_bytes: int
    inside_bytes: int
    peak_bytes: int
    first_byte_s: float | None
    stages: tuple[StageClock, ...]
    edges: tuple[ChannelStatistics, ...]


@dataclass(slots=True)
class Inside:
    """The bytes of all pages in hands and on ``edges``, changed and read on the loop only."""

    edges: list[Edge]
    in_hands: int = 0
    peak_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """All of them."""
        total = self.in_hands
        for edge in self.edges:
            total += edge.held_bytes
        return total

    def pick_up(self, nbytes: int) -> None:
        """A page is in somebody's hands."""
        self.in_hands += nbytes
        if (inside := self.nbytes) > self.peak_bytes:
            self.peak_bytes = inside

    def put_down(self, nbytes: int) -> None:
        """It no longer is: it went on, or was used up."""
        self.in_hands -= nbytes
