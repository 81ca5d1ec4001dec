"""The catalogue of steps. One transform per file; each is made of plain functions from pages to pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from app.core.errors import Refusal, known
from app.core.interfaces import Operator, Stage
from app.core.page import Reject
from app.framing.compression import STEP_CODECS, Compress, Decompress
from app.stages.case import Case
from app.stages.enrich import WORDS as ENRICH_WORDS
from app.stages.enrich import Enrich
from app.stages.enrich import parse as parse_enrichment
from app.stages.grep import Grep
from app.stages.limit import Limit, parse_count
from app.stages.lookup import Lookup
from app.stages.offset import Offset
from app.stages.phrase import join_phrase
from app.stages.replace import Replace, join_replace
from app.stages.replace import parse as parse_replace
from app.stages.sample import Sample, parse_share
from app.stages.sql import check
from app.stages.sql_text import AGGREGATE_WORDS
from app.stages.window import Window
from app.stages.window_sessions import SessionWindow
from app.stages.window_text import WORDS as WINDOW_WORDS
from app.stages.window_text import parse as parse_windows

Takes = Literal["text", "lines", "records", "rows", "pack", "unpack"]
"""What a step works on: ``text`` any text or bytes, ``lines`` whole lines, ``records`` rows or lines, ``rows`` only
rows; ``pack`` and ``unpack`` turn a payload into a compressed one and back."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage may need beside its argument. ``keep_header``: the first line is a header and is not a record;
    ``lookups``: the lookup tables that the pipeline names; ``keep`` takes quarantined rejects; ``tolerant``: bad rows are
    left out, and do not end the run."""

    page_bytes: int
    max_expansion: float
    keep_header: bool
    lookups: Mapping[str, Lookup] = field(default_factory=dict)
    keep: Callable[[Sequence[Reject]], None] | None = None
    tolerant: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of step. ``check`` refuses a bad argument when the pipeline is read; ``make`` gives the stage, and is None
    for SQL steps, which are fused into one query. ``of_words`` gives the argument that an object stands for, if it may
    be one."""

    name: str
    takes: Takes
    argument: str | None
    does: str
    check: Callable[[str], object]
    make: Callable[[str, StageContext], Stage | Operator] | None
    of_words: Callable[[Mapping[str, str]], str] | None = None


def _nothing(argument: str) -> None:
    if argument:
        raise Refusal("bad_argument", f"this step takes no argument, not {argument[:80]!r}")


def _codec(argument: str) -> str:
    if argument not in STEP_CODECS:
        raise Refusal("bad_argument", f"{argument[:80]!r} is not a codec; known are {known(STEP_CODECS)}")
    return argument


def _replace(argument: str) -> Replace:
    return Replace(*parse_replace(argument))


def _enrich(argument: str, context: StageContext) -> Stage:
    asked = parse_enrichment(argument)
    return Enrich(asked, context.lookups[asked.table], page_bytes=context.page_bytes)


def _window(argument: str, context: StageContext) -> Stage:
    asked = parse_windows(argument)
    kind = SessionWindow if asked.gap_s else Window
    return kind(asked, page_bytes=context.page_bytes, keep=context.keep, tolerant=context.tolerant)


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("upper", "text", None, "ASCII letters become upper case", _nothing, lambda _, c: Case(upper=True)),
        Step("lower", "text", None, "ASCII letters become lower case", _nothing, lambda _, c: Case(upper=False)),
        Step(
            "replace",
            "lines",
            "/regex/text/",
            "replace what an RE2 expression matches in each line",
            _replace,
            lambda argument, c: _replace(argument),
            join_replace,
        ),
        Step(
            "grep",
            "lines",
            "regex",
            "keep the lines in which an RE2 expression matches; of csv and tsv also the header",
            partial(Grep, keep_header=False),
            lambda argument, c: Grep(argument, keep_header=c.keep_header),
        ),
        Step(
            "compress",
            "pack",
            "|".join(STEP_CODECS),
            "compress the payload",
            _codec,
            lambda argument, c: Compress(_codec(argument), page_bytes=c.page_bytes),
        ),
        Step(
            "decompress",
            "unpack",
            "|".join(STEP_CODECS),
            "decompress the payload",
            _codec,
            lambda argument, c: Decompress(_codec(argument), page_bytes=c.page_bytes, max_expansion=c.max_expansion),
        ),
        Step("where", "rows", "SQL condition", "keep the rows for which it holds", partial(check, "where"), None),
        Step("select", "rows", "SQL select list", "project, rename, cast, compute", partial(check, "select"), None),
        Step("derive", "rows", "SQL select list", "add columns, keep the rest", partial(check, "derive"), None),
        Step(
            "enrich",
            "rows",
            "TABLE on col[=col] [add a, b] [missing null|drop|fail]",
            "add the columns of a lookup table, by key",
            parse_enrichment,
            _enrich,
            partial(join_phrase, words=ENRICH_WORDS),
        ),
        Step(
            "aggregate",
            "rows",
            "count(*) as n, sum(x) as sx [by a, b]",
            "group the whole stream; groups come in the order of their keys",
            partial(check, "aggregate"),
            None,
            partial(join_phrase, words=AGGREGATE_WORDS),
        ),
        Step(
            "window",
            "rows",
            "sum(x) as sx every 10s on ts [slide 5s] [late 2s] [by a], or … gap 30s on ts",
            "tumbling, sliding or session windows of event time, given as the watermark passes",
            parse_windows,
            _window,
            partial(join_phrase, words=WINDOW_WORDS),
        ),
        Step("distinct", "rows", "[columns]", "the first row of each key", partial(check, "distinct"), None),
        Step("sql", "rows", "SELECT … FROM input", "the general case", partial(check, "sql"), None),
        Step("limit", "records", "number", "keep the first", parse_count, lambda a, c: Limit(parse_count(a))),
        Step("offset", "records", "number", "leave the first out", parse_count, lambda a, c: Offset(parse_count(a))),
        Step(
            "sample",
            "records",
            "share (0.01 or 1%)",
            "keep a share, the same ones each time",
            parse_share,
            lambda a, c: Sample(parse_share(a)),
        ),
    )
}


def find_step(name: str) -> Step:
    """The step called ``name``; ``unknown_step`` that lists them all otherwise."""
    try:
        return STEPS[name]
    except KeyError:
        raise Refusal("unknown_step", f"{name[:80]!r} is not a step; known are {known(STEPS)}") from None
