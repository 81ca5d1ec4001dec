"""Whether an expression may stand in a step.

The text is not searched for bad words: everything in the tree that DuckDB's own parser makes of it must be on a list:
kinds of expression, functions, types.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from app.stages.sql_clause import Clause
from app.stages.sql_functions import AGGREGATES, ALLOWED, HOLDING_AGGREGATES, LITERAL_ARGUMENTS, TYPES, WINDOWS
from app.stages.sql_parser import Node, literal, walk

_EXPRESSIONS = frozenset(
    [
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "OPERATOR",
        "STAR",
        "TYPE",
    ]
)
_REFUSED_EXPRESSIONS = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by its number",
    "DEFAULT": "DEFAULT",
}
_LONGEST_ARRAY = 1024


def check_expression(clause: Clause, node: Node, *, aggregates: bool, windows: bool = False) -> None:
    """Raise ``bad_sql`` at ``node`` unless it is allowed; what it is made of is another call's business."""
    kind = node["class"]
    if kind == "WINDOW" and windows:
        _check_window(clause, node)
    elif kind not in _EXPRESSIONS:
        what = _REFUSED_EXPRESSIONS.get(kind, kind.lower().replace("_", " "))
        clause.refuse(f"{what} cannot stand here; use columns, literals, operators and functions of one row", node)
    if kind == "FUNCTION":
        _check_function(clause, node, aggregates)
    elif kind == "TYPE":
        _check_type(clause, node)
    elif kind == "LAMBDA" and node["syntax_type"] == "SINGLE_ARROW":
        _check_json_path(clause, "->", node["expr"])
    elif node["type"] == "GROUPING_FUNCTION" and not windows:
        clause.refuse("grouping() belongs to aggregation, which is not part of this step", node)


def check_alias(clause: Clause, node: Node) -> None:
    """A new name needs its AS: ``select=price+tax`` in a URL arrives as ``price tax``, which SQL reads as a new name."""
    alias = str(node["alias"])
    quoted = re.escape(alias.replace('"', '""'))
    if alias and not re.search(rf"\bas\s*\"?{quoted}\"?|\"?{quoted}\"?\s*:", clause.text, re.IGNORECASE):
        clause.refuse(f"write AS before the new name {alias} (in a URL, + is a space: write %2B)", node)


def is_aggregate(node: Node) -> bool:
    """``node`` is a call of an aggregate."""
    return node["class"] == "FUNCTION" and str(node["function_name"]).lower() in AGGREGATES


def suggest(name: str, known: Collection[str]) -> str:
    """A phrase that names the closest known name, or nothing."""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, 1, 0.7)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _check_function(clause: Clause, node: Node, aggregates: bool) -> None:
    path, arguments = node["qualified_name"]["path"], node["arguments"]
    name = str(path[-1])
    if len(path) > 1:
        clause.refuse(f"{'.'.join(path)}() names a schema; write {name}(…) with all arguments in parentheses", node)
    if name.lower() in HOLDING_AGGREGATES:
        _refuse_holding(clause, name, node)
    if name.lower() in AGGREGATES:
        if not aggregates:
            name = name.removesuffix("_star")
            clause.refuse(f"{name} is an aggregate; aggregation is not part of this step: use aggregate", node)
        if node["order_bys"]["orders"]:
            clause.refuse(f"ORDER BY cannot stand in {name}(…): it would hold all values; try arg_min or arg_max", node)
        return
    if name not in ALLOWED:
        clause.refuse(
            f"there is no function {name} here{suggest(name, ALLOWED | (AGGREGATES if aggregates else set()))}", node
        )
    if node["filter"] or node["distinct"] or node["order_bys"]["orders"]:
        clause.refuse(f"DISTINCT, ORDER BY and FILTER cannot stand in {name}(…): it is not an aggregate", node)
    which = LITERAL_ARGUMENTS.get(name, len(arguments))
    if which < len(arguments):
        argument = arguments[which]["expression"]
        if name.startswith("json") or name == "->>":
            _check_json_path(clause, name, argument)
        elif literal(argument) is None:
            clause.refuse(f"argument {which + 1} of {name} must be a literal here: any other could be too long", node)


def _check_window(clause: Clause, node: Node) -> None:
    path = node["qualified_name"]["path"]
    name = str(path[-1]).lower()
    if name in HOLDING_AGGREGATES:
        _refuse_holding(clause, name, node)
    if len(path) > 1 or name not in AGGREGATES | WINDOWS:
        clause.refuse(f"there is no window function {'.'.join(path)} here{suggest(name, AGGREGATES | WINDOWS)}", node)
    if node["arg_orders"]:
        clause.refuse(f"ORDER BY stands within OVER (…), not within {name}(…)", node)


def _refuse_holding(clause: Clause, name: str, node: Node) -> None:
    hint = "; approx_quantile does not" if "quantile" in name or name == "median" else ""
    clause.refuse(f"{name} would hold all values of a group, which no memory is set aside for{hint}", node)


def _check_json_path(clause: Clause, name: str, path: Node) -> None:
    # A recursive wildcard gives every part of a document, and every part of every part: the square of its size.
    text = literal(path)
    if text is None or ".." in text or "**" in text:
        clause.refuse(
            f"behind {name} must stand a literal path without '..' and '**'; use parentheses around both", path
        )


def _check_type(clause: Clause, node: Node) -> None:
    path = node["qualified_name"]["path"]
    name = str(path[-1]).lower()
    if len(path) > 1 or name not in TYPES:
        clause.refuse(f"there is no type {'.'.join(path)} here{suggest(name, TYPES)}", node)
    length = 1
    for array in walk(node if name == "array" else ()):
        if array["class"] == "TYPE" and array["type_name"] == "array":
            length *= int(literal(array["children"][1]) or _LONGEST_ARRAY + 1)
    if length > _LONGEST_ARRAY:
        clause.refuse(f"arrays have at most {_LONGEST_ARRAY} elements here; a list ([]) has any number", node)
