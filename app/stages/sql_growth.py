"""How many times the bytes of a row may stand in what an expression makes of it, known before any data is there.

DuckDB does not count all that expressions make against its memory limit: ``a || a``, doubled again in twenty columns, took
3.6 GB under a limit of 64 MB. So a query is measured by its text, and one that could make a row too large is refused.
With literal patterns and replacements, and lambdas that see only their own element, what an expression makes is at most
some factor of the row (never its square), and the factors can be added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from app.stages.sql_clause import Clause, Level
from app.stages.sql_functions import (
    AGGREGATES,
    FACTORS,
    FIXED,
    FIXED_TYPES,
    HASHES,
    LAMBDAS,
    PICKS,
    REPEATS,
    WHOLE_PICKS,
)
from app.stages.sql_parser import Node, literal, walk

Size = Mapping[str, float]
"""How many times each column stands in a value; ``*`` is every column, ``''`` counts bytes beside them."""

_MOST_GROWTH = 64.0
_MOST_BYTES = 64 * 1024
# Macros and names of the same select list are written out where they stand: nested, they double with each level.
_MOST_EXPRESSIONS = 5000
_STAR_EXPRESSIONS = 100
_VALUE_BYTES = 16
"""A number or a time; as a text, or a hash, it has up to four times as many."""


@dataclass(frozen=True)
class Growth:
    """What a query makes of each row at most: the result is ``row`` times the row and ``row_bytes`` bytes, and all that
    is made on the way is ``work`` times the row."""

    row: float
    row_bytes: float
    work: float


def growth(clauses: Sequence[Clause]) -> Growth:
    """What ``clauses`` make of a row, one after the other. Raises ``bad_sql`` where that is too much."""
    row: Size = {"*": 1}
    columns: Mapping[str, Size] = {}
    work = 0.0
    for clause, select in ((each, level) for each in clauses for level in each.levels):
        level = _Level(clause, select, row, columns)
        nodes = (*select.entries, *select.others)
        costs = [level.entry(node) for node in nodes]
        work += sum(cost.work for cost in costs)
        if select.entries:
            made = (cost.size for cost in costs[: len(select.entries)])
            row = _total([row if select.keeps_columns else {}, *made])
            # Where a name is not known from the text, it may be that of any value.
            columns = level.columns if all(map(_is_named, select.entries)) else {"*": row}
        for cost, node in zip(costs, nodes, strict=True):
            if cost.expressions > _MOST_EXPRESSIONS:
                clause.refuse("this is too large once all that it repeats is written out", node)
        if max(work, _factor(row)) > _MOST_GROWTH or row.get("", 0) > _MOST_BYTES:
            worst = max(range(len(costs)), key=lambda index: costs[index].work + _factor(costs[index].size))
            times = max(work, _factor(row), row.get("", 0) / _MOST_BYTES * _MOST_GROWTH)
            detail = f"a row could become {times:.0f} times as large here, {_MOST_GROWTH:.0f} times is the most"
            clause.refuse(detail, nodes[worst])
    return Growth(_factor(row), row.get("", 0), work)


@dataclass(frozen=True)
class _Cost:
    """An expression: the size of its value, and the sizes and the number of all values that are made for it."""

    size: Size = field(default_factory=dict)
    work: float = 0.0
    expressions: int = 1


class _Level:
    """What one clause sees: the rows, the columns whose size is known, and the entries before each other one."""

    def __init__(self, clause: Clause, select: Level, row: Size, columns: Mapping[str, Size]) -> None:
        self.columns = dict(columns)
        self._clause = clause
        self._tables = select.tables
        self._row = row
        self._entries: dict[str, _Cost] = {}

    def entry(self, node: Node) -> _Cost:
        """An entry of the select list, or what stands behind it; those behind it may use its name."""
        cost = self._cost(node)
        name = str(node["alias"] or (node["column_names"][-1] if node["class"] == "COLUMN_REF" else "")).lower()
        self._entries[name] = cost
        self.columns[name] = cost.size
        return cost

    def _cost(self, node: Node, element: tuple[frozenset[str], Size] | None = None) -> _Cost:
        """Within a lambda, ``element`` are its parameters and the size of its list."""
        kind, type_ = node["class"], node["type"]
        if kind == "CONSTANT":
            return _Cost({"": len(node["literal"]["text"].encode())})
        if kind == "COLUMN_REF":
            return self._column(node, element)
        if kind == "FUNCTION" and node["function_name"] in LAMBDAS:
            return self._lambda(node, element)
        inside = [argument["expression"] for argument in node["arguments"]] if kind == "FUNCTION" else _parts(node)
        parts = [self._cost(part, element) for part in inside]
        sizes = [part.size for part in parts]
        repeats = 1
        if kind in ("COMPARISON", "CONJUNCTION", "BETWEEN") or type_.startswith(
            ("OPERATOR_NOT", "OPERATOR_IS", "COMPARE")
        ):
            size: Size = {"": 1}
        elif kind == "CASE" or type_ == "OPERATOR_COALESCE":
            size = _largest(sizes)
        elif kind == "CAST":
            is_fixed = node["type_expr"]["type_name"].lower() in FIXED_TYPES
            size = {"": _VALUE_BYTES} if is_fixed else _total([*sizes, {"": 4 * _VALUE_BYTES}])
        elif kind == "WINDOW" or (kind == "FUNCTION" and node["function_name"].lower() in AGGREGATES):
            size = _largest(sizes) if node["function_name"].lower() in WHOLE_PICKS else {"": _VALUE_BYTES}
        elif kind == "FUNCTION":
            size = _made_by(node, sizes)
            repeats = REPEATS.get(node["function_name"], 1)
        else:
            size = _total([*sizes, self._row if kind == "STAR" else {}])
        # A star refers to what is there; everything else makes a value.
        own_work, own = (0.0, _STAR_EXPRESSIONS) if kind == "STAR" else (_factor(size), 1)
        return _Cost(
            size,
            own_work + repeats * sum(part.work for part in parts),
            own + repeats * sum(part.expressions for part in parts),
        )

    def _column(self, node: Node, element: tuple[frozenset[str], Size] | None) -> _Cost:
        names = [str(name).lower() for name in node["column_names"]]
        if element is not None:
            parameters, size = element
            if names[0] not in parameters:
                detail = f"{names[0]} cannot be used in this lambda, only the parameters of the lambda itself"
                self._clause.refuse(detail, node)
            return _Cost(size)
        name = names[1] if names[0] in self._tables and len(names) > 1 else names[0]
        found = [self._row] if name in self._tables else []
        found.append(self.columns.get(name) or self.columns.get("*") or {name: 1})
        # An entry before this one and a column of the input may have the same name: either may be meant.
        entry = self._entries.get(name, _Cost())
        return _Cost(_largest([*found, entry.size]), entry.work, entry.expressions)

    def _lambda(self, node: Node, element: tuple[frozenset[str], Size] | None) -> _Cost:
        values, function = (argument["expression"] for argument in node["arguments"][:2])
        if function["class"] != "LAMBDA":
            self._clause.refuse(f"{node['function_name']} takes a list and a lambda: lambda x: …", node)
        over = self._cost(values, element)
        names = (part["column_names"][0].lower() for part in walk(function["lhs"]) if part["class"] == "COLUMN_REF")
        body = self._cost(function["expr"], (frozenset(names), over.size))
        size = over.size
        if not node["function_name"].endswith("filter"):
            # What the body adds to each element counts as often as there are elements, of 8 bytes or more each.
            size = _total([body.size, _times(over.size, body.size.get("", 0) / 8)])
        return _Cost(size, over.work + body.work + _factor(size), 1 + over.expressions + body.expressions)


def _made_by(node: Node, sizes: Sequence[Size]) -> Size:
    """What a function makes of arguments of ``sizes``."""
    name = node["function_name"]
    # The lengths of those arguments that are literals.
    lengths = [len((literal(argument["expression"]) or "").encode()) for argument in node["arguments"]]
    if name == "strftime":
        return {"": _VALUE_BYTES * (1 + lengths[-1])}
    if name in FIXED:
        return {"": _VALUE_BYTES * (4 if name in HASHES else 1)}
    factor = FACTORS[name]
    if name == "replace":
        factor = max(1.0, lengths[-1] / max(1, lengths[1]))
    elif name == "regexp_replace":
        factor = 1.0 + lengths[2]
    elif name in ("concat_ws", "array_to_string"):
        factor = 2.0 + max(lengths[0], lengths[-1]) / 8
    return _times(_total(sizes[:1] if name in PICKS else sizes), factor)


def _parts(node: Node) -> list[Node]:
    """The expressions that ``node`` is made of, but for types."""
    found: list[Node] = []
    waiting = list(node.values())
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict) and "class" in here:
            found += [here] if here["class"] != "TYPE" else []
        elif isinstance(here, dict | list):
            waiting += here.values() if isinstance(here, dict) else here
    return found


def _is_named(node: Node) -> bool:
    """The names of the columns that an entry of the select list makes are in the text, or those of the input."""
    if node["class"] == "STAR":
        return not (node["columns"] or node["expr"] or node["replace_list"] or node["rename_list"])
    has_star = any(part["class"] == "STAR" for part in walk(node))
    return not has_star and bool(node["alias"] or node["class"] == "COLUMN_REF")


def _factor(size: Size) -> float:
    """How many rows ``size`` is at most: columns beside each other are one row."""
    return size.get("*", 0.0) + max((times for name, times in size.items() if name not in ("*", "")), default=0.0)


def _total(sizes: Iterable[Size]) -> Size:
    total: dict[str, float] = {}
    for size in sizes:
        for name, times in size.items():
            total[name] = total.get(name, 0.0) + times
    return total


def _largest(sizes: Iterable[Size]) -> Size:
    largest: dict[str, float] = {}
    for size in sizes:
        for name, times in size.items():
            largest[name] = max(largest.get(name, 0.0), times)
    return largest


def _times(size: Size, factor: float) -> Size:
    return {name: times * factor for name, times in size.items()}
