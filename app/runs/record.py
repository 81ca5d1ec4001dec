"""A run as the user sees it: a frozen record, and the one table of its states."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.pipeline import FlowStatistics

State = Literal["accepted", "running", "succeeded", "failed", "cancelled"]

FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})


MODES = ("stream", "whole", "sink", "async")
"""How a result is delivered: while it is made, once it is whole, to a store, or when its client comes back for it."""


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run did not succeed, as it is shown."""

    code: str
    detail: str
    line: int | None = None
    byte: int | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True)
class StageTime:
    """Where one stage's time went, in seconds, and what passed through it."""

    name: str
    busy_s: float
    blocked_s: float
    idle_s: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Run:
    """The record of one run. Times are seconds; ``created_at`` is a Unix time; ``source`` and ``target`` name the
    formats; ``input`` and ``sink`` are the objects where they are in stores. ``rows_*`` are None for raw bytes;
    ``rejected`` counts the rejected rows by code. ``attempt`` counts the servers that began it.
    ``crc32`` is in Base64, as S3 shows it."""

    id: str
    mode: str
    pipeline: str
    source: str
    target: str
    created_at: float
    worst_case_bytes: int = 0
    input: str | None = None
    sink: str | None = None
    attempt: int = 1
    state: State = "accepted"
    input_bytes: int = 0
    output_bytes: int = 0
    rows_in: int | None = None
    rows_out: int | None = None
    rows_rejected: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    peak_bytes: int = 0
    spooled_bytes: int = 0
    admission_wait_s: float | None = None
    first_byte_s: float | None = None
    elapsed_s: float = 0.0
    stages: tuple[StageTime, ...] = ()
    bottleneck: str | None = None
    digest: str | None = None
    etag: str | None = None
    crc32: str | None = None
    parts: int = 0
    error: RunError | None = None

    def document(self) -> dict[str, Any]:
        """The record as JSON shows it."""
        return dataclasses.asdict(self)


def run_of_document(document: Mapping[str, Any]) -> Run:
    """The record that ``Run.document`` gave. What this version does not know is left out."""
    known = {field.name for field in dataclasses.fields(Run)}
    values = {name: value for name, value in document.items() if name in known}
    error = values.get("error")
    return Run(
        **values
        | {
            "stages": tuple(StageTime(**stage) for stage in values.get("stages", ())),
            "error": None if error is None else RunError(**error),
        }
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """The flow is made; this is the most it will hold."""

    worst_case_bytes: int


@dataclass(frozen=True, slots=True)
class Started:
    """The budget granted the run."""

    admission_wait_s: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """Figures of a flow; ``rows_*`` and ``spooled_bytes`` are what the run's owner knows beside it."""

    statistics: FlowStatistics
    rows_in: int | None
    rows_out: int | None
    rejected: Mapping[str, int]
    spooled_bytes: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The sink was committed."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended without a result."""

    error: Refusal


@dataclass(frozen=True, slots=True)
class Restarted:
    """The process that had it is gone; it begins again from its input's beginning."""


@dataclass(frozen=True, slots=True)
class Released:
    """Its server shuts down, and leaves it to the next one."""


RunEvent = Prepared | Started | Progressed | Committed | Failed | Restarted | Released

_NEXT: dict[tuple[State, type[RunEvent]], State] = {
    ("accepted", Prepared): "accepted",
    ("accepted", Started): "running",
    ("accepted", Restarted): "accepted",
    ("running", Restarted): "accepted",
    ("accepted", Released): "accepted",
    ("running", Released): "accepted",
    ("accepted", Failed): "failed",
    ("running", Progressed): "running",
    ("running", Committed): "succeeded",
    ("running", Failed): "failed",
}
_KEPT_BY_A_RESTART = ("id", "mode", "pipeline", "source", "target", "created_at", "input", "sink")
_CANCELLING = frozenset({"client_gone", "cancelled", "shutting_down"})
"""The codes of failures that are somebody's wish, not a fault."""


def advance(run: Run, event: RunEvent) -> Run:
    """The record after ``event``. Everything that changes a run's state is in this function and the table above it.

    Raises ``ValueError`` for an event that the state does not allow.
    """
    try:
        state = _NEXT[run.state, type(event)]
    except KeyError:
        raise ValueError(f"a run that is {run.state} cannot have {type(event).__name__}") from None
    elapsed_s = time.time() - run.created_at
    if isinstance(event, Prepared):
        return dataclasses.replace(run, worst_case_bytes=event.worst_case_bytes)
    if isinstance(event, Restarted | Released):
        kept = {name: getattr(run, name) for name in _KEPT_BY_A_RESTART}
        return Run(**kept, state=state, attempt=run.attempt + isinstance(event, Restarted))
    if isinstance(event, Started):
        return dataclasses.replace(run, state=state, admission_wait_s=event.admission_wait_s)
    if isinstance(event, Committed):
        receipt = event.receipt
        return dataclasses.replace(
            run,
            state=state,
            output_bytes=receipt.nbytes,
            digest=receipt.digest,
            etag=receipt.etag,
            crc32=None if receipt.crc32 is None else base64.b64encode(receipt.crc32.to_bytes(4, "big")).decode(),
            parts=receipt.parts,
            elapsed_s=elapsed_s,
        )
    if isinstance(event, Failed):
        refusal = event.error
        detail = refusal.detail.encode(errors="replace").decode()  # half of a surrogate pair is in no JSON
        error = RunError(refusal.code, detail, refusal.line, refusal.byte, refusal.column)
        state = "cancelled" if refusal.code in _CANCELLING else state
        return dataclasses.replace(run, state=state, error=error, elapsed_s=elapsed_s)
    seen = event.statistics
    wait_s = run.admission_wait_s or 0.0
    return dataclasses.replace(
        run,
        input_bytes=seen.input_bytes,
        output_bytes=seen.output_bytes,
        rows_in=event.rows_in,
        rows_out=event.rows_out,
        rows_rejected=sum(event.rejected.values()),
        rejected=event.rejected,
        peak_bytes=seen.peak_bytes,
        spooled_bytes=event.spooled_bytes,
        first_byte_s=None if seen.first_byte_s is None else seen.first_byte_s + wait_s,
        elapsed_s=elapsed_s,
        stages=tuple(
            StageTime(clock.name, clock.busy_s, clock.blocked_s, clock.idle_s, clock.bytes_in, clock.bytes_out)
            for clock in seen.stages
        ),
        bottleneck=bottleneck(seen, lanes=event.lanes),
    )


def bottleneck(seen: FlowStatistics, *, lanes: int) -> str | None:
    """What the run waited for most: a stage's name, ``source`` or ``sink``.

    A stage that is the slowest is busy nearly all the time (on all its lanes, if it has several), the segment behind a
    slow source is idle, the segment before a slow sink is blocked: the largest of these times names it.
    """
    if not seen.stages:
        return None
    times = {clock.name: clock.busy_s / (lanes if clock.parallel else 1) for clock in seen.stages}
    times["source"] = seen.stages[0].idle_s
    times["sink"] = seen.stages[-1].blocked_s
    return max(times, key=lambda name: times[name])
