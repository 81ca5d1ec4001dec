"""A plan as stages, and what they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from app.core.interfaces import KeepsLength, Modest, Operator, RandomAccess, Stage
from app.core.page import Page
from app.core.segment import split, worst_case_bytes
from app.framing import Format
from app.framing.needs import PassedOver
from app.stages.distinct import Distinct
from app.stages.sort import Sort
from app.stages.sql import Query
from app.stages.tolerance import Tolerance
from app.stages.window import Window
from app.stages.window_sessions import SessionWindow


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one run may take: ``nbytes``, for stages that ``lanes`` and ``high_water_bytes`` (see ``FlowOptions``) are
    given to."""

    nbytes: int
    high_water_bytes: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Built:
    """A plan as stages. ``read_file``, where set, makes the pages that the stages see first, of an input of random access.

    ``page_bytes`` is the largest page that flows, but for the source's, which may have ``source_page_bytes``.
    ``rows_in`` and ``rows_out`` are the indices of the stages whose output rows are the run's rows in, and whose input
    rows are its rows out; ``passed_over`` counts rows in that were never read, because no ``where`` could keep them.
    """

    stages: tuple[Stage | Operator, ...]
    target: Format
    media_type: str
    page_bytes: int
    source_page_bytes: int
    outside_bytes: int
    read_file: Callable[[RandomAccess], Iterator[Page]] | None
    rows_in: int | None
    rows_out: int | None
    passed_over: PassedOver
    cuts: bool = False
    """The first stage cuts whatever pages come, so that those of the flow may be smaller than the source's."""

    def least_bytes(self, allowance: Allowance) -> int:
        """The worst case, once what is modest has spared what it can; without source and sink."""
        worst_bytes = worst_case_bytes(
            split(self.stages),
            page_bytes=self.page_bytes,
            high_water_bytes=max(allowance.high_water_bytes, self.page_bytes),
            lanes=allowance.lanes,
            outside_bytes=self.outside_bytes,
            source_page_bytes=self.source_page_bytes,
        )
        return worst_bytes - sum(stage.spare_bytes for stage in self.stages if isinstance(stage, Modest))

    @property
    def rejected(self) -> Mapping[str, int]:
        """Rows that were left out, by code."""
        counters = [stage.rejected for stage in self.stages if isinstance(stage, Tolerance | Window | SessionWindow)]
        return sum(counters, Counter())

    @property
    def spilled_bytes(self) -> int:
        """What its queries, its sorts and its ``distinct`` had on disk at the most."""
        return sum(stage.spilled_bytes for stage in self.stages if isinstance(stage, Query | Sort | Distinct))

    @property
    def keeps_length(self) -> bool:
        """The result has as many bytes as the body."""
        return self.read_file is None and all(isinstance(stage, KeepsLength) for stage in self.stages)
