"""Groups in a dictionary, for where there was no C compiler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.units import as_size

_VALUE_BYTES = 100
"""What Python keeps of a value, its place in a list, and its part of a dictionary, without the text of it."""
_DIGITS = 100


class PlainTable:
    """See ``groups._Table``."""

    def __init__(
        self, keys: Sequence[pa.DataType], totals: Sequence[tuple[str, pa.DataType, pa.DataType]], most_bytes: int
    ) -> None:
        self._key_types = list(keys)
        self._totals = list(totals)
        self._most_bytes = most_bytes
        self._states: dict[tuple[Any, ...], list[Any]] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def nbytes(self) -> int:
        """About."""
        return self._nbytes

    @property
    def used_bytes(self) -> int:
        """The same."""
        return self._nbytes

    def add(
        self,
        keys: Sequence[pa.Array],
        values: Sequence[pa.Array | None],
        leads: pa.Array | None,
        rows: int,
        *,
        are_totals: bool,
    ) -> int:
        """See ``Groups.add`` and ``merge``."""
        columns = [[None] * rows if leads is None else leads.to_pylist(), *(_listed(array) for array in keys)]
        added = [[None] * rows if array is None else _listed(array) for array in values]
        with localcontext(prec=_DIGITS):
            for row in range(rows):
                key = tuple(column[row] for column in columns)
                more = [column[row] for column in added]
                state = self._states.get(key)
                nbytes = sum(_text_bytes(value) for value in more)
                if state is None:
                    nbytes += _VALUE_BYTES * (1 + len(key) + len(more)) + sum(_text_bytes(value) for value in key)
                if self._nbytes + nbytes > self._most_bytes:
                    if not self._states:
                        detail = f"one group alone takes more than the {as_size(self._most_bytes)} there are"
                        raise Refusal("state_too_large", detail)
                    return row
                self._nbytes += nbytes
                if state is None:
                    state = self._states[key] = [0 if kind in ("rows", "valid") else () for kind, *_ in self._totals]
                for i, (kind, *_) in enumerate(self._totals):
                    state[i] = (
                        state[i] + more[i]
                        if are_totals and kind in ("rows", "valid")
                        else _added(kind, state[i], more[i])
                    )
        return rows

    def leads(self) -> pa.Array:
        """What leads all groups."""
        return pa.array([lead for lead, *_ in self._states], pa.int64())

    def keys(self) -> list[pa.Array]:
        """The keys of all groups."""
        return [_array([key[i] for key in self._states], type_) for i, type_ in enumerate(self._key_types, 1)]

    def totals(self, *, partial: bool) -> list[pa.Array]:
        """The totals of all groups."""
        arrays = []
        for i, (kind, _, result_type) in enumerate(self._totals):
            values = [state[i] if kind in ("rows", "valid") else state[i][0] if state[i] else None for state in self]
            if partial and kind == "sum" and pt.is_integer(result_type):
                result_type = pa.decimal128(38, 0)
                values = [None if value is None else Decimal(value) for value in values]
            try:
                arrays.append(_array(values, result_type))
            except (pa.ArrowInvalid, OverflowError) as error:
                raise OverflowError(f"a sum does not fit {result_type}") from error
        return arrays

    def firsts(self, start: int) -> pa.Array:
        """See ``Groups.firsts``."""
        return pa.array([state[0][0] for state in islice(self, start, None)], self._totals[0][2])

    def clear(self) -> None:
        """No group any more."""
        self._states.clear()
        self._nbytes = 0

    def __iter__(self) -> Any:
        return iter(self._states.values())


def _added(kind: str, state: Any, value: Any) -> Any:
    """The state with one value more: a number, or a tuple of one value, empty until there is one."""
    if kind == "rows":
        return state + 1
    if kind == "last" or (kind == "first" and not state):
        return (value,)
    if value is None or kind == "first":
        return state
    if kind == "valid":
        return state + 1
    if kind == "sum":
        return ((state[0] if state else 0.0 if isinstance(value, float) else 0) + value,)
    if not state:
        return (value,)
    less, more = (value, state[0]) if kind == "min" else (state[0], value)
    is_worse = more < less or (less != less and more == more)  # of 0.0 and -0.0 the later one is taken, as in DuckDB
    return state if is_worse else (value,)


def _listed(array: pa.Array) -> list[Any]:
    """Values of Python: of times their numbers, and one NaN."""
    if pt.is_temporal(array.type) and array.type != pa.month_day_nano_interval():
        array = array.view(_numbers(array.type))
    values: list[Any] = array.to_pylist()
    return [math.nan if value != value else value for value in values] if pt.is_floating(array.type) else values


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    if pt.is_temporal(type_) and type_ != pa.month_day_nano_interval():
        return pa.array(values, _numbers(type_)).view(type_)
    return pa.array(values, type_)


def _numbers(type_: pa.DataType) -> pa.DataType:
    return pa.int32() if type_.bit_width == 32 else pa.int64()


def _text_bytes(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 0
