"""Reads the user's SQL: one condition or one select list, and nothing else.

The text is not searched for bad words: everything in the tree that DuckDB's own parser makes of it must be on a list:
kinds of expression, functions, types.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

from app.core.errors import Refusal
from app.stages.sql_functions import AGGREGATES, ALLOWED, LITERAL_ARGUMENTS, TYPES
from app.stages.sql_parser import Node, before, character, check_enclosed, literal, parse_tree, walk

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
_REFUSED_CLAUSES = {
    "WHERE": "use the where step",
    "GROUP BY": "aggregation is not part of this step",
    "HAVING": "aggregation is not part of this step",
    "QUALIFY": "window functions are not part of this step",
    "SAMPLE": "use the sample step",
    "DISTINCT": "this step keeps every row",
    "ORDER BY": "rows keep the order of the input",
    "LIMIT": "use the limit and offset steps",
}
_LONGEST_ARRAY = 1024


@dataclass(frozen=True)
class Clause:
    """A checked clause: its kind, the user's text, and the condition or the entries of the select list as trees."""

    kind: str
    text: str
    expressions: tuple[Node, ...]

    def refuse(self, detail: str, node: Node | None = None) -> NoReturn:
        """Raise ``bad_sql`` at ``node``, or at the beginning."""
        raise self.refusal(self.byte_of(node) if node is not None else 0, detail)

    def byte_of(self, node: Node) -> int:
        """Where ``node`` stands in the text, in bytes of UTF-8."""
        place = int(node["query_location"])
        # What stands for nothing in the text is placed at 2**64 - 1.
        return place - len(before(self.kind)) if place < 2**63 else 0

    def refusal(self, byte: int, detail: str) -> Refusal:
        """A ``bad_sql`` at an offset into the text in UTF-8."""
        return Refusal("bad_sql", detail, position=character(self.text, byte))


def parse(kind: str, text: str) -> Clause:
    """The clause ``kind`` ("where", "select", "derive") that ``text`` is. Raises ``bad_sql`` with the position."""
    tree = parse_tree(kind, text)
    is_condition = kind == "where" and tree["type"] == "SELECT_NODE"
    expressions = (tree["where_clause"],) if is_condition else tuple(tree.get("select_list", ()))
    clause = Clause(kind, text, expressions[kind == "derive" :])
    _check_shape(clause, tree)
    check_enclosed(kind, text)
    for expression in walk(clause.expressions):
        _check_expression(clause, expression)
    for expression in clause.expressions:
        _check_alias(clause, expression)
    return clause


def suggest(name: str, known: Collection[str]) -> str:
    """A phrase that names the closest known name, or nothing."""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, 1, 0.7)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _check_shape(clause: Clause, tree: Node) -> None:
    """Nothing stands beside the condition or the select list."""
    if tree["type"] != "SELECT_NODE":
        clause.refuse("UNION, INTERSECT and EXCEPT cannot stand here: the rows come from one input")
    found = {
        "WHERE": clause.kind != "where" and tree["where_clause"],
        "GROUP BY": tree["group_expressions"] or tree["aggregate_handling"] != "STANDARD_HANDLING",
        "HAVING": tree["having"],
        "QUALIFY": tree["qualify"],
        "SAMPLE": tree["sample"],
        **{
            modifier["type"].removesuffix("_MODIFIER").replace("ORDER", "ORDER BY"): 1 for modifier in tree["modifiers"]
        },
    }
    for word in (word for word, present in found.items() if present):
        places = [match.start() for match in re.finditer(word[:5], clause.text, re.IGNORECASE)]
        detail = f"{word} cannot stand here; {_REFUSED_CLAUSES.get(word, 'this step works row by row')}"
        raise Refusal("bad_sql", detail, position=places[-1] if places else 0)
    table = tree["from_table"]
    if table["type"] != "BASE_TABLE" or table["qualified_name"]["path"] != ["input"] or tree["cte_map"]["map"]:
        clause.refuse("the rows come from the input, nothing else can be read here")
    if not clause.expressions:
        clause.refuse("it must be a list of columns and expressions, and nothing else")


def _check_expression(clause: Clause, node: Node) -> None:
    kind = node["class"]
    if kind not in _EXPRESSIONS:
        what = _REFUSED_EXPRESSIONS.get(kind, kind.lower().replace("_", " "))
        clause.refuse(f"{what} cannot stand here; use columns, literals, operators and functions of one row", node)
    if kind == "FUNCTION":
        _check_function(clause, node)
    elif kind == "TYPE":
        _check_type(clause, node)
    elif kind == "LAMBDA" and node["syntax_type"] == "SINGLE_ARROW":
        _check_json_path(clause, "->", node["expr"])
    elif node["type"] == "GROUPING_FUNCTION":
        clause.refuse("grouping() belongs to aggregation, which is not part of this step", node)


def _check_function(clause: Clause, node: Node) -> None:
    path, arguments = node["qualified_name"]["path"], node["arguments"]
    name = str(path[-1])
    if len(path) > 1:
        clause.refuse(f"{'.'.join(path)}() names a schema; write {name}(…) with all arguments in parentheses", node)
    if name.lower() in AGGREGATES:
        name = name.removesuffix("_star")
        clause.refuse(f"{name} is an aggregate; aggregation is not part of this step, which works row by row", node)
    if name not in ALLOWED:
        clause.refuse(f"there is no function {name} here{suggest(name, ALLOWED)}", node)
    if node["filter"] or node["distinct"] or node["order_bys"]["orders"]:
        clause.refuse(f"DISTINCT, ORDER BY and FILTER cannot stand in {name}(…): it is not an aggregate", node)
    which = LITERAL_ARGUMENTS.get(name, len(arguments))
    if which < len(arguments):
        argument = arguments[which]["expression"]
        if name.startswith("json") or name == "->>":
            _check_json_path(clause, name, argument)
        elif literal(argument) is None:
            clause.refuse(f"argument {which + 1} of {name} must be a literal here: any other could be too long", node)


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


def _check_alias(clause: Clause, node: Node) -> None:
    """A new name needs its AS: ``select=price+tax`` in a URL arrives as ``price tax``, which SQL reads as a new name."""
    alias = str(node["alias"])
    quoted = re.escape(alias.replace('"', '""'))
    if alias and not re.search(rf"\bas\s*\"?{quoted}\"?|\"?{quoted}\"?\s*:", clause.text, re.IGNORECASE):
        clause.refuse(f"write AS before the new name {alias} (in a URL, + is a space: write %2B)", node)
