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
_KINDS = ("rows", "valid", "sum", "min", "max", "first", "last", "counted")
_SIGNED, _UNSIGNED, _FLOATING, _CHARACTERS = range(4)
_NOTHING, _GROUPS, _KEY_BYTES, _TEXT_BYTES = range(4)
_BLOCK_ROWS = 1024
_ENTRY_BYTES = 16
_SPAN_BYTES = 16
_LEAST_GROUPS = 32
_SPARSE_SLOTS = 1 << 14
"""64 KiB: more would push out of a core's own cache what else is needed."""
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
        *,
        led: bool,
    ) -> None:
        self._library = library
        self._key_types = list(keys)
        self._most_bytes = min(most_bytes, _MOST_BYTES)
        self._keys = (GroupsColumn * len(keys))(*(GroupsColumn(0, 0, 0, 0, 0, *_layout(type_)) for type_ in keys))
        self._totals = (GroupsTotal * len(totals))()
        self._total_types = [result_type for *_, result_type in totals]
        self._of_rows = [(_KINDS.index(kind), *_layout(type_)) for kind, type_, _ in totals]
        self._of_totals = [
            (_KINDS.index("counted" if kind in ("rows", "valid") else kind), *_layout(_partial(kind, result_type)))
            for kind, _, result_type in totals
        ]
        # Sums of whole numbers are kept in 16 bytes, and texts as spans.
        self._state_bytes = [_SPAN_BYTES if family == _CHARACTERS else width for _, family, width in self._of_totals]
        family, width = _layout(keys[0]) if len(keys) == 1 else (_SIGNED, 0)
        mode = _TEXT if family == _CHARACTERS else _NUMBER if len(keys) == 1 and width in (1, 2, 4, 8) else _ROW
        self._table = GroupsTable(mode=mode, keys=len(keys), totals=len(totals), seed=_SEED)
        self._lead_bytes = 8 if led else 0
        self._group_bytes = _ENTRY_BYTES + self._lead_bytes + sum(self._state_bytes) + len(totals)
        self._entries, self._leads, self._slots, self._arena = _Growing(), _Growing(), _Growing(), _Growing()
        self._states = [(_Growing(), _Growing(), _Growing()) for _ in totals]
        self._reset()

    def __len__(self) -> int:
        return int(self._table.groups)

    @property
    def nbytes(self) -> int:
        """All buffers."""
        buffers = (
            self._entries,
            self._leads,
            self._slots,
            self._arena,
            *(one for state in self._states for one in state),
        )
        return sum(buffer.nbytes for buffer in buffers)

    @property
    def used_bytes(self) -> int:
        """What of these groups are in, without the index."""
        texts = self._table.arena_used + sum(total.arena_used for total in self._totals)
        return int(self._group_bytes * len(self) + texts)

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
        for column, array in zip(self._keys, keys, strict=True):
            _point(column, array)
        layouts = self._of_totals if are_totals else self._of_rows
        for total, value, (kind, family, width) in zip(self._totals, values, layouts, strict=True):
            total.kind, total.in_.family, total.in_.width = kind, family, width
            if value is not None:
                _point(total.in_, value)
        first = leads.buffers()[1].address + 8 * leads.offset if leads is not None else None
        row = 0
        table = ctypes.addressof(self._table)
        while row < rows:
            row = self._library.weir_groups_add(table, self._keys, first, self._totals, row, rows)
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

    def leads(self) -> pa.Array:
        """What leads all groups."""
        copy = ctypes.string_at(self._leads.address, self._lead_bytes * len(self))
        return pa.Array.from_buffers(pa.int64(), len(self), [None, pa.py_buffer(copy)])

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

    def totals(self, *, partial: bool) -> list[pa.Array]:
        """The totals of all groups."""
        arrays = []
        for total, type_, (kind, family, width) in zip(self._totals, self._total_types, self._of_rows, strict=True):
            total.kind, total.in_.family, total.in_.width = kind, family, width
            one = _Made(_partial(_KINDS[kind], type_) if partial else type_, len(self))
            column = one.column
            arguments = (ctypes.addressof(self._table), ctypes.addressof(total), ctypes.addressof(column))
            if one.is_text:
                self._library.weir_groups_total(*arguments, partial)
            one.allocate(column)
            if self._library.weir_groups_total(*arguments, partial):
                raise OverflowError(f"a sum does not fit {type_}")
            arrays.append(one.array())
        return arrays

    def firsts(self, start: int) -> pa.Array:
        """See ``Groups.firsts``."""
        count, state_bytes = len(self) - start, self._state_bytes[0]
        numbers = ctypes.string_at(self._states[0][0].address + state_bytes * start, state_bytes * count)
        return pa.Array.from_buffers(self._total_types[0], count, [None, pa.py_buffer(numbers)])

    def clear(self) -> None:
        """No group any more."""
        for (state, seen, _), state_bytes in zip(self._states, self._state_bytes, strict=True):
            ctypes.memset(state.address, 0, state_bytes * len(self))
            ctypes.memset(seen.address, 0, len(self))
        self._reset()

    def _reset(self) -> None:
        table = self._table
        table.groups = table.arena_used = 0
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
            (
                (
                    min(max(_LEAST_GROUPS, 2 * before), _room(count), (rest_bytes - 4 * count) // self._group_bytes),
                    count,
                )
                for count in (slots, max(4 * _LEAST_GROUPS, 2 * slots))
            ),
            key=lambda one: (one[0], -one[1]),
        )
        if most <= before:
            return False
        self._entries.resize(_ENTRY_BYTES * most)
        self._leads.resize(self._lead_bytes * most)
        for (state, seen, _), total, state_bytes in zip(self._states, self._totals, self._state_bytes, strict=True):
            state.resize(state_bytes * most)
            seen.resize(most)
            total.state, total.seen = state.address, seen.address
        self._slots.resize(4 * slots)
        table.entries, table.slots = self._entries.address, self._slots.address
        table.leads = self._leads.address if self._lead_bytes else None
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
    return family, 0 if pt.is_null(type_) else type_.bit_width // 8


def _room(slots: int) -> int:
    """How many groups slots are for: few are spread out, so that one is mostly found at once."""
    return slots // 4 if slots <= _SPARSE_SLOTS else slots * 3 // 4


def _partial(kind: str, result_type: pa.DataType) -> pa.DataType:
    return pa.decimal128(38, 0) if kind == "sum" and pt.is_integer(result_type) else result_type


def _point(column: GroupsColumn, array: pa.Array) -> None:
    validity, *parts = array.buffers()
    column.validity = validity.address if array.null_count else None
    column.values = parts[-1].address if parts[-1] is not None else None
    column.offsets = parts[0].address if len(parts) > 1 else None
    column.offset = array.offset
