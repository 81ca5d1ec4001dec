"""A plan becomes stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from app.core.errors import Refusal, known
from app.core.interfaces import Operator, RandomAccess, Stage
from app.core.page import Page, Reject
from app.framing import READABLE, ReadOptions, WriteOptions
from app.framing.compression import Compress, Decompress
from app.framing.dialect import check_words_fit
from app.framing.lines import LineCut
from app.framing.needs import PassedOver
from app.framing.survey import first_pass_bytes, two_passes
from app.framing.table_cut import TableCut
from app.plan.built import Allowance, Built
from app.plan.chain import around_rows, plain_stages, row_stages
from app.plan.plan import Plan
from app.stages import StageContext
from app.stages.lookup import Lookup
from app.stages.needs import needs
from app.stages.sql import Query, remembers_rows
from app.stages.sql_engine import QueryOptions
from app.stages.sql_rows import RowQuery
from app.stages.sql_totals import GroupColumns, GroupTotals
from app.stages.tolerance import Tolerance

_LEAST_PAGE_BYTES = 64 * 1024
_PAGE_STEP_BYTES = 16 * 1024
_MEDIA_TYPE_OF_CODEC = {"gzip": "application/gzip", "zstd": "application/zstd", "lz4": "application/x-lz4"}
_ROWS = ("csv", "tsv", "ndjson", "json", "arrow", "parquet")


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

    def of_pages(self, page_bytes: int) -> BuildOptions:
        """These with smaller pages, the source's excepted."""
        query = self.query.of_pages(page_bytes)
        source_page_bytes = max(self.source_page_bytes, self.page_bytes)
        return replace(self, page_bytes=page_bytes, query=query, source_page_bytes=source_page_bytes)


def build_within(allowance: Allowance, options: BuildOptions, make: Callable[[BuildOptions], Built]) -> Built:
    """What ``make`` (``build``, with all but the options) gives; with smaller pages, where those of ``options`` would take
    more than four fifths of ``allowance`` (the rest is for source and sink) and smaller ones can be made.

    They are made no smaller than need be: what a block costs beside its bytes, it costs anyway.
    """
    room_bytes = allowance.nbytes * 4 // 5
    before = 0, 0
    while True:
        built = make(options)
        now = options.page_bytes, built.least_bytes(allowance)
        if not built.cuts or options.page_bytes <= _LEAST_PAGE_BYTES or now[1] <= room_bytes:
            return built
        steps = _fitting_bytes(before, now, room_bytes) // _PAGE_STEP_BYTES
        options, before = options.of_pages(max(_LEAST_PAGE_BYTES, steps * _PAGE_STEP_BYTES)), now


def _fitting_bytes(one: tuple[int, int], other: tuple[int, int], room_bytes: int) -> int:
    """The size of pages at which ``room_bytes`` are taken, smaller than ``other``, by what two sizes take (the secant
    method)."""
    (one_bytes, one_least), (page_bytes, least_bytes) = one, other
    by_byte = (one_least - least_bytes) / (one_bytes - page_bytes)
    excess_bytes = least_bytes - room_bytes
    return page_bytes - max(_PAGE_STEP_BYTES, math.ceil(excess_bytes / by_byte) if by_byte > 0 else page_bytes // 8)


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
            _decoders(decode, options)
            + plain_stages(plan.steps, source, context, max_line_bytes=options.max_line_bytes, charset=plan.charset)
            + encoders
        )
        page_bytes = options.page_bytes
        return Built(tuple(stages), target, media_type, page_bytes, page_bytes, 0, None, None, None, PassedOver())

    before, between, after = around_rows(plan.steps, source, target)
    if any(remembers_rows(planned.step.name, planned.argument) for planned in between) and not before and not decode:
        # What such a step remembers needs the room more than pages do. The reader cuts them down.
        options = options.of_pages(options.page_bytes // 2)
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
    intake = _decoders(decode, options) + plain_stages(
        before, source, context, max_line_bytes=options.max_line_bytes, charset=plan.charset
    )
    read_file: Callable[[RandomAccess], Iterator[Page]] | None = None
    outside_bytes = 0
    if source.read_file is not None and intake:
        raise Refusal(
            "unsupported_type",
            f"{source.name} is compressed inside and is read from its end: send it as it is, without"
            " Content-Encoding or steps on its bytes",
        )
    rows = row_stages(between, context, options.query)
    if source.read_file is not None:
        read_options = replace(read_options, scan_grows=_scan_grows(rows))
        read_file = _reading(source.read_file, read_options)
        outside_bytes = options.whole_bytes
    if source.survey is not None and plan.reading.get("infer") == "full":
        again = _decoders(decode, options) + plain_stages(
            before, source, context, max_line_bytes=options.max_line_bytes, charset=plan.charset
        )
        *cut, survey = source.survey(read_options)
        first_pass = cast("list[Stage]", [*again, *cut, survey])
        read_options = replace(read_options, survey=survey)
        read_file = partial(two_passes, first_pass=first_pass, page_bytes=options.page_bytes)
        outside_bytes = first_pass_bytes(first_pass, 2 * options.page_bytes)
    reader: list[Stage | Operator] = [*source.read(read_options)] if source.read is not None else []
    head = [*intake, *reader, tolerance]
    assert target.write is not None
    writer: list[Stage | Operator] = [*target.write(WriteOptions(options.page_bytes, plan.compression or "snappy"))]
    tail = plain_stages(after, target, context, max_line_bytes=options.max_line_bytes) + encoders
    return Built(
        stages=(*head, *rows, *writer, *tail),
        target=target,
        media_type=media_type,
        page_bytes=2 * options.page_bytes,
        source_page_bytes=max(options.source_page_bytes, options.page_bytes)
        if read_file is None
        else 2 * options.page_bytes,
        outside_bytes=outside_bytes,
        read_file=read_file,
        rows_in=len(head) - 1,
        rows_out=len(head) + len(rows),
        passed_over=passed_over,
        cuts=read_file is not None or isinstance(head[0], TableCut | LineCut | Decompress),
    )


def _scan_grows(rows: Sequence[Stage | Operator]) -> float | None:
    """See ``ReadOptions``: of the query that the input comes to, before any step that is not part of it."""
    reader = next((stage for stage in rows if not isinstance(stage, RowQuery | GroupColumns | GroupTotals)), None)
    return reader.scan_grows if isinstance(reader, Query) else None


def _reading(
    read: Callable[[RandomAccess, ReadOptions], Iterator[Page]], options: ReadOptions
) -> Callable[[RandomAccess], Iterator[Page]]:
    return lambda input: read(input, options)


def _decoders(codings: Sequence[str], options: BuildOptions) -> list[Stage | Operator]:
    return [
        Decompress(coding, page_bytes=options.page_bytes, max_expansion=options.max_expansion) for coding in codings
    ]
