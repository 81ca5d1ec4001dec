"""Reads the ``sql`` step: one SELECT over the table ``input``, with others within it.

The input comes once, so it is read in one place only, and so is what is made of it: a join of the input with itself
would need all of it in memory, and a second reading would find nothing left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.stages.sql_clause import Clause, Level
from app.stages.sql_expression import check_expression, is_aggregate
from app.stages.sql_parser import Node, check_enclosed, literal, parse_tree, walk

_HOW = "the input can be read once: write WITH steps or subqueries behind FROM that each read the one before"
_REFUSED_TABLES = {
    "JOIN": "a join cannot stand here: use enrich for lookup tables",
    "TABLE_FUNCTION": "a table function cannot stand here",
    "EXPRESSION_LIST": "VALUES cannot stand here",
    "PIVOT": "PIVOT and UNPIVOT cannot stand here",
    "COLUMN_DATA": "VALUES cannot stand here",
    "SHOW_REF": "DESCRIBE and SHOW cannot stand here",
}


def parse_query(text: str) -> Clause:
    """The one SELECT that ``text`` is. Raises ``bad_sql`` with the position."""
    tree = parse_tree("sql", text)
    check_enclosed("sql", text)
    reader = _Reader(text)
    for expression in walk(tree):
        check_expression(reader.clause, expression, aggregates=True, windows=True)
    reader.read(tree, {})
    return Clause("sql", text, tuple(reader.levels), ((0, text),), is_whole=reader.is_whole, tree=tree)


class _Reader:
    """Collects the SELECTs that rows pass, the innermost first."""

    def __init__(self, text: str) -> None:
        self.levels: list[Level] = []
        self.is_whole = False
        self.clause = Clause("sql", text, (), ())
        self._read: set[str] = set()

    def read(self, node: Node, around: Mapping[str, Node]) -> None:
        """The SELECT ``node``, which may name the queries ``around`` it."""
        if node["type"] != "SELECT_NODE":
            self._refuse(f"UNION, INTERSECT, EXCEPT and recursion cannot stand here; {_HOW}")
        named = dict(around)
        for entry in node["cte_map"]["map"]:
            name = str(entry["key"]).lower()
            if name == "input" or name in named:
                self._refuse(f"the name {entry['key']!r} is taken: give what WITH makes another one")
            if entry["value"]["aliases"]:
                self._refuse(f"name the columns of {entry['key']!r} within it, by AS")
            named[name] = entry["value"]["query_node"]
        table = self._table(node["from_table"], named)
        for entry in node["cte_map"]["map"]:
            if str(entry["key"]).lower() not in self._read:
                self._refuse(f"nothing reads {entry['key']!r}: leave it out")
        if node["sample"] or node["from_table"].get("sample"):
            self._refuse("SAMPLE cannot stand here; use the sample step")
        others = [node[word] for word in ("where_clause", "having", "qualify") if node[word]]
        others += [*node["group_expressions"], *self._modifiers(node)]
        # DISTINCT and GROUP BY ALL name nothing, and are about every column.
        level = Level(tuple(node["select_list"]), tuple(others), False, table)
        self.levels.append(level)
        blocks = node["group_expressions"] or node["having"]
        blocks = blocks or any(modifier["type"] != "LIMIT_MODIFIER" for modifier in node["modifiers"])
        parts = list(walk((*level.entries, *level.others)))
        if blocks or any(is_aggregate(part) or part["class"] == "WINDOW" for part in parts):
            self.is_whole = True

    def _table(self, table: Node, named: Mapping[str, Node]) -> frozenset[str]:
        """Read what stands behind FROM; gives the names that its columns may have before them."""
        kind = table["type"]
        if table.get("column_name_alias"):
            self._refuse("name columns by AS in the SELECT, not behind the table")
        alias = str(table.get("alias", "")).lower()
        if kind == "SUBQUERY":
            self.read(table["subquery"]["node"], named)
            return frozenset([alias])
        if kind != "BASE_TABLE" or table["at_clause"]:
            self._refuse(_REFUSED_TABLES.get(kind, f"it must read FROM input; {_HOW}"))
        path = [str(part).lower() for part in table["qualified_name"]["path"]]
        name = path[-1]
        if len(path) > 1 or (name != "input" and name not in named):
            self._refuse(f"there is no table {'.'.join(path)}: rows come from input")
        if name in self._read:
            self._refuse(f"{name} is read twice; {_HOW}")
        self._read.add(name)
        if name != "input":
            self.read(named[name], {other: query for other, query in named.items() if other != name})
        return frozenset([name, alias])

    def _modifiers(self, node: Node) -> Iterator[Node]:
        for modifier in node["modifiers"]:
            kind = modifier["type"]
            if kind == "ORDER_MODIFIER":
                yield from (order["expression"] for order in modifier["orders"])
            elif kind == "DISTINCT_MODIFIER":
                yield from modifier["distinct_on_targets"]
            elif kind == "LIMIT_MODIFIER" and modifier.get("limit_type") == "ROW_COUNT":
                if any(part and literal(part) is None for part in (modifier["limit"], modifier["offset"])):
                    self._refuse("behind LIMIT and OFFSET stand numbers")
            else:
                self._refuse("LIMIT takes a number of rows here, no percentage")

    def _refuse(self, detail: str) -> None:
        self.clause.refuse(detail)
