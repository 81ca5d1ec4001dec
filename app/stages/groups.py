"""Rows to groups and their totals, in bounded memory and in the order of the rows.

By the library in C where there is one (``groups_table``), otherwise by a plain loop (``groups_plain``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.framing.native import LIBRARY
from app.stages.groups_plain import PlainTable
from app.stages.groups_table import NativeTable

Kind = Literal["rows", "valid", "sum", "min", "max", "first", "last"]


@dataclass(frozen=True, slots=True)
class Total:
    """Of each group its ``rows``, those whose value is ``valid``, or what the kind is called, of values of ``type``.

    Nulls are left out, but by ``first`` and ``last``. A sum of whole numbers is int64, or as ``wide`` a decimal of 38
    digits, which those of decimals have too; that of floats is float64 and added in the order of the rows. A NaN is
    greater than any other number.
    """

    kind: Kind
    type: pa.DataType
    wide: bool = False

    @property
    def result_type(self) -> pa.DataType:
        """The type of the total."""
        if self.kind in ("rows", "valid"):
            return pa.int64()
        if self.kind != "sum":
            return self.type
        if pt.is_decimal(self.type):
            return pa.decimal128(38, self.type.scale)
        if pt.is_floating(self.type):
            return pa.float64()
        return pa.decimal128(38, 0) if self.wide else pa.int64()


class _Table(Protocol):
    """Groups of rows whose columns are of those types that ``_stand_in`` gives. ``clear`` makes it empty."""

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def used_bytes(self) -> int: ...

    def add(
        self,
        keys: Sequence[pa.Array],
        values: Sequence[pa.Array | None],
        leads: pa.Array | None,
        rows: int,
        *,
        are_totals: bool,
    ) -> int: ...

    def leads(self) -> pa.Array: ...

    def keys(self) -> list[pa.Array]: ...

    def totals(self, *, partial: bool) -> list[pa.Array]: ...

    def firsts(self, start: int) -> pa.Array: ...

    def clear(self) -> None: ...


class Groups:
    """Groups that have the same ``keys``, with their ``totals``. Nulls are equal, so are NaNs, and so are 0.0 and -0.0.

    It takes ``most_bytes``, and what grows is there twice for a moment. If it is ``led``, each row also has a number, the
    lead, that tells groups apart: cheaper than one key more.
    """

    def __init__(
        self, keys: Sequence[pa.DataType], totals: Sequence[Total], *, most_bytes: int, led: bool = False
    ) -> None:
        wanted: list[tuple[Kind | Literal["key"], pa.DataType]] = [("key", type_) for type_ in keys]
        wanted += [(total.kind, total.type) for total in totals]
        for kind, type_ in wanted:
            if not supported(kind, type_):
                raise ValueError(f"there is no {kind} of {type_}")
        self._key_types = [_stand_in("key", type_) for type_ in keys]
        self._value_types = [_stand_in(total.kind, total.type) for total in totals]
        self._led = led
        fields = [*([pa.field("lead", pa.int64())] if led else []), *(pa.field(f"k{i}", t) for i, t in enumerate(keys))]
        self.schema = pa.schema([*fields, *(pa.field(f"t{i}", total.result_type) for i, total in enumerate(totals))])
        made = [
            (total.kind, type_, _stand_in(total.kind, total.result_type) if total.kind != "sum" else total.result_type)
            for total, type_ in zip(totals, self._value_types, strict=True)
        ]
        self._table: _Table = (
            PlainTable(self._key_types, made, most_bytes)
            if LIBRARY is None
            else NativeTable(LIBRARY, self._key_types, made, most_bytes, led=led)
        )

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """What it occupies."""
        return self._table.nbytes

    @property
    def used_bytes(self) -> int:
        """What of this is taken, but for the index of groups."""
        return self._table.used_bytes

    def add(self, keys: Sequence[pa.Array], values: Sequence[pa.Array | None], leads: pa.Array | None = None) -> int:
        """Adds rows in their order, with a value for each total but those of rows. Gives how many: where they are fewer,
        it is full, and takes the others once it is empty again.

        Raises ``state_too_large`` for a row that is too large for an empty one; ``OverflowError`` for a sum of decimals
        beyond 128 bits, and then it is of no more use.
        """
        rows = len(next((array for array in (leads, *keys, *values) if array is not None), ()))
        return self._table.add(
            [_plain(array, type_, is_key=True) for array, type_ in zip(keys, self._key_types, strict=True)],
            [
                None if array is None else _plain(array, type_, is_key=False)
                for array, type_ in zip(values, self._value_types, strict=True)
            ],
            leads,
            rows,
            are_totals=False,
        )

    def merge(self, partial: pa.RecordBatch, leads: pa.Array | None = None) -> int:
        """``add`` of groups that ``take_partial`` has given, here or elsewhere; ``leads`` instead of theirs."""
        columns = partial.columns
        keys = columns[self._led : self._led + len(self._key_types)]
        return self._table.add(
            [_plain(array, type_, is_key=True) for array, type_ in zip(keys, self._key_types, strict=True)],
            [_plain(array, _stand_in("first", array.type), is_key=False) for array in columns[self._led + len(keys) :]],
            leads if leads is not None or not self._led else columns[0],
            partial.num_rows,
            are_totals=True,
        )

    def firsts(self, start: int) -> pa.Array:
        """Of groups from ``start`` on, in the order in which they first came, the first total: the first of numbers of which
        none is null."""
        return self._table.firsts(start)

    def take(self) -> pa.RecordBatch:
        """Leads, keys (``k0``…), and totals (``t0``…), in the order in which groups first came; then it is empty, and
        keeps its memory for others. Raises ``OverflowError`` where a sum does not fit."""
        return self._taken(partial=False)

    def take_partial(self) -> pa.RecordBatch:
        """``take``, but sums of whole numbers are decimals, and no sum need fit yet."""
        return self._taken(partial=True)

    def _taken(self, *, partial: bool) -> pa.RecordBatch:
        leads = [self._table.leads()] if self._led else []
        arrays = [*leads, *self._table.keys(), *self._table.totals(partial=partial)]
        cast = [
            array if partial and pt.is_decimal(array.type) else _restored(array, field.type)
            for array, field in zip(arrays, self.schema, strict=True)
        ]
        self._table.clear()
        return pa.RecordBatch.from_arrays(cast, names=self.schema.names)


def supported(kind: Kind | Literal["key"], type_: pa.DataType) -> bool:
    """Whether values of the type can be keys, or have a total of the kind."""
    if kind in ("rows", "valid"):
        return True
    plain = _stand_in(kind, type_)
    if kind == "sum":
        return bool(pt.is_integer(plain) or pt.is_floating(plain) or pt.is_decimal(plain))
    is_text = _is_text(plain)
    if kind in ("min", "max"):
        is_ordered = pt.is_integer(plain) or pt.is_floating(plain) or pt.is_decimal(plain) or pt.is_temporal(plain)
        return bool(is_text or (is_ordered and plain != pa.month_day_nano_interval()))
    return bool(is_text or (pt.is_primitive(plain) or pt.is_decimal(plain) or pt.is_fixed_size_binary(plain)))


def _is_text(type_: pa.DataType) -> bool:
    return bool(pt.is_string(type_) or pt.is_large_string(type_) or pt.is_binary(type_) or pt.is_large_binary(type_))


def _stand_in(kind: str, type_: pa.DataType) -> pa.DataType:
    """The type that values are grouped in: one of whole bytes, of which tables have heard."""
    if pt.is_decimal(type_) and kind in ("sum", "min", "max"):
        return pa.decimal128(38, type_.scale) if not pt.is_decimal128(type_) else type_
    stand_ins = {
        pa.null(): pa.int8(),
        pa.bool_(): pa.bool_() if kind == "sum" else pa.uint8(),
        pa.float16(): pa.float32(),
        pa.string_view(): pa.string(),
        pa.binary_view(): pa.binary(),
    }
    return stand_ins.get(type_, type_)


def _plain(array: pa.Array, type_: pa.DataType, *, is_key: bool) -> pa.Array:
    array = array if array.type == type_ else array.cast(type_)
    if is_key and pt.is_floating(type_):
        nan = pa.scalar(float("nan"), type_)
        return pc.if_else(pc.is_nan(array), nan, pc.add(array, pa.scalar(0.0, type_)))  # -0.0 + 0.0 is 0.0
    return array


def _restored(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if pt.is_null(type_):
        return pa.nulls(len(array))
    return array if array.type == type_ else array.cast(type_)
