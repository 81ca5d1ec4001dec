"""Reads the user's SQL: one condition, one select list, what to group by; and nothing beside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from app.core.errors import Refusal
from app.stages.phrase import Part, split_phrase
from app.stages.sql_clause import Clause, Level
from app.stages.sql_expression import check_alias, check_expression, is_aggregate
from app.stages.sql_parser import Node, before, check_enclosed, parse_tree, walk
from app.stages.sql_query import parse_query

SQL_STEPS = ("where", "select", "derive", "aggregate", "distinct", "sql")
"""The steps that are read here."""

AGGREGATE_WORDS = ("select", "by")
"""The parts of an ``aggregate``: what is computed, and what it is grouped by."""

_REFUSED_CLAUSES = {
    "WHERE": "use the where step",
    "GROUP BY": "use the aggregate step",
    "HAVING": "use a where step behind an aggregate",
    "QUALIFY": "use the sql step",
    "SAMPLE": "use the sample step",
    "DISTINCT": "use the distinct step",
    "ORDER BY": "rows keep the order of the input; use the sql step",
    "LIMIT": "use the limit and offset steps",
}


def parse(kind: str, text: str) -> Clause:
    """The step ``kind`` ("where", "select", "derive", "aggregate", "distinct", "sql") whose argument ``text`` is.

    Raises ``bad_sql`` with the position.
    """
    if kind == "sql":
        return parse_query(text)
    if kind == "aggregate":
        return _aggregate(text)
    if kind == "distinct":
        return _distinct(text)
    nodes = _nodes(kind, text, Part(text, 0))
    level = Level((), tuple(nodes), True) if kind == "where" else Level(tuple(nodes), (), kind == "derive")
    clause = Clause(kind, text, (level,), ((0, text),))
    _check_all(clause, aggregates=False)
    return clause


def _aggregate(text: str) -> Clause:
    """``count(*) as n, sum(x) as sx [by a, b]``: the keys stand first in what comes out."""
    try:
        parts = split_phrase(text, AGGREGATE_WORDS)
    except Refusal as refusal:
        raise Refusal("bad_sql", refusal.detail, position=refusal.position) from None
    keys = _nodes("aggregate", text, parts["by"]) if "by" in parts else []
    made = _nodes("aggregate", text, parts["select"])
    places = tuple(
        (_bytes_before(text, part.position), part.text) for word in ("by", "select") if (part := parts.get(word))
    )
    clause = Clause("aggregate", text, (Level((*keys, *made)),), places, len(keys), is_whole=True)
    _check_all(clause, aggregates=True)
    for node in keys:
        if any(map(is_aggregate, walk(node))):
            clause.refuse("an aggregate stands before by; behind it stands what rows are grouped by", node)
        if any(part["class"] == "STAR" for part in walk(node)):
            clause.refuse("a star cannot stand behind by: name the columns", node)
    for node in made:
        if not any(map(is_aggregate, walk(node))):
            clause.refuse(
                "this is no aggregate, such as count(*) or sum(x); what rows are grouped by stands behind by", node
            )
    return clause


def _distinct(text: str) -> Clause:
    """``a, b``, or nothing for all columns."""
    nodes = _nodes("distinct", text, Part(text, 0)) if text.strip() else []
    clause = Clause("distinct", text, (Level((), tuple(nodes), keeps_columns=True),), (), is_whole=True)
    for node in nodes:
        if node["class"] != "COLUMN_REF" or node["alias"]:
            clause.refuse("distinct is about columns; derive what they are computed from first", node)
    return clause


def keyed(clause: Clause) -> Clause:
    """Of a ``distinct`` what gives each row a key, of which ``Distinct`` gives the first."""
    keys = clause.levels[0].others or parse("select", "*").entries
    return replace(clause, levels=(Level(keys, (), keeps_columns=True),), is_whole=False)


def _nodes(kind: str, text: str, part: Part) -> list[Node]:
    """The condition, or the entries of the select list, that a part of ``text`` is."""
    start = _bytes_before(text, part.position)
    try:
        tree = parse_tree(kind, part.text)
        relocate(tree, start - len(before(kind)))
        nodes = [tree["where_clause"]] if kind == "where" else list(tree.get("select_list", ()))
        nodes = nodes[kind == "derive" :]
        _check_shape(kind, part.text, tree, nodes)
        check_enclosed(kind, part.text)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.detail, position=part.position + (refusal.position or 0)) from None
    return nodes


def relocate(tree: Any, shift: int) -> None:
    """Add ``shift`` to where every node of ``tree`` stands."""
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if 0 <= (place := here.get("query_location", -1)) < 2**62:
                here["query_location"] = place + shift
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _check_all(clause: Clause, *, aggregates: bool) -> None:
    for expression in clause.expressions:
        check_expression(clause, expression, aggregates=aggregates)
    for entry in (*clause.entries, *clause.levels[0].others):
        check_alias(clause, entry)


def _check_shape(kind: str, text: str, tree: Node, nodes: list[Node]) -> None:
    """Nothing stands beside the condition or the select list."""
    if tree["type"] != "SELECT_NODE":
        raise Refusal(
            "bad_sql", "UNION, INTERSECT and EXCEPT cannot stand here: the rows come from one input", position=0
        )
    for word in _words_beside(kind, tree):
        places = [match.start() for match in re.finditer(word[:5], text, re.IGNORECASE)]
        detail = f"{word} cannot stand here; {_REFUSED_CLAUSES.get(word, 'this step works row by row')}"
        raise Refusal("bad_sql", detail, position=places[-1] if places else 0)
    table = tree["from_table"]
    if table["type"] != "BASE_TABLE" or table["qualified_name"]["path"] != ["input"] or tree["cte_map"]["map"]:
        raise Refusal("bad_sql", "the rows come from the input, nothing else can be read here", position=0)
    if not nodes:
        raise Refusal("bad_sql", "it must be a list of columns and expressions, and nothing else", position=0)


def _words_beside(kind: str, tree: Node) -> Iterator[str]:
    found = {
        "WHERE": kind != "where" and tree["where_clause"],
        "GROUP BY": tree["group_expressions"] or tree["aggregate_handling"] != "STANDARD_HANDLING",
        "HAVING": tree["having"],
        "QUALIFY": tree["qualify"],
        "SAMPLE": tree["sample"],
    }
    yield from (word for word, present in found.items() if present)
    for modifier in tree["modifiers"]:
        yield modifier["type"].removesuffix("_MODIFIER").replace("ORDER", "ORDER BY")


def _bytes_before(text: str, position: int) -> int:
    return len(text[:position].encode())
