"""The machine of ``program.c``: what it does, by the numbers that it gives that, and the columns that it knows."""

from __future__ import annotations

from enum import IntEnum, auto

import pyarrow as pa
import pyarrow.types as pt

from app.framing.native.kinds import BOOL, STRING

REGISTERS = 24
"""As many as ``program.c`` has."""


class Operation(IntEnum):
    """As in ``program.c``."""

    LOAD_BOOL = 0
    LOAD_INT8 = auto()
    LOAD_INT16 = auto()
    LOAD_INT32 = auto()
    LOAD_WORD = auto()
    LOAD_VALID = auto()
    BOOL_TO_INT = auto()
    INT_TO_DOUBLE = auto()
    ADD = auto()
    SUBTRACT = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    ADD_CHECKED = auto()
    SUBTRACT_CHECKED = auto()
    MULTIPLY_CHECKED = auto()
    CHECK_INT32 = auto()
    EQUAL = auto()
    NOT_EQUAL = auto()
    LESS = auto()
    LESS_EQUAL = auto()
    INT_EQUAL = auto()
    INT_NOT_EQUAL = auto()
    INT_LESS = auto()
    INT_LESS_EQUAL = auto()
    COMPARE_TEXT = auto()
    COMPARE_DECIMAL = auto()
    STARTS_WITH = auto()
    ENDS_WITH = auto()
    CONTAINS = auto()
    AND = auto()
    OR = auto()
    NOT = auto()
    IS_VALID = auto()
    FILTER = auto()
    PUT_BOOL = auto()
    PUT_INT32 = auto()
    PUT_WORD = auto()
    PUT_COLUMN = auto()


def layout(type_: pa.DataType) -> tuple[int, int] | None:
    """How a column of ``type_`` lies: its kind, and how many bytes a value has if all have so many; None
    if the machine does not know it."""
    if pt.is_boolean(type_):
        return BOOL, 0
    if pt.is_string(type_) or pt.is_binary(type_):
        return STRING, 0
    is_fixed = pt.is_primitive(type_) or pt.is_decimal(type_) or pt.is_fixed_size_binary(type_)
    if not is_fixed or type_.bit_width not in (8, 16, 32, 64, 128):
        return None
    return 0, type_.bit_width // 8
