"""A pipeline as it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.core.errors import Refusal
from app.framing import Format
from app.framing.charset import find_charset
from app.framing.dialect import DIALECT_WORDS
from app.stages import Step
from app.stages.enrich import Enrichment
from app.stages.enrich import parse as parse_enrichment

OnError = Literal["fail", "skip", "quarantine"]
ON_ERROR = ("fail", "skip", "quarantine")


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step with its argument, checked."""

    step: Step
    argument: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline as it was asked for, checked as far as that goes without data. Formats are None until known.
    ``reading`` are those of ``READING_WORDS`` that were said."""

    steps: tuple[PlannedStep, ...] = ()
    source: Format | None = None
    target: Format | None = None
    types: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, str] = field(default_factory=dict)
    compression: str | None = None
    on_error: OnError = "fail"
    max_errors: int | float | None = None
    whole: bool = False
    pipeline: str | None = None
    sink: str | None = None
    overwrite: bool = True

    @property
    def needs_rows(self) -> bool:
        """It cannot run on bytes: a step works on rows, or the formats differ and one of them has rows. A source that
        is not known counts as bytes; a target that is not known is the source."""
        source_has_rows = self.source is not None and self.source.kind == "rows"
        if self.judges_rows and (source_has_rows or self.source is None):
            return True
        changes = self.target is not None and self.target is not self.source
        if changes and (source_has_rows or (self.target is not None and self.target.kind == "rows")):
            return True
        on_rows = ("rows", "records") if source_has_rows else ("rows",)
        return any(planned.step.takes in on_rows for planned in self.steps)

    @property
    def packs(self) -> bool:
        """A step of it compresses the result."""
        return any(planned.step.takes == "pack" for planned in self.steps)

    @property
    def charset(self) -> str | None:
        """What the input's text is in, where that is not UTF-8; see ``find_charset``."""
        return find_charset(self.reading.get("encoding", ""))

    @property
    def judges_rows(self) -> bool:
        """It says how rows are written, what their types are, or what becomes of bad ones: then they have to be looked
        at."""
        is_about_rows = any(word in self.reading for word in (*DIALECT_WORDS, "infer"))
        return is_about_rows or bool(self.types) or self.on_error != "fail" or self.max_errors is not None

    @property
    def lookups(self) -> list[Enrichment]:
        """What it looks up, in order."""
        return [parse_enrichment(planned.argument) for planned in self.steps if planned.step.name == "enrich"]

    def describe(self) -> str:
        """The pipeline in a line, as it would stand in a URL without its encoding."""
        parts = [f"from={self.source.name}" if self.source else ""]
        parts += [f"{p.step.name}={p.argument}" if p.argument else p.step.name for p in self.steps]
        parts += [f"to={self.target.name}" if self.target else ""]
        return "&".join(part for part in parts if part)


def with_pipeline(plan: Plan, stored: Plan) -> Plan:
    """``plan``, which named a pipeline, with what is stored under that name; its own formats, types and words about how
    the input is written stand before."""
    if plan.steps:
        raise Refusal("bad_pipeline", "pipeline= names all the steps: give either it or steps, not both")
    return replace(
        stored,
        source=plan.source or stored.source,
        target=plan.target or stored.target,
        types={**stored.types, **plan.types},
        reading={**stored.reading, **plan.reading},
        whole=plan.whole or stored.whole,
        pipeline=plan.pipeline,
        sink=plan.sink or stored.sink,
        overwrite=plan.overwrite and stored.overwrite,
    )
