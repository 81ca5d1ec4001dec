"""A lookup table, and where its keys are."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.unset import unset_bytes
from app.framing.native import LIBRARY, Keys
from app.framing.needs import field_called, folded

_SLOT_BYTES = 16
_MOST_ROWS = 2**31 - 2


@dataclass(frozen=True, slots=True)
class Found:
    """What an index has for keys: ``rows`` (``count`` of int32), -1 where there is none. Where some were left out for that,
    ``kept`` has the places of the others among what was asked for. ``missing`` is how many have none, ``length_sum`` of
    the lengths of the rows that were found."""

    rows: pa.Buffer
    kept: pa.Buffer | None
    count: int
    missing: int
    length_sum: int

    def part(self, start: int, count: int, lengths: pa.Array | None) -> Found:
        """``count`` of them from ``start`` on, of which none has been left out; ``missing`` stays that of all."""
        rows = self.rows.slice(4 * start, 4 * count)
        found = pa.Array.from_buffers(pa.int32(), count, [None, rows])
        matched = found if not self.missing else found.filter(pc.greater_equal(found, 0))
        return Found(rows, None, count, self.missing, _sum_at(lengths, matched))


class KeyIndex:
    """Finds the rows of keys: one array of numbers or texts, none of them null, all different.

    Raises ``bad_lookup`` where a key is there twice.
    """

    def __init__(self, keys: pa.Array, named: str) -> None:
        self._keys = keys
        self._slots: pa.Buffer | None = None
        if LIBRARY is None or not len(keys):
            self._check_distinct(named)
            return
        count = 1 << (2 * len(keys) - 1).bit_length()
        self._mask = count - 1
        self._slots = pa.allocate_buffer(_SLOT_BYTES * count)
        ctypes.memset(self._slots.address, 0, self._slots.size)
        self._indexed = _described(keys)
        twin = LIBRARY.weir_index(ctypes.addressof(self._indexed), self._slots.address, self._mask)
        if twin >= 0:
            raise _twice(named, keys[twin].as_py(), int(twin))

    @property
    def nbytes(self) -> int:
        """What it occupies."""
        return int(self._keys.nbytes) + (self._slots.size if self._slots is not None else 0)

    def find(self, wanted: pa.Array, *, dropping: bool = False, lengths: pa.Array | None = None) -> Found:
        """The rows of ``wanted``, of the keys' type. ``dropping`` leaves those out that have none; ``lengths`` has a
        number (int32) for each row of the table."""
        count = len(wanted)
        if self._slots is None:
            return self._found_by_arrow(wanted, dropping, lengths)
        assert LIBRARY is not None
        asked = _described(wanted)
        rows = pa.py_buffer(unset_bytes(4 * count))
        kept = pa.py_buffer(unset_bytes(4 * count)) if dropping else None
        length_sum = ctypes.c_int64()
        missing = LIBRARY.weir_find(
            *(ctypes.addressof(asked), ctypes.addressof(self._indexed), self._slots.address, self._mask),
            None if lengths is None else lengths.buffers()[1].address + 4 * lengths.offset,
            *(rows.address, None if kept is None else kept.address, ctypes.byref(length_sum)),
        )
        return Found(rows, kept if missing else None, count - missing if dropping else count, missing, length_sum.value)

    def _found_by_arrow(self, wanted: pa.Array, dropping: bool, lengths: pa.Array | None) -> Found:
        found = pc.index_in(wanted, value_set=self._keys, skip_nulls=True)
        matched = found.drop_null()
        is_left_out = dropping and found.null_count
        kept = pc.indices_nonzero(found.is_valid()).cast(pa.int32()).buffers()[1] if is_left_out else None
        rows = matched if dropping else found.fill_null(-1)
        return Found(rows.buffers()[1], kept, len(rows), found.null_count, _sum_at(lengths, matched))

    def _check_distinct(self, named: str) -> None:
        first = pc.index_in(self._keys, value_set=self._keys)
        twins = pc.indices_nonzero(pc.not_equal(first, pa.array(range(len(self._keys)), pa.int32())))
        if len(twins):
            raise _twice(named, self._keys[twins[0].as_py()].as_py(), twins[0].as_py())


@dataclass(slots=True)
class Lookup:
    """A table under a name. Its indices are made when they are first asked for, and kept with it."""

    name: str
    table: pa.RecordBatch
    _indices: dict[tuple[str, ...], KeyIndex] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        """What it occupies, with its indices."""
        return int(self.table.nbytes) + sum(index.nbytes for index in self._indices.values())

    def column(self, name: str) -> str:
        """The name of the column that a user calls ``name``; ``bad_argument`` if there is none, or more than one."""
        index = field_called(folded(name), self.table.schema)
        if index is None:
            names = ", ".join(self.table.schema.names[:20])
            raise Refusal("bad_argument", f"the lookup table {self.name} has no column {name!r}; it has {names}")
        return str(self.table.schema.field(index).name)

    def index(self, columns: Sequence[str]) -> KeyIndex:
        """Where the keys in ``columns`` are. Raises ``bad_lookup``: a key is null, or there twice."""
        wanted = tuple(columns)
        with self._guard:
            if wanted not in self._indices:
                arrays = [self.table.column(name) for name in wanted]
                for name, array in zip(wanted, arrays, strict=True):
                    if array.null_count:
                        row = array.is_null().index(True).as_py()
                        raise Refusal("bad_lookup", f"{self.name}: the key {name!r} is null in row {row + 1}")
                self._indices[wanted] = KeyIndex(key_of(arrays), f"{self.name}: the key {', '.join(wanted)}")
            return self._indices[wanted]


def key_of(arrays: Sequence[pa.Array]) -> pa.Array:
    """One array of int64 or of binary that is equal where all of ``arrays`` are; null where one of them is."""
    if len(arrays) == 1:
        return _plain_key(arrays[0])
    texts = [_plain_key(array).cast(pa.string()).cast(pa.binary()) for array in arrays]
    # Each with its length before it, so that no two rows can look alike.
    parts = [part for text in texts for part in (pc.binary_length(text).cast(pa.string()).cast(pa.binary()), text)]
    return pc.binary_join_element_wise(*parts, b":")


def key_type(type_: pa.DataType) -> str:
    """Equal for types whose values can be compared as keys."""
    if pt.is_integer(type_) and type_ != pa.uint64():
        return "integer"
    if pt.is_string(type_) or pt.is_large_string(type_):
        return "text"
    if pt.is_date(type_):
        return "date"
    return str(type_)


def is_key(type_: pa.DataType) -> bool:
    """Whether values of the type may be keys: no floats, which are rarely equal, and nothing nested."""
    plain = pt.is_integer(type_) or pt.is_temporal(type_) or pt.is_decimal(type_) or pt.is_boolean(type_)
    return bool(plain or pt.is_string(type_) or pt.is_large_string(type_))


def _plain_key(array: pa.Array) -> pa.Array:
    type_ = array.type
    if pt.is_string(type_):
        return pa.Array.from_buffers(pa.binary(), len(array), array.buffers(), array.null_count, array.offset)
    if pt.is_large_string(type_):
        return array.cast(pa.string()).cast(pa.binary())
    if pt.is_integer(type_) and type_ != pa.uint64():
        return array.cast(pa.int64())
    if pt.is_date(type_):
        return array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
    if pt.is_timestamp(type_):
        return array.cast(pa.int64())
    return array.cast(pa.string()).cast(pa.binary())


def _sum_at(lengths: pa.Array | None, rows: pa.Array) -> int:
    return 0 if lengths is None else pc.sum(lengths.take(rows)).as_py() or 0


def _described(array: pa.Array) -> Keys:
    """``array``, of int64 or of binary, to C; which keeps nothing of it alive."""
    validity, *parts = array.buffers()
    data = parts[-1].address if parts[-1] is not None else 0
    is_null = validity.address if validity is not None and array.null_count else None
    if pt.is_int64(array.type):
        return Keys(None, None, data + 8 * array.offset, is_null, array.offset, len(array))
    return Keys(data or parts[0].address, parts[0].address + 4 * array.offset, None, is_null, array.offset, len(array))


def _twice(named: str, key: object, row: int) -> Refusal:
    shown = key.decode(errors="replace") if isinstance(key, bytes) else key
    return Refusal("bad_lookup", f"{named} {str(shown)[:80]!r} is there twice, again in row {row + 1}")
