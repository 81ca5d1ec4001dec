"""What is done to rows, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.stages.sql_formula import Formula


@dataclass(slots=True)
class Filter:
    """Keeps the rows for which ``condition`` holds; of their columns those in ``kept``, by place."""

    condition: Formula
    kept: tuple[int, ...] = ()


@dataclass(slots=True)
class Projection:
    """Makes these columns; None are those that nobody needs."""

    columns: list[Formula | None]


Step = Filter | Projection


def prune(steps: Sequence[Step], width: int) -> None:
    """Leave out what no later step needs, nor the ``width`` columns that are made."""
    needed = frozenset(range(width))
    for step in reversed(steps):
        if isinstance(step, Filter):
            step.kept = tuple(sorted(needed))
            needed |= step.condition.uses
        else:
            step.columns = [one if index in needed else None for index, one in enumerate(step.columns)]
            needed = frozenset().union(*(one.uses for one in step.columns if one is not None))
