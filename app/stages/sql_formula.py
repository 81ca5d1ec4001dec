"""Expressions of SQL as Arrow kernels, for pages on worker threads: those of which both are sure to say the same.

DuckDB is the judge of what an expression means. What is read here is a small part of its language over plain types, where
the kernels do the same or can be had to: its NaN is equal to itself and above all other numbers, its division of whole
numbers gives floats and never fails, and what is AND or OR of an unknown is unknown. All else is ``Unfit``.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.framing.needs import folded
from app.stages.sql_parser import Node, literal

Columns = Sequence[Any]
"""The arrays of a page, by place; None for those that nobody needs."""

_MOST_DIGITS = 15
"""A decimal of so many digits becomes the nearest float by one division, as in DuckDB."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}
_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_CHECKED = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked}
_FLOATING = {"+": pc.add, "-": pc.subtract, "*": pc.multiply, "/": pc.divide}
_ONE_LITERAL = {
    "starts_with": pc.starts_with,
    "prefix": pc.starts_with,
    "suffix": pc.ends_with,
    "ends_with": pc.ends_with,
}


class Unfit(Exception):
    """There is no formula for this: DuckDB has to compute it."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A value for each row: its type, the columns that it ``uses``, by place, and how it is computed. ``of`` may raise
    ``pa.ArrowException`` where a value cannot be computed."""

    type: pa.DataType
    uses: frozenset[int]
    of: Callable[[Columns], Any] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Constant:
    """A literal, or one that is cast to a time: what it is called in the tree, and its text."""

    kind: str
    text: str


def column(index: int, type_: pa.DataType) -> Formula:
    """A column as it is."""
    return Formula(type_, frozenset([index]), lambda columns: columns[index])


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
        return _constant(node) is not None
    if kind == "FUNCTION":
        name, arguments = node["function_name"], [argument["expression"] for argument in node["arguments"]]
        if name in _FLOATING:
            return len(arguments) == 2 and all(map(is_expressible, arguments))
        if name in ("~~", "!~~"):
            return is_expressible(arguments[0]) and _pattern(arguments[1]) is not None
        return name in ("contains", *_ONE_LITERAL) and is_expressible(arguments[0]) and _is_text(arguments[1])
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
            return _joined(pc.and_kleene, both)
        if kind == "CONJUNCTION":
            join = pc.and_kleene if type_ == "CONJUNCTION_AND" else pc.or_kleene
            return _joined(join, [self._truth(part) for part in node["children"]])
        if type_ == "OPERATOR_NOT":
            return _applied(pc.invert, self._truth(node["children"][0]))
        if type_ in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            is_ = pc.is_null if type_ == "OPERATOR_IS_NULL" else pc.is_valid
            return _applied(is_, self.value(node["children"][0]))
        if type_ in ("COMPARE_IN", "COMPARE_NOT_IN"):
            first, *others = node["children"]
            among = _joined(pc.or_kleene, [self._compared(first, "=", other) for other in others])
            return among if type_ == "COMPARE_IN" else _applied(pc.invert, among)
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
            found = _pattern(arguments[1])
            if found is None:
                raise Unfit
            matches = _applied(found[0], text, found[1])
            return matches if name == "~~" else _applied(pc.invert, matches)
        if not _is_text(arguments[1]):
            raise Unfit
        if name == "contains":
            return _applied(pc.match_substring, text, literal(arguments[1]))
        if name in _ONE_LITERAL:
            return _applied(_ONE_LITERAL[name], text, literal(arguments[1]))
        raise Unfit

    def _computed(self, name: str, arguments: Sequence[Node]) -> Formula:
        """Arithmetic. Of whole numbers of one type it stays in the type, and fails where that is too small."""
        constants = [_constant(argument) for argument in arguments]
        values = [self.value(node) for node, constant in zip(arguments, constants, strict=True) if constant is None]
        types = {value.type for value in values}
        if types and types <= {pa.int32(), pa.int64()} and name != "/":
            kept = pa.int64() if pa.int64() in types else pa.int32()
            if any(constant and constant.kind != "INTEGER" for constant in constants):
                raise Unfit  # a decimal makes a decimal
            compute = _CHECKED[name]
        elif types and types <= {pa.int32(), pa.int64(), pa.float64()}:
            kept = pa.float64()
            compute = _FLOATING[name]
        else:
            raise Unfit
        taken = iter(values)
        sides = [_as(next(taken), kept) if constant is None else _scalar(constant, kept) for constant in constants]
        return _joined_pair(compute, sides[0], sides[1], kept)

    def _compared(self, left: Node, comparison: str, right: Node) -> Formula:
        one, other = _constant(left), _constant(right)
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
        return _joined_pair(_KERNELS[comparison], value, second, pa.bool_())


_KERNELS = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _compared_with(value: Formula, comparison: str, constant: pa.Scalar) -> Formula:
    if pt.is_floating(value.type) and comparison in (">", ">="):
        # NaN is above everything in DuckDB, and not below anything in Arrow.
        below = pc.less_equal if comparison == ">" else pc.less
        return Formula(pa.bool_(), value.uses, lambda columns: pc.invert(below(value.of(columns), constant)))
    kernel = _KERNELS[comparison]
    return Formula(pa.bool_(), value.uses, lambda columns: kernel(value.of(columns), constant))


def _as(value: Formula, type_: pa.DataType) -> Formula:
    if value.type == type_:
        return value
    return Formula(type_, value.uses, lambda columns: pc.cast(value.of(columns), type_, safe=False))


def _applied(kernel: Callable[..., Any], value: Formula, *arguments: object) -> Formula:
    return Formula(pa.bool_(), value.uses, lambda columns: kernel(value.of(columns), *arguments))


def _joined(join: Callable[[Any, Any], Any], values: Sequence[Formula]) -> Formula:
    first, *others = values
    for other in others:
        first = _joined_pair(join, first, other, pa.bool_())
    return first


def _joined_pair(join: Callable[[Any, Any], Any], one: Any, other: Any, type_: pa.DataType) -> Formula:
    """Of two formulas, or a formula and a scalar."""
    if not isinstance(one, Formula):
        return Formula(type_, other.uses, lambda columns: join(one, other.of(columns)))
    if not isinstance(other, Formula):
        return Formula(type_, one.uses, lambda columns: join(one.of(columns), other))
    return Formula(type_, one.uses | other.uses, lambda columns: join(one.of(columns), other.of(columns)))


def _constant(node: Node) -> _Constant | None:
    """``node`` as a number, a text, or a text that is cast to a time."""
    text = literal(node)
    if text is not None:
        kind = str(node["literal"]["kind"])
        return _Constant(kind, text) if kind in ("INTEGER", "NUMERIC", "STRING", "BOOLEAN") else None
    if node["class"] != "CAST" or node["try_cast"] or not _is_text(node["child"]):
        return None
    kind = str(node["type_expr"]["type_name"]).upper()
    return _Constant(kind, literal(node["child"]) or "") if kind in ("DATE", "TIMESTAMP") else None


def _is_text(node: Node) -> bool:
    return literal(node) is not None and node["literal"]["kind"] == "STRING"


def _pattern(node: Node) -> tuple[Callable[..., Any], str] | None:
    """What finds a pattern of LIKE that has no wildcard but a percent sign at an end."""
    if not _is_text(node):
        return None
    text = literal(node) or ""
    inner = text.strip("%")
    if not inner or "%" in inner or "_" in inner or "\\" in inner or len(text) - len(inner) > 2:
        return None
    if text == f"%{inner}%":
        return pc.match_substring, inner
    if text == f"{inner}%":
        return pc.starts_with, inner
    return (pc.ends_with, inner) if text == f"%{inner}" else None


def _is_ordered(type_: pa.DataType) -> bool:
    """Both compare values of ``type_`` alike."""
    plain = pt.is_string(type_) or pt.is_date32(type_) or pt.is_boolean(type_) or pt.is_floating(type_)
    return bool(plain or (pt.is_timestamp(type_) and type_.tz is None))


def _scalar(constant: _Constant, type_: pa.DataType) -> pa.Scalar:
    """``constant`` as what it is compared as with a column of ``type_``. Raises ``Unfit`` unless that is exact."""
    kind, text = constant.kind, constant.text
    if pt.is_float64(type_) and kind in ("INTEGER", "NUMERIC"):
        digits = text.strip("-").replace(".", "").lstrip("0")
        if not ("e" in text.lower() or len(digits) <= _MOST_DIGITS):
            raise Unfit
        return pa.scalar(float(text), type_)
    if pt.is_signed_integer(type_) and kind == "INTEGER":
        if abs(int(text)) > 2 ** (type_.bit_width - 1) - 1:
            raise Unfit
        return pa.scalar(int(text), type_)
    if pt.is_decimal128(type_) and kind in ("INTEGER", "NUMERIC") and "e" not in text.lower():
        try:
            return pa.scalar(Decimal(text)).cast(type_)
        except pa.ArrowException:
            raise Unfit from None
    if pt.is_string(type_) and kind == "STRING":
        return pa.scalar(text, type_)
    if pt.is_boolean(type_) and kind == "BOOLEAN":
        return pa.scalar(text == "true", type_)
    try:
        if pt.is_date32(type_) and kind in ("DATE", "STRING") and _DATE.fullmatch(text):
            return pa.scalar(datetime.date.fromisoformat(text), type_)
        is_time = _DATE.fullmatch(text) or _TIME.fullmatch(text)
        if is_time and pt.is_timestamp(type_) and type_.tz is None and kind in ("DATE", "TIMESTAMP", "STRING"):
            return pa.scalar(datetime.datetime.fromisoformat(text), pa.timestamp("us")).cast(type_)
    except (ValueError, pa.ArrowException):
        pass
    raise Unfit
