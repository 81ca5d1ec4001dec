"""A query that groups, taken apart: what it computes of each row, totals of these by group, and a query over the totals.

Of two totals of a group comes one by the same aggregate, or a sum; so rows may be added up in any number of parts, as in
"Adaptive Parallel Aggregation Algorithms" (A. Shatdal and J. Naughton, SIGMOD 1995).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.framing.needs import folded
from app.stages.groups import Kind
from app.stages.sql_clause import Clause
from app.stages.sql_expression import is_aggregate
from app.stages.sql_formula import Unfit, is_expressible
from app.stages.sql_parser import Node, open_parser, parse_tree
from app.stages.sql_types import quoted

KEY, ARGUMENT, TOTAL = "\ue00a", "\ue00b", "\ue00c"
"""Columns on the way, with their number behind: private characters, as no column has them for a name."""

_AGGREGATES = {"sum": "sum", "avg": "avg", "mean": "avg", "min": "min", "max": "max", "count": "count"}
_WHOLE = "CAST(coalesce({rows}, 0) AS BIGINT)"
_NOT_THE_SAME = ("query_location", "query_location_length", "alias")


@dataclass(frozen=True, slots=True)
class Levels:
    """``clause``, an ``aggregate`` or ``sql`` step, taken apart. ``keys`` and ``arguments`` are over the rows for which all
    ``conditions`` hold; ``totals`` are pairs of what is made, and of which argument, if any."""

    clause: Clause
    conditions: tuple[Node, ...]
    keys: tuple[Node, ...]
    arguments: tuple[Node, ...]
    totals: tuple[tuple[Kind, int | None], ...]
    _tree: Node

    def row_query(self) -> str:
        """The first part as SQL."""
        entries = [_named(node, f"{KEY}{i}") for i, node in enumerate(self.keys)]
        entries += [_named(node, f"{ARGUMENT}{i}") for i, node in enumerate(self.arguments)]
        tree = parse_tree("sql", "SELECT 0 FROM input")
        return _text(
            {**tree, "select_list": entries or tree["select_list"], "where_clause": self._tree["where_clause"]}
        )

    def total_query(self, names: Sequence[str], is_whole_number: Callable[[int], bool], *, merged: bool) -> str:
        """The last part as SQL, over keys and totals; ``names`` are those of its columns, and ``is_whole_number`` tells so
        of an argument. Groups that are ``merged`` come once each, and in the order of their keys."""
        keys = {_same(node): f"{KEY}{i}" for i, node in enumerate(self.keys)}
        known = {folded(node["alias"]) for node in self._tree["select_list"] if node["alias"]}
        totals = {text: self._total(node, is_whole_number, merged) for text, node in _aggregates(self._tree).items()}
        made = parse_tree("sql", f"SELECT {', '.join(totals.values()) or 0} FROM input")["select_list"]
        by_text = dict(zip(totals, made, strict=False))

        def rewritten(part: Any) -> Any:
            if isinstance(part, list):
                return [rewritten(one) for one in part]
            if not isinstance(part, dict):
                return part
            if "class" in part:
                text = _same(part)
                if text in keys:
                    return _named(_column(keys[text]), part["alias"])
                if text in by_text:
                    return _named(by_text[text], part["alias"])
                if part["class"] == "COLUMN_REF" and folded(part["column_names"][-1]) not in known:
                    raise Unfit
            return {word: rewritten(value) for word, value in part.items()}

        entries = rewritten(self._tree["select_list"])
        having = rewritten(self._tree["having"])
        groups = [] if merged else [_column(name) for name in keys.values()]
        modifiers = [one for one in self._tree["modifiers"] if not (merged and self._is_by_keys(one))]
        return _text(
            {
                **self._tree,
                "select_list": [_named(entry, name) for entry, name in zip(entries, names, strict=True)],
                "where_clause": having if merged else None,
                "group_expressions": groups,
                "group_sets": [list(range(len(groups)))] if groups else [],
                "having": None if merged else having,
                "modifiers": rewritten(modifiers),
            }
        )

    def _is_by_keys(self, modifier: Node) -> bool:
        """Whether it is the order that merged groups have anyway."""
        if modifier["type"] != "ORDER_MODIFIER" or len(modifier["orders"]) > len(self.keys):
            return False
        return all(
            order["type"] in ("ORDER_DEFAULT", "ASCENDING")
            and order["null_order"] in ("ORDER_DEFAULT", "NULLS LAST")
            and self._is_key(order["expression"], key)
            for order, key in zip(modifier["orders"], self.keys, strict=False)
        )

    def _is_key(self, node: Node, key: Node) -> bool:
        """Whether ``node``, as it stands behind ORDER BY, is ``key``."""
        entries = self._tree["select_list"]
        try:
            return _same(_key(node, entries)) == _same(key)
        except Unfit:
            return False

    def _total(self, node: Node, is_whole_number: Callable[[int], bool], merged: bool) -> str:
        """What makes the aggregate ``node`` of totals."""
        function, argument = _function(node), _argument(node)
        index = None if argument is None else [_same(one) for one in self.arguments].index(_same(argument))

        def column(kind: Kind) -> str:
            return quoted(f"{TOTAL}{self.totals.index((kind, index))}")

        def total(kind: Kind, function: str = "sum") -> str:
            return column(kind) if merged else f"{function}({column(kind)})"

        if index is None:
            return _WHOLE.format(rows=total("rows"))
        if function == "count":
            return _WHOLE.format(rows=total("valid"))
        if function == "min":
            return total("min", "min")
        if function == "max":
            return total("max", "max")
        if function == "sum":
            return f"CAST({total('sum')} AS HUGEINT)" if is_whole_number(index) else total("sum")
        return f"CAST({total('sum')} AS DOUBLE) / CAST({total('valid')} AS DOUBLE)"


def levels(clause: Clause) -> Levels | None:
    """``clause`` taken apart, if that can be done by its text alone: whether its types allow it depends on the input."""
    try:
        tree = _tree(clause)
        keys = tuple(_key(node, tree["select_list"]) for node in tree["group_expressions"])
        arguments: dict[str, Node] = {}
        totals: dict[tuple[Kind, int | None], None] = {}
        for node in _aggregates(tree).values():
            argument = _argument(node)
            index = None
            if argument is not None:
                text = _same(argument)
                arguments.setdefault(text, argument)
                index = list(arguments).index(text)
            totals.update(dict.fromkeys((kind, index) for kind in _totals(node)))
        conditions = (tree["where_clause"],) if tree["where_clause"] else ()
        if not all(map(is_expressible, (*conditions, *keys, *arguments.values()))):
            return None
    except Unfit:
        return None
    if not (keys or totals):
        return None
    return Levels(clause, conditions, keys, tuple(arguments.values()), tuple(totals), tree)


def _tree(clause: Clause) -> Node:
    """``clause`` as one SELECT over the input. Raises ``Unfit``."""
    if clause.kind == "aggregate":
        texts = ", ".join(text for _, text in clause.parts)
        numbers = [str(number + 1) for number in range(clause.keys)]
        groups = f" GROUP BY {', '.join(numbers)}" if numbers else ""
        order = f" ORDER BY {', '.join(f'{number} NULLS LAST' for number in numbers)}" if numbers else ""
        return parse_tree("sql", f"SELECT {texts} FROM input{groups}{order}")
    tree = clause.tree
    if tree is None or len(clause.levels) > 1 or tree["from_table"]["type"] != "BASE_TABLE":
        raise Unfit
    sets = tree["group_sets"]
    if tree["qualify"] or tree["aggregate_handling"] != "STANDARD_HANDLING":
        raise Unfit
    if sets and sets != [list(range(len(tree["group_expressions"])))]:
        raise Unfit
    return tree


def _key(node: Node, entries: Sequence[Node]) -> Node:
    """What rows are grouped by. Raises ``Unfit`` where a name may be that of an entry."""
    if node["class"] == "CONSTANT":
        place = node["literal"]
        if place["kind"] != "INTEGER" or not 0 < int(place["text"]) <= len(entries):
            raise Unfit
        return entries[int(place["text"]) - 1]
    if node["class"] == "COLUMN_REF":
        name = folded(node["column_names"][-1])
        if any(folded(entry["alias"]) == name and _same(entry) != _same(node) for entry in entries):
            raise Unfit
    return node


def _aggregates(tree: Node) -> dict[str, Node]:
    """The aggregates in a SELECT, each once, by what they are. Raises ``Unfit`` for what does not go in two levels."""
    found: dict[str, Node] = {}
    waiting: list[Any] = [tree["modifiers"], tree["having"], tree["select_list"]]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part[::-1]
        elif isinstance(part, dict):
            if part.get("class") in ("WINDOW", "STAR", "SUBQUERY", "LAMBDA"):
                raise Unfit
            if "class" in part and is_aggregate(part):
                _function(part)
                found[_same(part)] = part
            else:
                waiting += list(part.values())[::-1]
    return found


def _function(node: Node) -> str:
    name = str(node["function_name"]).lower()
    if node["distinct"] or node["filter"] or node["order_bys"]["orders"]:
        raise Unfit
    if name == "count_star":
        return "count"
    if name not in _AGGREGATES or len(node["arguments"]) != 1:
        raise Unfit
    return _AGGREGATES[name]


def _argument(node: Node) -> Node | None:
    """What is aggregated; None if it is rows."""
    if not node["arguments"]:
        return None
    argument: Node = node["arguments"][0]["expression"]
    return argument


def _totals(node: Node) -> tuple[Kind, ...]:
    function = _function(node)
    if _argument(node) is None:
        return ("rows",)
    by_function: Mapping[str, tuple[Kind, ...]] = {
        "count": ("valid",),
        "avg": ("sum", "valid"),
        "sum": ("sum",),
        "min": ("min",),
        "max": ("max",),
    }
    return by_function[function]


def _same(node: Any) -> str:
    """Equal for expressions that say the same."""

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(one) for one in part]
        if not isinstance(part, dict):
            return part
        kept = {word: plain(value) for word, value in part.items() if word not in _NOT_THE_SAME}
        if part.get("class") == "COLUMN_REF":
            kept["column_names"] = [folded(name).decode() for name in part["column_names"]]
        return kept

    return json.dumps(plain(node), sort_keys=True)


def _named(node: Node, alias: str) -> Node:
    return {**node, "alias": alias}


def _column(name: str) -> Node:
    place = {"query_location": 2**64 - 1, "query_location_length": 0}
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", **place, "column_names": [name]}


def _text(tree: Node) -> str:
    """``tree`` as SQL."""
    document = {"error": False, "statements": [{"node": tree, "named_param_map": []}]}
    with open_parser().cursor() as cursor:
        (text,) = cursor.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(document)]).fetchone() or ("",)
    return str(text)
