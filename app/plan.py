"""A user's words become a plan, and a plan becomes stages. All name look-ups live here and in the two catalogues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import yaml

from app.core.errors import Refusal, known
from app.core.interfaces import KeepsLength, Modest, Operator, RandomAccess, Stage
from app.core.page import Page, Reject
from app.core.segment import split, worst_case_bytes
from app.framing import (
    COMPRESSIONS,
    FORMATS,
    READABLE,
    Format,
    ReadOptions,
    WriteOptions,
    find_format,
    format_of_file_name,
    format_of_media_type,
    sniff,
)
from app.framing.charset import Transcode, find_charset
from app.framing.codecs import CODEC_ALIASES
from app.framing.compression import CONTENT_CODINGS, Compress, Decompress
from app.framing.dialect import DIALECT_WORDS, READING_WORDS, check_reading, check_words_fit
from app.framing.lines import LineCut
from app.framing.lines import reader as line_reader
from app.framing.needs import PassedOver
from app.framing.schema import parse_types
from app.framing.survey import first_pass_bytes, two_passes
from app.framing.table_cut import TableCut
from app.stages import STEPS, StageContext, Step, find_step
from app.stages.enrich import Enrichment
from app.stages.enrich import parse as parse_enrichment
from app.stages.lookup import Lookup
from app.stages.needs import needs
from app.stages.sql import Query, QueryOptions, is_whole
from app.stages.tolerance import Tolerance
from app.stages.window import Window
from app.stages.window_sessions import SessionWindow

__all__ = [
    "CODEC_ALIASES",
    "CONTENT_CODINGS",
    "FORMATS",
    "ON_ERROR",
    "READABLE",
    "STEPS",
    "WORDS",
    "BuildOptions",
    "Built",
    "Format",
    "Plan",
    "PlannedStep",
    "build",
    "check_reading",
    "find_format",
    "format_of_file_name",
    "format_of_media_type",
    "items_of_document",
    "plan_of_document",
    "plan_of_query",
    "plan_of_text",
    "sniff",
    "with_pipeline",
]

OnError = Literal["fail", "skip", "quarantine"]
ON_ERROR = ("fail", "skip", "quarantine")
WORDS = (
    *("from", "to", "pipeline", *READING_WORDS, "types", "compression"),
    *("on_error", "max_errors", "deliver", "sink", "overwrite"),
)
"""What may stand beside steps, in a URL as in a document."""


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


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the server gives to every build. ``whole_bytes``: see ``ReadOptions``; ``query`` is for the SQL engine.
    ``source_page_bytes``: what pages of the source may have, where that is more than ``page_bytes``."""

    page_bytes: int
    max_line_bytes: int
    max_expansion: float
    whole_bytes: int
    query: QueryOptions
    source_page_bytes: int = 0

    def halved(self) -> BuildOptions:
        """These with pages of half the size, the source's excepted."""
        half = self.page_bytes // 2
        source_page_bytes = max(self.source_page_bytes, self.page_bytes)
        return replace(self, page_bytes=half, query=self.query.of_pages(half), source_page_bytes=source_page_bytes)


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for one run: ``nbytes``, for stages that ``lanes`` and ``high_water_bytes`` (see ``FlowOptions``) are
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

    def least_bytes(self, room: Room) -> int:
        """The worst case, once what is modest has spared what it can; without source and sink."""
        worst_bytes = worst_case_bytes(
            split(self.stages),
            page_bytes=self.page_bytes,
            high_water_bytes=max(room.high_water_bytes, self.page_bytes),
            lanes=room.lanes,
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
        """What its queries had on disk at the most."""
        return sum(stage.spilled_bytes for stage in self.stages if isinstance(stage, Query))

    @property
    def keeps_length(self) -> bool:
        """The result has as many bytes as the body."""
        return self.read_file is None and all(isinstance(stage, KeepsLength) for stage in self.stages)


def plan_of_query(items: Sequence[tuple[str, str]]) -> Plan:
    """The plan that URL parameters spell: steps in the order written, the other words anywhere, once each."""
    words: dict[str, str] = {}
    steps: list[PlannedStep] = []
    for name, value in items:
        if name in WORDS:
            if name in words:
                raise Refusal("bad_pipeline", f"the parameter {name!r} stands there twice")
            words[name] = value
        elif name in STEPS:
            steps.append(_planned(name, value))
        else:
            raise Refusal(
                "unknown_parameter",
                f"{name[:80]!r} is neither a parameter ({known(WORDS)}) nor a step ({known(STEPS)})",
            )
    return _plan(words, steps)


def plan_of_document(document: object) -> Plan:
    """The plan that a document spells: ``{"from": …, "to": …, "steps": [{"where": "…"}, "upper", …]}``."""
    if isinstance(document, dict) and "pipeline" in document:
        raise Refusal("unknown_parameter", "a pipeline document cannot name another pipeline")
    return plan_of_query(items_of_document(document))


def items_of_document(document: object) -> list[tuple[str, str]]:
    """A document as the URL parameters that spell the same."""
    if not isinstance(document, dict):
        raise Refusal("bad_pipeline", "a pipeline document is an object with from, to and steps")
    items: list[tuple[str, str]] = []
    for key, value in document.items():
        if key == "steps":
            continue
        if key not in WORDS:
            raise Refusal("unknown_parameter", f"{str(key)[:80]!r} is not one of {known(WORDS)}, steps")
        if key in ("overwrite", "header") and isinstance(value, bool):
            value = str(value).lower()
        if key == "null" and isinstance(value, list):
            value = ",".join(_scalar(key, spelling) for spelling in value)
        items.append((key, _types_text(value) if key == "types" else _scalar(key, value)))
    listed = document.get("steps", [])
    if not isinstance(listed, list):
        raise Refusal("bad_pipeline", "steps is a list of {step: argument}")
    steps = [_step_of_document(entry) for entry in listed]
    for name, _ in steps:
        find_step(name)
    return [*items, *steps]


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


def plan_of_text(text: str, name: str) -> Plan:
    """The plan in the text of a YAML or JSON document (JSON is YAML); ``name`` is for the refusal."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refusal("bad_pipeline", f"the pipeline {name[:80]} cannot be read: {error}") from error
    return plan_of_document(document)


def build_within(room: Room, options: BuildOptions, make: Callable[[BuildOptions], Built]) -> Built:
    """What ``make`` (``build``, with all but the options) gives; with smaller pages, where those of ``options`` would take
    more than three quarters of ``room`` (the rest is for source and sink) and smaller ones can be made."""
    while True:
        built = make(options)
        if (
            not built.cuts
            or options.page_bytes < 2 * _LEAST_PAGE_BYTES
            or built.least_bytes(room) <= room.nbytes * 3 // 4
        ):
            return built
        options = options.halved()


def build(
    plan: Plan,
    options: BuildOptions,
    *,
    decode: Sequence[str] = (),
    encode: str | None = None,
    keep: Callable[[Sequence[Reject]], None] | None = None,
    lookups: Mapping[str, Lookup] | None = None,
) -> Built:
    """The stages of ``plan``, whose formats are known by now.

    ``decode`` are the content codings of the body, outermost first; ``encode`` is one to put on the result; ``keep``
    takes quarantined rejects; ``lookups`` are the plan's. Raises refusals for steps that do not fit the formats.
    """
    source, target = plan.source, plan.target
    assert source is not None
    assert target is not None
    if not (source.read or source.read_file):
        hint = "; send an object a line, as ndjson" if source.name == "json" else ""
        raise Refusal("unknown_format", f"{source.name} can only be written{hint}; readable are {known(READABLE)}")
    check_words_fit(plan.reading, source.name, source.words)
    keep = keep if plan.on_error == "quarantine" else None
    has_header = source.name in ("csv", "tsv") and plan.reading.get("header") != "false"
    context = StageContext(
        options.page_bytes, options.max_expansion, has_header, lookups or {}, keep, tolerant=plan.on_error != "fail"
    )
    encoders: list[Stage | Operator] = [Compress(encode, page_bytes=options.page_bytes)] if encode else []
    packed = next((p.argument for p in reversed(plan.steps) if p.step.takes in ("pack", "unpack")), None)
    last_pack = next((p.step.takes for p in reversed(plan.steps) if p.step.takes in ("pack", "unpack")), None)
    media_type = _MEDIA_TYPE_OF_CODEC[packed] if packed and last_pack == "pack" else target.media_types[0]
    if plan.judges_rows and source.kind != "rows":
        raise Refusal("bad_pipeline", f"types, on_error and max_errors are about rows, and {source.name} has none")
    if plan.compression is not None and target.name != "parquet":
        raise Refusal("bad_pipeline", f"compression is about parquet, and the result is {target.name}: use compress=")
    if not plan.needs_rows:
        stages = (
            _decoders(decode, options) + _plain_stages(plan.steps, source, options, context, plan.charset) + encoders
        )
        page_bytes = options.page_bytes
        return Built(tuple(stages), target, media_type, page_bytes, page_bytes, 0, None, None, None, PassedOver())

    before, between, after = _around_rows(plan.steps, source, target)
    if any(is_whole(planned.step.name, planned.argument) for planned in between) and not before and not decode:
        # What such a step remembers needs the room more than pages do. The reader cuts them down.
        options = options.halved()
        context = replace(context, page_bytes=options.page_bytes)
    tolerance = Tolerance(plan.on_error, plan.max_errors, keep)
    passed_over = PassedOver()
    read_options = ReadOptions(
        options.page_bytes,
        options.max_line_bytes,
        options.whole_bytes,
        plan.types,
        needs=needs([(planned.step.name, planned.argument) for planned in between]),
        passed_over=passed_over,
        reading=plan.reading,
    )
    if source.kind != "rows" or target.kind != "rows":
        raise Refusal("bad_pipeline", f"{source.name} to {target.name} needs rows on both sides: {known(_ROWS)}")
    intake = _decoders(decode, options) + _plain_stages(before, source, options, context, plan.charset)
    read_file: Callable[[RandomAccess], Iterator[Page]] | None = None
    outside_bytes = 0
    if source.read_file is not None and intake:
        raise Refusal(
            "unsupported_type",
            f"{source.name} is compressed inside and is read from its end: send it as it is, without"
            " Content-Encoding or steps on its bytes",
        )
    if source.read_file is not None:
        read_file = _reading(source.read_file, read_options)
        outside_bytes = options.whole_bytes
    if source.survey is not None and plan.reading.get("infer") == "full":
        again = _decoders(decode, options) + _plain_stages(before, source, options, context, plan.charset)
        *cut, survey = source.survey(read_options)
        first_pass = cast("list[Stage]", [*again, *cut, survey])
        read_options = replace(read_options, survey=survey)
        read_file = partial(two_passes, first_pass=first_pass, page_bytes=options.page_bytes)
        outside_bytes = first_pass_bytes(first_pass, 2 * options.page_bytes)
    reader: list[Stage | Operator] = [*source.read(read_options)] if source.read is not None else []
    head = [*intake, *reader, tolerance]
    rows = _row_stages(between, options, context)
    assert target.write is not None
    writer: list[Stage | Operator] = [*target.write(WriteOptions(options.page_bytes, plan.compression or "snappy"))]
    tail = _plain_stages(after, target, options, context) + encoders
    return Built(
        stages=(*head, *rows, *writer, *tail),
        target=target,
        media_type=media_type,
        page_bytes=2 * options.page_bytes,
        source_page_bytes=max(options.source_page_bytes, options.page_bytes),
        outside_bytes=outside_bytes,
        read_file=read_file,
        rows_in=len(head) - 1,
        rows_out=len(head) + len(rows),
        passed_over=passed_over,
        cuts=read_file is not None or isinstance(head[0], TableCut | LineCut | Decompress),
    )


_LEAST_PAGE_BYTES = 64 * 1024
_MEDIA_TYPE_OF_CODEC = {"gzip": "application/gzip", "zstd": "application/zstd", "lz4": "application/x-lz4"}
_ROWS = ("csv", "tsv", "ndjson", "json", "arrow", "parquet")


def _reading(
    read: Callable[[RandomAccess, ReadOptions], Iterator[Page]], options: ReadOptions
) -> Callable[[RandomAccess], Iterator[Page]]:
    return lambda input: read(input, options)


def _decoders(codings: Sequence[str], options: BuildOptions) -> list[Stage | Operator]:
    return [
        Decompress(coding, page_bytes=options.page_bytes, max_expansion=options.max_expansion) for coding in codings
    ]


def _plain_stages(
    steps: Sequence[PlannedStep],
    format: Format,
    options: BuildOptions,
    context: StageContext,
    charset: str | None = None,
) -> list[Stage | Operator]:
    """Steps on bytes and lines, with the cutting into lines put where a step needs it. Text in a ``charset`` becomes
    UTF-8 once it is unpacked."""
    stages: list[Stage | Operator] = []
    in_lines = False
    packed = False
    unpacked_at = max((index + 1 for index, planned in enumerate(steps) if planned.step.takes == "unpack"), default=0)
    for index, planned in enumerate(steps):
        if index == unpacked_at and charset is not None:
            stages.append(Transcode(charset, page_bytes=options.page_bytes))
        step = planned.step
        if step.takes in ("text", "lines", "records") and (packed or not format.text):
            what = "compressed data" if packed else format.name
            raise Refusal("bad_pipeline", f"{step.name} would damage {what}: it works on text")
        if step.takes == "records" and format.kind == "bytes":
            raise Refusal("bad_pipeline", f"{step.name} counts records and bytes have none: say from=lines, csv, …")
        if step.takes in ("lines", "records") and not in_lines:
            stages += line_reader(page_bytes=options.page_bytes, max_line_bytes=options.max_line_bytes)
            in_lines = True
        if step.takes in ("pack", "unpack"):
            in_lines = False
            packed = step.takes == "pack"
        stages.append(cast("Callable[[str, StageContext], Stage | Operator]", step.make)(planned.argument, context))
    if len(steps) == unpacked_at and charset is not None:
        stages.append(Transcode(charset, page_bytes=options.page_bytes))
    return stages


def _row_stages(steps: Sequence[PlannedStep], options: BuildOptions, context: StageContext) -> list[Stage | Operator]:
    """Steps on rows, with neighbouring SQL steps fused into one query."""
    stages: list[Stage | Operator] = []
    clauses: list[tuple[str, str]] = []

    def close_query() -> None:
        if clauses:
            stages.append(Query(tuple(clauses), options.query))
            clauses.clear()

    for planned in steps:
        if planned.step.make is None:
            if planned.step.name == "sql":  # it reads the table that the input is, not a query
                close_query()
            clauses.append((planned.step.name, planned.argument))
            continue
        close_query()
        stages.append(planned.step.make(planned.argument, context))
    close_query()
    return stages


def _around_rows(
    steps: Sequence[PlannedStep], source: Format, target: Format
) -> tuple[list[PlannedStep], list[PlannedStep], list[PlannedStep]]:
    """Steps on the input's bytes, on rows, on the output's bytes.

    Where no step works on rows (a mere change of format), a step on text belongs to the input if that is text, and
    otherwise to the output; unpacking always belongs to the input, packing to the output.
    """
    on_rows = [index for index, planned in enumerate(steps) if planned.step.takes in ("rows", "records")]
    if on_rows:
        first, last = on_rows[0], on_rows[-1] + 1
    else:
        first = next((i for i, p in enumerate(steps) if p.step.takes == "pack"), len(steps) if source.text else 0)
        unpacking = [i + 1 for i, p in enumerate(steps) if p.step.takes == "unpack"]
        first = last = max([first, *unpacking])
    before, between, after = list(steps[:first]), list(steps[first:last]), list(steps[last:])
    for planned in between:
        if planned.step.takes not in ("rows", "records"):
            raise Refusal(
                "bad_pipeline",
                f"{planned.step.name} works on text and cannot stand between steps on rows;"
                " put it before the first of them (on the input) or behind the last (on the output)",
            )
    for planned in before:
        if planned.step.takes == "pack":
            raise Refusal("bad_pipeline", "rows cannot be read from compressed data: put compress behind them")
    for planned in after:
        if planned.step.takes == "unpack":
            raise Refusal("bad_pipeline", f"decompress works on the input: put it first, before {steps[0].step.name}")
    return before, between, after


def _plan(words: Mapping[str, str], steps: Sequence[PlannedStep]) -> Plan:
    source = find_format(words["from"]) if words.get("from") else None
    target = find_format(words["to"]) if words.get("to") else None
    on_error = words.get("on_error", "fail")
    if on_error not in ON_ERROR:
        raise Refusal("bad_argument", f"on_error={on_error[:80]!r} is not one of {known(ON_ERROR)}")
    if words.get("compression", "none") not in COMPRESSIONS:
        raise Refusal("bad_argument", f"compression={words['compression'][:80]!r} is not one of {known(COMPRESSIONS)}")
    if words.get("deliver", "stream") not in ("stream", "whole"):
        raise Refusal("bad_argument", f"deliver={words['deliver'][:80]!r} is not one of stream, whole")
    if words.get("overwrite", "true") not in ("true", "false"):
        raise Refusal("bad_argument", f"overwrite={words['overwrite'][:80]!r} is not one of true, false")
    if words.get("sink") and words.get("deliver") == "whole":
        raise Refusal("bad_pipeline", "deliver=whole and sink= are two places for the result: say one of them")
    reading = {word: words[word] for word in READING_WORDS if word in words}
    check_reading(reading)
    return Plan(
        steps=tuple(steps),
        source=source,
        target=target,
        types=parse_types(words["types"]) if words.get("types") else {},
        reading=reading,
        compression=words.get("compression"),
        on_error=cast("OnError", on_error),
        max_errors=_max_errors(words["max_errors"]) if "max_errors" in words else None,
        whole=words.get("deliver") == "whole",
        pipeline=words.get("pipeline") or None,
        sink=words.get("sink") or None,
        overwrite=words.get("overwrite") != "false",
    )


def _planned(name: str, argument: str) -> PlannedStep:
    step = find_step(name)
    try:
        step.check(argument)
    except Refusal as refusal:
        refusal.detail = f"{name}: {refusal.detail}"
        raise
    return PlannedStep(step, argument)


def _step_of_document(entry: object) -> tuple[str, str]:
    if isinstance(entry, str):
        return entry, ""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise Refusal("bad_pipeline", "a step is a name, or an object with one key: {step: argument}")
    ((name, argument),) = entry.items()
    if isinstance(argument, dict):
        return name, _argument_of_words(str(name), argument)
    return name, _scalar(str(name), argument)


def _argument_of_words(name: str, words: Mapping[str, object]) -> str:
    """An argument that is an object, as the phrase it stands for; a list in it is what stands between commas."""
    step = find_step(name)
    if step.of_words is None:
        raise Refusal("bad_argument", f"{name}: its argument is a text")
    texts = {
        str(word): ", ".join(_scalar(name, entry) for entry in value)
        if isinstance(value, list)
        else _scalar(name, value)
        for word, value in words.items()
    }
    try:
        return step.of_words(texts)
    except Refusal as refusal:
        refusal.detail = f"{name}: {refusal.detail}"
        raise


def _scalar(name: str, value: object) -> str:
    if value is None or value is True:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise Refusal("bad_argument", f"{name}: its argument is a text or a number")


def _types_text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{column}:{type_name}" for column, type_name in value.items())
    return _scalar("types", value)


def _max_errors(text: str) -> int | float:
    """A count, or a share of all rows as a float below 1."""
    number = text.removesuffix("%").strip()
    try:
        if text.endswith("%") and 0 <= (share := float(number)) <= 100:
            return share / 100
        if number.isdecimal():
            return int(number)
    except ValueError:
        pass
    raise Refusal("bad_argument", f"max_errors={text[:80]!r} is neither a number of rows nor a percentage")
