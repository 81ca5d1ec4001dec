"""What a chain of steps on rows needs of its input, by its text alone: columns, and conditions that come first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from app.framing.needs import Comparison, Condition, Constant, ConstantKind, Needs, Path, folded
from app.stages.enrich import Enrichment
from app.stages.enrich import parse as parse_enrichment
from app.stages.sql_clause import Clause
from app.stages.sql_functions import LAMBDAS
from app.stages.sql_parser import Node, literal
from app.stages.sql_text import SQL_STEPS, parse
from app.stages.window_text import Windows
from app.stages.window_text import parse as parse_windows

_COMPARISONS: Mapping[str, tuple[Comparison, Comparison]] = {
    "COMPARE_EQUAL": ("=", "="),
    "COMPARE_LESSTHAN": ("<", ">"),
    "COMPARE_GREATERTHAN": (">", "<"),
    "COMPARE_LESSTHANOREQUALTO": ("<=", ">="),
    "COMPARE_GREATERTHANOREQUALTO": (">=", "<="),
}
"""How a column compares with a constant behind it, and before it."""
_CONSTANTS: Mapping[str, ConstantKind] = {"INTEGER": "integer", "STRING": "string"}
_CASTS: Mapping[str, ConstantKind] = {"date": "date", "timestamp": "timestamp"}
_COUNT_ROWS = ("limit", "offset", "sample")


def needs(steps: Sequence[tuple[str, str]]) -> Needs:
    """What ``steps``, pairs of a name and an argument, need of the rows that come to the first of them.

    Everything, unless a ``select`` without a star bounds it. Conditions are those of ``where`` steps that no step comes
    before which counts rows or computes.
    """
    seen = _Seen()
    for name, argument in steps:
        if name in _COUNT_ROWS:
            seen.conditions_end = True
        elif name in SQL_STEPS:
            seen.take(parse(name, argument))
        elif name == "window":
            seen.group(parse_windows(argument))
        elif name == "enrich":
            seen.look_up(parse_enrichment(argument))
        else:
            seen.conditions_end = True
            break
        if seen.columns_end and seen.conditions_end:
            break
    paths = frozenset(seen.paths) if seen.is_bounded else None
    return Needs(paths, frozenset(seen.given_names), tuple(seen.conditions))


@dataclass(slots=True)
class _Seen:
    """What the steps so far need. ``renamed``: the input's columns by the names that they have now, None for their own.

    ``columns_end`` and ``conditions_end``: further steps add none.
    """

    paths: set[Path] = field(default_factory=set)
    given_names: set[bytes] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    renamed: Mapping[bytes, bytes] | None = None
    is_bounded: bool = False
    columns_end: bool = False
    conditions_end: bool = False

    def take(self, clause: Clause) -> None:
        level = clause.levels[0]
        if (clause.kind == "distinct" and not level.others) or level.tables - {"input", ""}:
            self.columns_end = True  # every column is a key; or columns may bear another table's name
        self._add_paths((*level.entries, *level.others))
        if clause.kind == "where":
            if not self.conditions_end:
                self._add_conditions(level.others[0])
            return
        plain = [node for node in level.entries if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1]
        if len(plain) < len(level.entries) or clause.kind != "select":
            self.conditions_end = True
        if not level.keeps_columns:
            self.is_bounded = self.is_bounded or not self.columns_end
            self.columns_end = True
            names = ((node["alias"] or node["column_names"][0], node["column_names"][0]) for node in plain)
            self.renamed = {folded(new): self._own_name(folded(old)) or b"" for new, old in names}
        elif not all(node["alias"] for node in level.entries):
            self.columns_end = True  # a name that DuckDB makes up may be one of the input's

    def look_up(self, asked: Enrichment) -> None:
        """Its keys are needed; what it adds may have any name, unless it says."""
        self.conditions_end = True
        if not self.columns_end:
            self.paths.update((folded(left),) for left, _ in asked.on if folded(left) not in self.given_names)
            self.given_names.update(map(folded, asked.add or ()))

    def group(self, asked: Windows) -> None:
        """Nothing but its columns goes on."""
        self.conditions_end = True
        if not self.columns_end:
            used = [asked.on, *asked.by, *(one.column for one in asked.aggregates if one.column is not None)]
            self.paths.update((folded(name),) for name in used if folded(name) not in self.given_names)
            self.is_bounded = self.columns_end = True

    def _add_paths(self, expressions: Sequence[Node]) -> None:
        """The columns in ``expressions``, unless a select has bounded them before; each may use the names of those
        before it."""
        if self.columns_end:
            return
        for node in expressions:
            for path in _paths(node):
                if path is None or path == (b"input",):
                    self.columns_end = True
                elif path[0] not in self.given_names:
                    self.paths.add(path)
                elif len(path) > 1:
                    self.columns_end = True  # whether it has such a field is not known here
            if node["alias"]:
                self.given_names.add(folded(node["alias"]))

    def _add_conditions(self, node: Node) -> None:
        if node["type"] == "CONJUNCTION_AND":
            for part in node["children"]:
                self._add_conditions(part)
        elif (found := _condition(node)) is not None and (name := self._own_name(found.column)):
            self.conditions.append(Condition(name, found.comparison, found.values))

    def _own_name(self, name: bytes) -> bytes | None:
        return name if self.renamed is None else self.renamed.get(name)


def _paths(node: object) -> Iterator[Path | None]:
    """The columns that an expression refers to; None for all of them. Lambdas see nothing but their own element."""
    if isinstance(node, list):
        for part in node:
            yield from _paths(part)
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind == "STAR":
        yield None
    elif kind == "COLUMN_REF":
        yield tuple(folded(name) for name in node["column_names"])
    elif kind == "FUNCTION" and node["function_name"] in LAMBDAS:
        yield from _paths(node["arguments"][0])
    elif kind != "TYPE":
        for part in node.values():
            yield from _paths(part)


def _condition(node: Node) -> Condition | None:
    """``node`` as a comparison of a column with constants, if it is one."""
    kind = node["type"]
    if kind in _COMPARISONS:
        straight, turned = _COMPARISONS[kind]
        if node["right"]["class"] == "COLUMN_REF":
            return _made(node["right"], turned, [node["left"]])
        return _made(node["left"], straight, [node["right"]])
    if kind == "COMPARE_BETWEEN":
        return _made(node["input"], "between", [node["lower"], node["upper"]])
    if kind == "COMPARE_IN":
        return _made(node["children"][0], "in", node["children"][1:])
    if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        return _made(node["children"][0], "is null" if kind == "OPERATOR_IS_NULL" else "is not null", [])
    return None


def _made(column: Node, comparison: Comparison, values: Sequence[Node]) -> Condition | None:
    constants = [_constant(value) for value in values]
    if column["class"] != "COLUMN_REF" or len(column["column_names"]) != 1 or None in constants:
        return None
    return Condition(folded(column["column_names"][0]), comparison, cast("tuple[Constant, ...]", tuple(constants)))


def _constant(node: Node) -> Constant | None:
    text = literal(node)
    if text is not None:
        kind = node["literal"]["kind"]
        if kind == "NUMERIC":
            return Constant("double" if "e" in text.lower() else "decimal", text)
        return Constant(_CONSTANTS[kind], text) if kind in _CONSTANTS else None
    if node["class"] != "CAST" or node["try_cast"] or (text := literal(node["child"])) is None:
        return None
    name = str(node["type_expr"]["type_name"]).lower()
    is_text = node["child"]["literal"]["kind"] == "STRING" and not node["type_expr"]["children"]
    return Constant(_CASTS[name], text) if is_text and name in _CASTS else None
