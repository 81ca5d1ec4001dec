"""Groups in the buffers of the library in C."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.units import as_size
from app.framing.native import GroupsColumn, GroupsTable, GroupsTotal

_NUMBER, _TEXT, _ROW = range(3)
_KINDS = ("rows", "valid", "sum", "min", "max", "first", "last")
_SIGNED, _UNSIGNED, _FLOATING, _CHARACTERS = range(4)
_NOTHING, _GROUPS, _KEY_BYTES, _TEXT_BYTES = range(4)
_BLOCK_ROWS = 1024
_SPAN_BYTES = 16
_LEAST_GROUPS = 32
_MOST_BYTES = 2**31 - 1
"""What 32-bit offsets of texts can tell."""
_SEED = int.from_bytes(os.urandom(8), "little")


class _Growing:
    """A buffer that grows by zeros."""

    def __init__(self) -> None:
        self._buffer = pa.allocate_buffer(0, resizable=True)

    @property
    def nbytes(self) -> int:
        return int(self._buffer.size)

    @property
    def address(self) -> int:
        return int(self._buffer.address)

    def resize(self, nbytes: int) -> None:
        before = self.nbytes
        self._buffer.resize(nbytes)
        if nbytes > before:
            ctypes.memset(self.address + before, 0, nbytes - before)


class NativeTable:
    """See ``groups._Table``."""

    def __init__(
        self,
        library: ctypes.CDLL,
        keys: Sequence[pa.DataType],
        totals: Sequence[tuple[str, pa.DataType, pa.DataType]],
        most_bytes: int,
    ) -> None:
        self._library = library
        self._key_types = list(keys)
        self._most_bytes = min(most_bytes, _MOST_BYTES)
        self._keys = (GroupsColumn * len(keys))(*(GroupsColumn(0, 0, 0, 0, 0, *_layout(type_)) for type_ in keys))
        self._totals = (GroupsTotal * len(totals))()
        self._total_types = [result_type for *_, result_type in totals]
        self._state_bytes: list[int] = []
        for made, (kind, type_, _) in zip(self._totals, totals, strict=True):
            made.kind = _KINDS.index(kind)
            made.in_ = GroupsColumn(0, 0, 0, 0, 0, *((_SIGNED, 8) if kind in ("rows", "valid") else _layout(type_)))
            is_whole = kind == "sum" and made.in_.family != _FLOATING
            is_text = made.in_.family == _CHARACTERS
            width = 8 if kind == "sum" else made.in_.width
            self._state_bytes.append(16 if is_whole else _SPAN_BYTES if is_text else width)
        family, width = _layout(keys[0]) if len(keys) == 1 else (_SIGNED, 0)
        mode = _TEXT if family == _CHARACTERS else _NUMBER if len(keys) == 1 and width in (1, 2, 4, 8) else _ROW
        self._table = GroupsTable(mode=mode, keys=len(keys), totals=len(totals), seed=_SEED)
        self._entry_bytes = 8 if mode == _NUMBER else 16
        self._group_bytes = self._entry_bytes + sum(self._state_bytes) + len(totals)
        self._entries, self._slots, self._arena = _Growing(), _Growing(), _Growing()
        self._states = [(_Growing(), _Growing(), _Growing()) for _ in totals]
        self._reset()

    def __len__(self) -> int:
        return int(self._table.groups)

    @property
    def nbytes(self) -> int:
        """All buffers."""
        return sum(buffer.nbytes for buffer in (self._entries, self._slots, *self._arenas())) + sum(
            state.nbytes + seen.nbytes for state, seen, _ in self._states
        )

    def add(self, keys: Sequence[pa.Array], values: Sequence[pa.Array | None], rows: int) -> int:
        """See ``Groups.add``."""
        for column, array in zip(self._keys, keys, strict=True):
            _point(column, array)
        for total, value in zip(self._totals, values, strict=True):
            if value is not None:
                _point(total.in_, value)
        row = 0
        table = ctypes.addressof(self._table)
        while row < rows:
            row = self._library.weir_groups_add(table, self._keys, self._totals, row, rows)
            if row < 0:
                raise OverflowError("a sum takes more than 128 bits")
            wants = self._table.wants
            if wants == _NOTHING or self._has_grown(wants):
                continue
            if wants >= _TEXT_BYTES and self._table.block > 1:
                self._table.block = 1
            elif not len(self):
                raise Refusal(
                    "state_too_large", f"one group alone takes more than the {as_size(self._most_bytes)} there are"
                )
            else:
                break
        return row

    def keys(self) -> list[pa.Array]:
        """The keys of all groups."""
        made = [_Made(type_, len(self)) for type_ in self._key_types]
        columns = (GroupsColumn * len(made))(*(one.column for one in made))
        if any(one.is_text for one in made):
            self._library.weir_groups_keys(ctypes.addressof(self._table), columns)
        for one, column in zip(made, columns, strict=True):
            one.allocate(column)
        self._library.weir_groups_keys(ctypes.addressof(self._table), columns)
        return [one.array() for one in made]

    def totals(self) -> list[pa.Array]:
        """The totals of all groups."""
        arrays = []
        for total, type_ in zip(self._totals, self._total_types, strict=True):
            one = _Made(type_, len(self))
            column = one.column
            arguments = (ctypes.addressof(self._table), ctypes.addressof(total), ctypes.addressof(column))
            if one.is_text:
                self._library.weir_groups_total(*arguments)
            one.allocate(column)
            if self._library.weir_groups_total(*arguments):
                raise OverflowError(f"a sum does not fit {type_}")
            arrays.append(one.array())
        return arrays

    def clear(self) -> None:
        """No group any more."""
        for (state, seen, _), state_bytes in zip(self._states, self._state_bytes, strict=True):
            ctypes.memset(state.address, 0, state_bytes * len(self))
            ctypes.memset(seen.address, 0, len(self))
        self._reset()

    def _reset(self) -> None:
        table = self._table
        table.groups = table.arena_used = 0
        table.null_group = -1
        table.block = _BLOCK_ROWS
        for total in self._totals:
            total.arena_used = 0
        if table.most_groups:
            self._library.weir_groups_index(ctypes.addressof(table))

    def _arenas(self) -> list[_Growing]:
        return [self._arena, *(arena for _, _, arena in self._states)]

    def _has_grown(self, wants: int) -> bool:
        if wants == _GROUPS:
            return self._has_more_groups()
        owner, arena = (
            (self._table, self._arena)
            if wants == _KEY_BYTES
            else (self._totals[wants - _TEXT_BYTES], self._states[wants - _TEXT_BYTES][2])
        )
        least = owner.arena_used + self._table.needed_bytes
        nbytes = min(max(2 * arena.nbytes, least), arena.nbytes + self._most_bytes - self.nbytes)
        if nbytes < least:
            return False
        arena.resize(nbytes)
        owner.arena, owner.arena_bytes = arena.address, nbytes
        return True

    def _has_more_groups(self) -> bool:
        table = self._table
        before, slots = table.most_groups, self._slots.nbytes // 4
        rest_bytes = self._most_bytes - sum(arena.nbytes for arena in self._arenas())
        most, slots = max(
            (min(max(_LEAST_GROUPS, 2 * before), count // 2, (rest_bytes - 4 * count) // self._group_bytes), count)
            for count in (slots, max(2 * _LEAST_GROUPS, 2 * slots))
        )
        if most <= before:
            return False
        self._entries.resize(self._entry_bytes * most)
        for (state, seen, _), total, state_bytes in zip(self._states, self._totals, self._state_bytes, strict=True):
            state.resize(state_bytes * most)
            seen.resize(most)
            total.state, total.seen = state.address, seen.address
        self._slots.resize(4 * slots)
        table.entries, table.slots = self._entries.address, self._slots.address
        table.mask, table.most_groups = slots - 1, most
        self._library.weir_groups_index(ctypes.addressof(table))
        return True


class _Made:
    """An array of a result while it is made; texts are measured first."""

    def __init__(self, type_: pa.DataType, rows: int) -> None:
        self._type, self._rows = type_, rows
        self.is_text = _layout(type_)[0] == _CHARACTERS
        self.column = GroupsColumn(0, 0, 0, 0, 0, *_layout(type_))
        self._buffers: list[pa.Buffer] = []

    def allocate(self, column: GroupsColumn) -> None:
        """Room for what was measured."""
        self._buffers = [pa.allocate_buffer((self._rows + 7) // 8)]
        if self.is_text:
            self._buffers += [pa.allocate_buffer(column.width * (self._rows + 1)), pa.allocate_buffer(column.nbytes)]
            column.offsets = self._buffers[1].address
            ctypes.memset(column.offsets, 0, column.width)
        else:
            self._buffers.append(pa.allocate_buffer(column.width * self._rows))
        column.validity, column.values, column.nbytes = self._buffers[0].address, self._buffers[-1].address, 0

    def array(self) -> pa.Array:
        return pa.Array.from_buffers(self._type, self._rows, self._buffers)


def _layout(type_: pa.DataType) -> tuple[int, int]:
    """The family of a type, and the bytes of its values, or of its offsets."""
    if pt.is_string(type_) or pt.is_binary(type_):
        return _CHARACTERS, 4
    if pt.is_large_string(type_) or pt.is_large_binary(type_):
        return _CHARACTERS, 8
    family = _FLOATING if pt.is_floating(type_) else _UNSIGNED if pt.is_unsigned_integer(type_) else _SIGNED
    return family, type_.bit_width // 8


def _point(column: GroupsColumn, array: pa.Array) -> None:
    validity, *parts = array.buffers()
    column.validity = validity.address if array.null_count else None
    column.values = parts[-1].address if parts[-1] is not None else None
    column.offsets = parts[0].address if len(parts) > 1 else None
    column.offset = array.offset
