"""Planned steps become stages, in the order written: on bytes and lines, and on rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import cast

from app.core.errors import Refusal
from app.core.interfaces import Operator, Stage
from app.framing import Format
from app.framing.charset import Transcode
from app.framing.lines import reader as line_reader
from app.plan.plan import PlannedStep
from app.stages import StageContext
from app.stages.distinct import Distinct
from app.stages.sort import Sort
from app.stages.sql import Query
from app.stages.sql_clause import Clause
from app.stages.sql_distinct import Apart, apart
from app.stages.sql_engine import QueryOptions
from app.stages.sql_levels import levels
from app.stages.sql_ordering import Ordering, ordering
from app.stages.sql_rows import RowQuery, is_row_query
from app.stages.sql_text import parse
from app.stages.sql_totals import GroupColumns, Grouped, GroupTotals


def around_rows(
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


def plain_stages(
    steps: Sequence[PlannedStep],
    format: Format,
    context: StageContext,
    *,
    max_line_bytes: int,
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
            stages.append(Transcode(charset, page_bytes=context.page_bytes))
        step = planned.step
        if step.takes in ("text", "lines", "records") and (packed or not format.text):
            what = "compressed data" if packed else format.name
            raise Refusal("bad_pipeline", f"{step.name} would damage {what}: it works on text")
        if step.takes == "records" and format.kind == "bytes":
            raise Refusal("bad_pipeline", f"{step.name} counts records and bytes have none: say from=lines, csv, …")
        if step.takes in ("lines", "records") and not in_lines:
            stages += line_reader(page_bytes=context.page_bytes, max_line_bytes=max_line_bytes)
            in_lines = True
        if step.takes in ("pack", "unpack"):
            in_lines = False
            packed = step.takes == "pack"
        stages.append(cast("Callable[[str, StageContext], Stage | Operator]", step.make)(planned.argument, context))
    if len(steps) == unpacked_at and charset is not None:
        stages.append(Transcode(charset, page_bytes=context.page_bytes))
    return stages


def row_stages(steps: Sequence[PlannedStep], context: StageContext, query: QueryOptions) -> list[Stage | Operator]:
    """Steps on rows, with neighbouring SQL steps fused: those that come first and that workers can do, one that groups,
    sorts or tells apart what these give, and the others."""
    stages: list[Stage | Operator] = []
    clauses: list[tuple[str, str]] = []

    def close_query() -> None:
        while clauses:
            on_workers = list(takewhile(lambda clause: is_row_query([clause]), clauses))
            del clauses[: len(on_workers)]
            if on_workers:
                stages.append(RowQuery(on_workers, page_bytes=context.page_bytes))
            if not clauses:
                return
            clause = parse(*clauses[0])
            if (grouping := levels(clause)) is not None:
                grouped = Grouped(grouping)
                stages.append(GroupColumns(grouped, page_bytes=context.page_bytes))
                stages.append(GroupTotals(grouped, page_bytes=context.page_bytes))
                stages.append(Query(clauses[:1], query, before=on_workers, grouped=grouped))
                del clauses[:1]
            elif (found := apart(clause) or ordering(clause)) is not None:
                stages.extend(_taken_apart(found, query, on_workers))
                del clauses[:1]
            elif clause.kind == "distinct":
                stages.append(Distinct(clause, query))
                del clauses[:1]
            else:
                together = list(takewhile(lambda clause: clause[0] != "distinct", clauses))
                stages.append(Query(together, query, before=on_workers))
                del clauses[: len(together)]

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


def _taken_apart(
    found: Apart | Ordering | Clause, options: QueryOptions, before: Sequence[tuple[str, str]]
) -> Iterator[Stage | Operator]:
    """A query without what needs all of its rows, and that behind it; the clauses ``before`` are done before it."""
    if isinstance(found, Apart):
        yield from _taken_apart(found.rows, options, before)
        yield Distinct(found.distinct, options)
        if found.behind is not None:
            yield from _taken_apart(found.behind, options, ())
    elif isinstance(found, Ordering):
        yield Query((), options, before=before, changed=found.rows)
        yield Sort(options, skip=found.skip, count=found.count)
    else:
        yield Query((), options, before=before, changed=found)
