"""Steps on one row at a time as a program of formulas, which a worker runs over a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from app.framing.needs import folded
from app.stages.sql_clause import Clause
from app.stages.sql_formula import Formula, column, condition, formula, is_expressible
from app.stages.sql_kernel import kernel
from app.stages.sql_parser import Node
from app.stages.sql_steps import Filter, Projection, Step, prune


class Program:
    """``steps`` one after the other, on rows of ``schema``: by the library in C, where it knows all of it and every number
    is small enough, otherwise by Arrow. It keeps nothing, and any number of threads may run it."""

    def __init__(self, steps: Sequence[Step], schema: pa.Schema) -> None:
        width = len(next((step.columns for step in reversed(steps) if isinstance(step, Projection)), schema))
        self._steps = steps
        prune(steps, width)
        self._kernel = kernel(steps, schema.types)

    def run(self, batch: pa.RecordBatch) -> list[Any]:
        """The columns that ``batch`` becomes. Raises ``pa.ArrowException`` where a value cannot be computed."""
        columns = None if self._kernel is None else self._kernel.run(batch)
        return self._by_arrow(batch) if columns is None else columns

    def _by_arrow(self, batch: pa.RecordBatch) -> list[Any]:
        columns, rows = list(batch.columns), batch.num_rows
        for step in self._steps:
            if isinstance(step, Projection):
                columns = [None if made is None else made.of(columns) for made in step.columns]
                continue
            mask = step.condition.of(columns)
            kept_rows = mask.true_count
            if kept_rows < rows:
                columns, rows = _filtered(columns, step.kept, mask), kept_rows
        return columns


def row_program(clauses: Sequence[Clause], schema: pa.Schema) -> tuple[Program, pa.Schema]:
    """The program of ``clauses`` over rows of ``schema``, and the schema of what it makes, in which columns that DuckDB
    would name have no name. Raises ``Unfit``."""
    steps: list[Step] = []
    fed = schema
    for clause in clauses:
        level = clause.levels[0]
        if clause.kind == "where":
            steps.append(Filter(condition(level.others[0], schema)))
            continue
        made = [(field.name, column(i, field.type)) for i, field in enumerate(schema)] if level.keeps_columns else []
        made += projected(level.entries, schema)
        steps.append(Projection([one for _, one in made]))
        schema = pa.schema([pa.field(name, one.type) for name, one in made])
    return Program(steps, fed), schema


def projected(entries: Iterable[Node], schema: pa.Schema) -> list[tuple[str, Formula]]:
    """The columns that a select list makes, with their names. Raises ``Unfit``."""
    made: list[tuple[str, Formula]] = []
    named: dict[bytes, Formula] = {}
    for node in entries:
        if node["class"] == "STAR":
            made += [(field.name, column(i, field.type)) for i, field in enumerate(schema)]
            continue
        found = formula(node, schema, named)
        made.append((str(node["alias"] or (node["column_names"][0] if node["class"] == "COLUMN_REF" else "")), found))
        if node["alias"]:
            named[folded(node["alias"])] = found
    return made


def may_be_program(clause: Clause) -> bool:
    """By its text alone there may be a program for ``clause``: it depends on types."""
    level = clause.levels[0]
    if clause.kind not in ("where", "select", "derive"):
        return False
    return all(_is_plain_star(node) or is_expressible(node) for node in (*level.entries, *level.others))


def _is_plain_star(node: Node) -> bool:
    words = (
        "columns",
        "expr",
        "replace_list",
        "rename_list",
        "exclude_list",
        "relation_name",
        "qualified_exclude_list",
    )
    return node["class"] == "STAR" and not any(node.get(word) for word in words)


def _filtered(columns: Sequence[Any], kept: Sequence[int], mask: pa.Array) -> list[Any]:
    left: list[Any] = [None] * len(columns)
    if kept:
        batch = pa.RecordBatch.from_arrays([columns[index] for index in kept], [str(index) for index in kept])
        for index, array in zip(kept, batch.filter(mask).columns, strict=True):
            left[index] = array
    return left
