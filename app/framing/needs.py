"""What a pipeline needs of its input: which columns, and which rows it will drop anyway. The rest need not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.types as pt

Comparison = Literal["=", "<", "<=", ">", ">=", "in", "between", "is null", "is not null"]
ConstantKind = Literal["integer", "decimal", "double", "string", "date", "timestamp"]
Path = tuple[bytes, ...]
"""A column as it is written, each name folded: the column, then fields within it; perhaps with ``input`` before it."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: its kind and the text that it was written as."""

    kind: ConstantKind
    text: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Rows in which the value of ``column`` (a folded name) does not compare so with ``values`` are dropped, NULLs too."""

    column: bytes
    comparison: Comparison
    values: tuple[Constant, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """``paths``: the columns that are used, None for all of them. ``given_names``: names that the pipeline gives to what
    it makes, which matter only where the input has them too. ``conditions``: each holds for every row that is kept, and
    nothing counts rows before it was asked."""

    paths: frozenset[Path] | None = None
    given_names: frozenset[bytes] = frozenset()
    conditions: tuple[Condition, ...] = ()


class PassedOver:
    """Counts what no page tells: the rows that were not read because a condition ruled them out, and about how many bytes
    a query read by itself (see ``FileScan``)."""

    rows = 0
    scanned_bytes = 0


ALL = Needs()


def folded(name: str) -> bytes:
    """Equal for names that are one to DuckDB: it ignores the case of ASCII letters, and of no others."""
    return name.encode().lower()


def needed_fields(needs: Needs, schema: pa.Schema) -> list[int]:
    """The fields of ``schema`` that are to be read, in its order: all of them, unless every path leads to one.

    A path that leads nowhere is a mistake, and whoever finds it wants to tell which columns there are.
    """
    every = list(range(len(schema)))
    if needs.paths is None:
        return every
    by_name: dict[bytes, list[int]] = {}
    for index in every:
        by_name.setdefault(folded(schema.field(index).name), []).append(index)
    wanted = {index for name in needs.given_names for index in by_name.get(name, ())}
    for path in needs.paths:
        # ``input.a`` is the column a, or the field a of a column that is called input.
        ways = [path, path[1:]] if path[0] == b"input" and len(path) > 1 else [path]
        found = [i for way in ways for i in by_name.get(way[0], ()) if _leads(way[1:], schema.field(i).type)]
        if not found:
            return every
        wanted.update(found)
    return sorted(wanted)


def field_called(name: bytes, schema: pa.Schema) -> int | None:
    """The one field that bears a folded name."""
    found = [index for index in range(len(schema)) if folded(schema.field(index).name) == name]
    return found[0] if len(found) == 1 else None


def leaf_counts(schema: pa.Schema) -> Iterator[int]:
    """For each field, how many columns of values it is stored as."""
    return (_leaves(field.type) for field in schema)


def _leads(path: Path, type_: pa.DataType) -> bool:
    if not path:
        return True
    if not pt.is_struct(type_):
        return False
    return any(folded(field.name) == path[0] and _leads(path[1:], field.type) for field in type_)


def _leaves(type_: pa.DataType) -> int:
    if isinstance(type_, pa.BaseExtensionType):
        return _leaves(type_.storage_type)
    return sum(_leaves(type_.field(index).type) for index in range(type_.num_fields)) if type_.num_fields else 1
