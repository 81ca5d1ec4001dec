"""Reads the argument of ``window``: ``sum(x) as sx, count(*) as n every 10s on ts [slide 5s] [late 2s] [by a, b]``.

Or ``… gap 30s on ts [late 2s] [by a, b]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from app.core.errors import Refusal
from app.core.units import parse_seconds
from app.stages.phrase import Part, split_phrase
from app.stages.sql_parser import Node, before, character, parse_tree

WORDS = ("select", "every", "gap", "on", "slide", "late", "by")
"""The parts of the argument."""
Function = Literal["count", "sum", "min", "max", "avg", "first", "last"]
_ALIASES = {"count_star": "count", "mean": "avg"}


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A column of the result: a function over ``column``, or over rows where that is None."""

    name: str
    function: Function
    column: str | None


@dataclass(frozen=True, slots=True)
class Windows:
    """What is asked for. Times are in seconds. A window begins at each multiple of ``slide_s`` (counted from 1970-01-01
    UTC) and is ``every_s`` long; or it is a session, and ends ``gap_s`` behind its last row, and then these are 0. The
    watermark is ``late_s`` behind the latest event."""

    aggregates: tuple[Aggregate, ...]
    every_s: float
    slide_s: float
    gap_s: float
    late_s: float
    on: str
    by: tuple[str, ...]


def parse(argument: str) -> Windows:
    """Raises ``bad_argument`` or ``bad_sql`` with the position."""
    parts = split_phrase(argument, WORDS)
    is_session = "gap" in parts
    for word in ("gap" if is_session else "every", "on"):
        if word not in parts:
            raise Refusal("bad_argument", f"the word {word!r} is missing: sum(x) as sx every 10s on ts", position=0)
    for word in ("every", "slide") if is_session else ():
        if word in parts:
            detail = f"gap makes sessions, and {word} windows of one length: say one of them"
            raise Refusal("bad_argument", detail, position=parts[word].position)
    gap_s = _seconds(parts["gap"], "gap") if is_session else 0.0
    every_s = 0.0 if is_session else _seconds(parts["every"], "every")
    slide_s = _seconds(parts["slide"], "slide") if "slide" in parts else every_s
    if slide_s > every_s:
        detail = "slide is longer than every: rows between two windows would be in none"
        raise Refusal("bad_argument", detail, position=parts["slide"].position)
    late_s = _seconds(parts["late"], "late", least=0.0) if "late" in parts else 0.0
    on = _columns(parts["on"])
    if len(on) > 1:
        raise Refusal("bad_argument", "on names one column, the time of the event", position=parts["on"].position)
    return Windows(
        aggregates=_aggregates(parts["select"]),
        every_s=every_s,
        slide_s=slide_s,
        gap_s=gap_s,
        late_s=late_s,
        on=on[0],
        by=_columns(parts["by"]) if "by" in parts else (),
    )


def _seconds(part: Part, word: str, least: float = 1e-9) -> float:
    try:
        seconds = parse_seconds(part.text)
    except ValueError:
        seconds = -1.0
    if seconds < least:
        raise Refusal("bad_argument", f"{word} {part.text[:80]!r} is no duration, such as 10s", position=part.position)
    return seconds


def _nodes(part: Part) -> list[Node]:
    try:
        tree = parse_tree("select", part.text)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.detail, position=part.position + (refusal.position or 0)) from None
    return list(tree.get("select_list", ()))


def _refuse(part: Part, node: Node, detail: str) -> Refusal:
    byte = int(node["query_location"]) - len(before("select"))
    return Refusal("bad_sql", detail, position=part.position + character(part.text, byte))


def _columns(part: Part) -> tuple[str, ...]:
    names = []
    for node in _nodes(part):
        if node["class"] != "COLUMN_REF" or len(node["column_names"]) != 1 or node["alias"]:
            raise _refuse(part, node, "this is no column; derive what is computed from columns first")
        names.append(str(node["column_names"][0]))
    return tuple(names)


def _aggregates(part: Part) -> tuple[Aggregate, ...]:
    found: list[Aggregate] = []
    for node in _nodes(part):
        name = str(node.get("function_name", "")).lower()
        function = _ALIASES.get(name, name)
        if node["class"] != "FUNCTION" or function not in get_args(Function):
            raise _refuse(part, node, f"this is none of {', '.join(get_args(Function))}: see aggregate for others")
        if node["distinct"] or node["filter"] or node["order_bys"]["orders"]:
            raise _refuse(part, node, f"DISTINCT, FILTER and ORDER BY cannot stand in {function}(…) of a window")
        arguments = [argument["expression"] for argument in node["arguments"]]
        column = None
        if arguments:
            if len(arguments) > 1 or arguments[0]["class"] != "COLUMN_REF" or len(arguments[0]["column_names"]) != 1:
                raise _refuse(part, node, f"{function} takes a column here: derive what is computed first")
            column = str(arguments[0]["column_names"][0])
        elif function != "count":
            raise _refuse(part, node, f"{function} takes a column")
        alias = str(node["alias"]) or (f"{function}({column})" if column else "count(*)")
        if alias.lower() in {other.name.lower() for other in found}:
            raise _refuse(part, node, f"a column called {alias!r} is there already; give another name with AS")
        found.append(Aggregate(alias, function, column))  # type: ignore[arg-type]
    return tuple(found)
