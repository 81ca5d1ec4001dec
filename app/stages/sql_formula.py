"""Expressions of SQL as Arrow kernels, for pages on worker threads: those of which both are sure to say the same.

DuckDB is the judge of what an expression means. What is read here is a small part of its language over plain types, where
the kernels do the same or can be had to: its NaN is equal to itself and above all other numbers, its division of whole
numbers gives floats and never fails, and what is AND or OR of an unknown is unknown. All else is ``Unfit``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.framing.needs import folded
from app.stages.sql_literal import Constant, constant, is_text, pattern, scalar
from app.stages.sql_parser import Node, literal

Columns = Sequence[Any]
"""The arrays of a page, by place; None for those that nobody needs."""

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}
_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_CHECKED = {"+": "add_checked", "-": "subtract_checked", "*": "multiply_checked"}
_FLOATING = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
_COMPARED = {"=": "equal", "<>": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_OF_TEXT = {
    "contains": "match_substring",
    "starts_with": "starts_with",
    "prefix": "starts_with",
    "suffix": "ends_with",
    "ends_with": "ends_with",
}


class Unfit(Exception):
    """There is no formula for this: DuckDB has to compute it."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A value for each row: its type, the columns that it ``uses``, by place, and an ``operation`` over operands.

    The operation is a kernel of Arrow by its name there, with a text to look for as the ``argument`` of some, but for
    three: ``column``, whose argument is the place; ``cast``, to the type; and ``nulls``, for each row of the operand.
    """

    type: pa.DataType
    uses: frozenset[int]
    operation: str
    operands: tuple[Formula | pa.Scalar, ...] = ()
    argument: Any = None

    def of(self, columns: Columns) -> Any:
        """By Arrow. Raises ``pa.ArrowException`` where a value cannot be computed."""
        if self.operation == "column":
            return columns[self.argument]
        values = [one.of(columns) if isinstance(one, Formula) else one for one in self.operands]
        if self.operation == "cast":
            return pc.cast(values[0], self.type, safe=False)
        if self.operation == "nulls":
            return pa.nulls(len(values[0]))
        arguments = () if self.argument is None else (self.argument,)
        return getattr(pc, self.operation)(*values, *arguments)


def column(index: int, type_: pa.DataType) -> Formula:
    """A column as it is."""
    return Formula(type_, frozenset([index]), "column", argument=index)


def applied(operation: str, type_: pa.DataType, *operands: Any, argument: str | None = None) -> Formula:
    """``operation`` over formulas and scalars, of which one at least is a formula."""
    uses = frozenset().union(*(one.uses for one in operands if isinstance(one, Formula)))
    return Formula(type_, uses, operation, operands, argument)


def formula(node: Node, schema: pa.Schema, named: Mapping[bytes, Formula]) -> Formula:
    """``node`` over rows of ``schema``; ``named`` are entries of the same select list, which a column's name hides.

    Raises ``Unfit``.
    """
    return _Reader(schema, named).value(node)


def condition(node: Node, schema: pa.Schema) -> Formula:
    """``node`` as what rows are kept by. Raises ``Unfit``."""
    found = formula(node, schema, {})
    if not pt.is_boolean(found.type):
        raise Unfit
    return found


def is_expressible(node: Node) -> bool:
    """By its text alone there may be a formula for ``node``: it depends on types."""
    kind, type_ = node["class"], node["type"]
    if kind == "COLUMN_REF":
        return len(node["column_names"]) == 1
    if kind in ("CONSTANT", "CAST"):
        return constant(node) is not None
    if kind == "FUNCTION":
        name, arguments = node["function_name"], [argument["expression"] for argument in node["arguments"]]
        if name in _FLOATING:
            return len(arguments) == 2 and all(map(is_expressible, arguments))
        if name in ("~~", "!~~"):
            return is_expressible(arguments[0]) and pattern(arguments[1]) is not None
        return name in _OF_TEXT and is_expressible(arguments[0]) and is_text(arguments[1])
    if kind == "BETWEEN":
        return all(is_expressible(node[word]) for word in ("input", "lower", "upper"))
    if kind == "COMPARISON":
        return type_ in _COMPARISONS and is_expressible(node["left"]) and is_expressible(node["right"])
    if kind == "CONJUNCTION" or type_ in _OPERATORS:
        return all(map(is_expressible, node["children"]))
    return False


_OPERATORS = ("OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "COMPARE_IN", "COMPARE_NOT_IN")


@dataclass(frozen=True, slots=True)
class _Reader:
    schema: pa.Schema
    named: Mapping[bytes, Formula]

    def value(self, node: Node) -> Formula:
        kind, type_ = node["class"], node["type"]
        if kind == "COLUMN_REF":
            return self._column(node)
        if kind == "FUNCTION":
            return self._function(node)
        if kind == "COMPARISON" and type_ in _COMPARISONS:
            return self._compared(node["left"], _COMPARISONS[type_], node["right"])
        if kind == "BETWEEN" and type_ == "COMPARE_BETWEEN":
            value = node["input"]
            both = (self._compared(value, ">=", node["lower"]), self._compared(value, "<=", node["upper"]))
            return _joined("and_kleene", both)
        if kind == "CONJUNCTION":
            join = "and_kleene" if type_ == "CONJUNCTION_AND" else "or_kleene"
            return _joined(join, [self._truth(part) for part in node["children"]])
        if type_ == "OPERATOR_NOT":
            return _inverted(self._truth(node["children"][0]))
        if type_ in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            is_ = "is_null" if type_ == "OPERATOR_IS_NULL" else "is_valid"
            return applied(is_, pa.bool_(), self.value(node["children"][0]))
        if type_ in ("COMPARE_IN", "COMPARE_NOT_IN"):
            first, *others = node["children"]
            among = _joined("or_kleene", [self._compared(first, "=", other) for other in others])
            return among if type_ == "COMPARE_IN" else _inverted(among)
        raise Unfit

    def _truth(self, node: Node) -> Formula:
        found = self.value(node)
        if not pt.is_boolean(found.type):
            raise Unfit
        return found

    def _column(self, node: Node) -> Formula:
        if len(node["column_names"]) != 1:
            raise Unfit
        name = folded(node["column_names"][0])
        for index, other in enumerate(self.schema):
            if folded(other.name) == name:
                return column(index, other.type)
        if name in self.named:
            return self.named[name]
        raise Unfit

    def _function(self, node: Node) -> Formula:
        name, arguments = node["function_name"], [argument["expression"] for argument in node["arguments"]]
        if name in _FLOATING:
            return self._computed(name, arguments)
        text = self.value(arguments[0])
        if not pt.is_string(text.type):
            raise Unfit
        if name in ("~~", "!~~"):
            found = pattern(arguments[1])
            if found is None:
                raise Unfit
            matches = applied(found[0], pa.bool_(), text, argument=found[1])
            return matches if name == "~~" else _inverted(matches)
        if name in _OF_TEXT and is_text(arguments[1]):
            return applied(_OF_TEXT[name], pa.bool_(), text, argument=literal(arguments[1]))
        raise Unfit

    def _computed(self, name: str, arguments: Sequence[Node]) -> Formula:
        """Arithmetic. Of whole numbers of one type it stays in the type, and fails where that is too small."""
        constants = [constant(argument) for argument in arguments]
        values = [self.value(node) for node, found in zip(arguments, constants, strict=True) if found is None]
        types = {value.type for value in values}
        if types and types <= {pa.int32(), pa.int64()} and name != "/":
            kept = pa.int64() if pa.int64() in types else pa.int32()
            if any(found and found.kind != "INTEGER" for found in constants):
                raise Unfit  # a decimal makes a decimal
            compute = _CHECKED[name]
        elif types and types <= {pa.int32(), pa.int64(), pa.float64()}:
            kept = pa.float64()
            compute = _FLOATING[name]
        else:
            raise Unfit
        taken = iter(values)
        sides = [_as(next(taken), kept) if found is None else _scalar(found, kept) for found in constants]
        return applied(compute, kept, *sides)

    def _compared(self, left: Node, comparison: str, right: Node) -> Formula:
        one, other = constant(left), constant(right)
        if one is not None and other is not None:
            raise Unfit
        if one is not None:
            left, right, comparison, other = right, left, _FLIPPED[comparison], one
        value = self.value(left)
        if other is not None:
            return _compared_with(value, comparison, _scalar(other, value.type))
        second = self.value(right)
        types = {value.type, second.type}
        if types <= {pa.int8(), pa.int16(), pa.int32(), pa.int64()}:
            value, second = _as(value, pa.int64()), _as(second, pa.int64())
        elif len(types) > 1 or not _is_ordered(value.type) or pt.is_floating(value.type):
            raise Unfit  # floats may be NaN
        return applied(_COMPARED[comparison], pa.bool_(), value, second)


def _compared_with(value: Formula, comparison: str, constant: pa.Scalar) -> Formula:
    if pt.is_floating(value.type) and comparison in (">", ">="):
        # NaN is above everything in DuckDB, and not below anything in Arrow.
        return _inverted(applied("less_equal" if comparison == ">" else "less", pa.bool_(), value, constant))
    return applied(_COMPARED[comparison], pa.bool_(), value, constant)


def _as(value: Formula, type_: pa.DataType) -> Formula:
    return value if value.type == type_ else applied("cast", type_, value)


def _inverted(value: Formula) -> Formula:
    return applied("invert", pa.bool_(), value)


def _joined(join: str, values: Sequence[Formula]) -> Formula:
    first, *others = values
    for other in others:
        first = applied(join, pa.bool_(), first, other)
    return first


def _is_ordered(type_: pa.DataType) -> bool:
    """Both compare values of ``type_`` alike."""
    plain = pt.is_string(type_) or pt.is_date32(type_) or pt.is_boolean(type_) or pt.is_floating(type_)
    return bool(plain or (pt.is_timestamp(type_) and type_.tz is None))


def _scalar(constant: Constant, type_: pa.DataType) -> pa.Scalar:
    found = scalar(constant, type_)
    if found is None:
        raise Unfit
    return found
