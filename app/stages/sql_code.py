"""Formulas as code for the machine of ``program.c``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from app.framing.native.machine import REGISTERS, Operation, layout
from app.stages.sql_formula import Formula

_OF_VALUES = {
    "add": Operation.ADD,
    "subtract": Operation.SUBTRACT,
    "multiply": Operation.MULTIPLY,
    "divide": Operation.DIVIDE,
    "add_checked": Operation.ADD_CHECKED,
    "subtract_checked": Operation.SUBTRACT_CHECKED,
    "multiply_checked": Operation.MULTIPLY_CHECKED,
    "and_kleene": Operation.AND,
    "or_kleene": Operation.OR,
    "invert": Operation.NOT,
}
_OF_TEXT = {
    "starts_with": Operation.STARTS_WITH,
    "ends_with": Operation.ENDS_WITH,
    "match_substring": Operation.CONTAINS,
}
_COMPARISONS = {
    "equal": (Operation.EQUAL, Operation.INT_EQUAL),
    "not_equal": (Operation.NOT_EQUAL, Operation.INT_NOT_EQUAL),
    "less": (Operation.LESS, Operation.INT_LESS),
    "less_equal": (Operation.LESS_EQUAL, Operation.INT_LESS_EQUAL),
}
_FLIPPED = {"greater": "less", "greater_equal": "less_equal"}
_ACCEPTS = {"less": 1, "equal": 2, "less_equal": 3, "greater": 4, "not_equal": 5, "greater_equal": 6}
_LOADS = {
    pa.bool_(): Operation.LOAD_BOOL,
    pa.int8(): Operation.LOAD_INT8,
    pa.int16(): Operation.LOAD_INT16,
    pa.int32(): Operation.LOAD_INT32,
    pa.date32(): Operation.LOAD_INT32,
    pa.int64(): Operation.LOAD_WORD,
    pa.float64(): Operation.LOAD_WORD,
}


class Unknown(Exception):
    """The machine does not do this: it is Arrow's."""


@dataclass(eq=False, slots=True)
class Instruction:
    """``instruction`` of ``program.c``; its operands are the instructions whose results it takes, or None for the constant."""

    operation: Operation
    operands: tuple[Instruction | None, ...] = ()
    place: int = 0
    accepts: int = 0
    low: int = 0
    high: int = 0
    register: int = -1


@dataclass(frozen=True, slots=True)
class Output:
    """Of a type that lies so; of a column that the code reads, as it is, or computed."""

    type: pa.DataType
    kind: int
    width: int
    column: int | None = None


class Code:
    """The instructions of steps over columns of ``types``: the same value is computed once, and anew for fewer rows.

    ``columns`` are those that it reads, by place, and ``texts`` the constants that it points to. Raises ``Unknown``.
    """

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self.instructions: list[Instruction] = []
        self.columns: list[int] = []
        self.outputs: list[Output] = []
        self.texts: dict[str, Any] = {}
        self._types = types
        self._put: dict[tuple[Any, ...], int] = {}
        self._levels: list[Sequence[Formula | None]] = []
        self._by_formula: dict[tuple[int, int], Instruction] = {}
        self._by_content: dict[tuple[Any, ...], Instruction] = {}

    def filter(self, condition: Formula) -> None:
        """Keep the rows for which it holds."""
        self._emit(Operation.FILTER, self._value(condition, len(self._levels)))
        self._by_formula.clear()
        self._by_content.clear()

    def project(self, columns: Sequence[Formula | None]) -> None:
        """What follows is about these columns."""
        self._levels.append(columns)

    def source(self, formula: Formula) -> int | None:
        """The place of the column of the input that ``formula`` is; None if it is computed."""
        formula, _ = self._followed(formula, len(self._levels))
        return int(formula.argument) if formula.operation == "column" else None

    def put(self, formula: Formula) -> int:
        """The number of the output that it is."""
        source = self.source(formula)
        value = self._value(formula, len(self._levels)) if source is None else None
        content = (source, id(value), formula.type)
        if content not in self._put:
            output = self._put[content] = len(self.outputs)
            if value is None:
                slot = self._slot(source or 0)
                self.outputs.append(Output(formula.type, *_layout(formula.type), slot))
                self.instructions.append(Instruction(Operation.PUT_COLUMN, place=output, low=slot))
            else:
                self.outputs.append(Output(formula.type, *_layout(formula.type)))
                puts = {pa.bool_(): Operation.PUT_BOOL, pa.int32(): Operation.PUT_INT32}
                operation = puts.get(formula.type, Operation.PUT_WORD)
                self.instructions.append(Instruction(operation, (value,), output))
        return self._put[content]

    def allocate(self) -> None:
        """Give each result a register, until it was last used. Raises ``Unknown`` if there are not enough."""
        last = {id(one): n for n, made in enumerate(self.instructions) for one in made.operands if one is not None}
        free = list(range(REGISTERS))
        for n, made in enumerate(self.instructions):
            if made.operation < Operation.FILTER:
                if not free:
                    raise Unknown
                made.register = free.pop(0)
            free[:0] = {one.register for one in made.operands if one is not None and last[id(one)] == n}

    def _value(self, formula: Formula, level: int) -> Instruction:
        formula, level = self._followed(formula, level)
        found = self._by_formula.get((level, id(formula)))
        if found is None:
            found = self._by_formula[level, id(formula)] = self._computed(formula, level)
        return found

    def _followed(self, formula: Formula, level: int) -> tuple[Formula, int]:
        """What a name stands for, and at which level."""
        while formula.operation == "column" and level:
            level -= 1
            named = self._levels[level][formula.argument]
            assert named is not None
            formula = named
        return formula, level

    def _computed(self, formula: Formula, level: int) -> Instruction:
        operation, operands = formula.operation, formula.operands
        if operation == "column":
            return self._loaded(formula.argument)
        if operation in _ACCEPTS:
            return self._compared(operation, operands[0], operands[1], level)
        if operation in _OF_TEXT:
            return self._emit(_OF_TEXT[operation], place=self._column(operands[0], level), text=formula.argument)
        if operation in ("is_null", "is_valid"):
            first, at = self._followed(operands[0], level)
            is_column = first.operation == "column"
            found = (
                self._emit(Operation.LOAD_VALID, place=self._slot(first.argument))
                if is_column
                else self._emit(Operation.IS_VALID, self._value(first, at))
            )
            return found if operation == "is_valid" else self._emit(Operation.NOT, found)
        if operation == "cast":
            value = self._value(operands[0], level)
            return self._emit(Operation.INT_TO_DOUBLE, value) if pt.is_floating(formula.type) else value
        if operation not in _OF_VALUES:
            raise Unknown
        made = self._emit(_OF_VALUES[operation], *(self._operand(one, level) for one in operands))
        return self._emit(Operation.CHECK_INT32, made) if pt.is_int32(formula.type) else made

    def _compared(self, comparison: str, left: Formula, right: Formula | pa.Scalar, level: int) -> Instruction:
        is_decimal = pt.is_decimal(left.type)
        if is_decimal or pt.is_string(left.type):
            if isinstance(right, Formula):
                raise Unknown
            place, accepts = self._column(left, level), _ACCEPTS[comparison]
            if is_decimal:
                return self._emit(Operation.COMPARE_DECIMAL, constant=right, place=place, accepts=accepts)
            return self._emit(Operation.COMPARE_TEXT, place=place, accepts=accepts, text=right.as_py())
        sides = [self._operand(one, level) for one in (left, right)]
        if pt.is_boolean(left.type):
            sides = [self._emit(Operation.BOOL_TO_INT, one) if isinstance(one, Instruction) else one for one in sides]
        if comparison in _FLIPPED:
            comparison = _FLIPPED[comparison]
            sides.reverse()
        return self._emit(_COMPARISONS[comparison][not pt.is_floating(left.type)], *sides)

    def _operand(self, one: Formula | pa.Scalar, level: int) -> Instruction | pa.Scalar:
        return self._value(one, level) if isinstance(one, Formula) else one

    def _loaded(self, index: int) -> Instruction:
        type_ = self._types[index]
        is_time = pt.is_timestamp(type_)
        if type_ not in _LOADS and not is_time:
            raise Unknown
        return self._emit(Operation.LOAD_WORD if is_time else _LOADS[type_], place=self._slot(index))

    def _column(self, formula: Formula, level: int) -> int:
        """The slot of a column that is not loaded, but looked at where it is."""
        formula, _ = self._followed(formula, level)
        if formula.operation != "column":
            raise Unknown
        return self._slot(formula.argument)

    def _slot(self, index: int) -> int:
        _layout(self._types[index])
        if index not in self.columns:
            self.columns.append(index)
        return self.columns.index(index)

    def _emit(
        self,
        operation: Operation,
        *operands: Instruction | pa.Scalar,
        constant: pa.Scalar | None = None,
        text: str | None = None,
        place: int = 0,
        accepts: int = 0,
    ) -> Instruction:
        """One that does this, which may be there."""
        low = high = 0
        for one in (constant, *operands):
            if isinstance(one, pa.Scalar):
                low, high = _words(one)
        if text is not None:
            held = self.texts.setdefault(text, ctypes.create_string_buffer(text.encode()))
            low, high = ctypes.addressof(held), len(held) - 1
        taken = tuple(one if isinstance(one, Instruction) else None for one in operands)
        content = (operation, *map(id, taken), place, accepts, low, high)
        found = self._by_content.get(content)
        if found is None:
            found = self._by_content[content] = Instruction(operation, taken, place, accepts, low, high)
            self.instructions.append(found)
        return found


def _layout(type_: pa.DataType) -> tuple[int, int]:
    found = layout(type_)
    if found is None:
        raise Unknown
    return found


def _words(scalar: pa.Scalar) -> tuple[int, int]:
    """The two halves of a number of up to 128 bits; a float is its bits."""
    if pt.is_boolean(scalar.type):
        return int(scalar.as_py()), 0
    bits = pa.array([scalar]).buffers()[1].to_pybytes()[: scalar.type.bit_width // 8]
    number = int.from_bytes(bits, "little", signed=True)
    low = number & (2**64 - 1)
    return low - (low >> 63 << 64), number >> 64
