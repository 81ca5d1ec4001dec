"""Cuts record batches where their text would be much larger than they are, before a writer makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from app.core.page import Page
from app.framing.json_text import joined_text

_LONGEST = {"bool": 5, "int8": 4, "int16": 6, "int32": 11, "int64": 20, "uint8": 3, "uint16": 5, "uint32": 10}
_LONGEST |= {"uint64": 20, "halffloat": 25, "float": 16, "double": 25, "date32[day]": 13, "time32[s]": 10}
"""Characters of the longest value of a type."""
_LONGEST_OTHER = 34
"""Characters of the longest timestamp or duration."""


class Slices:
    """Table pages to table pages whose text is at most 1.5 times what they were cut from, or ``page_bytes`` if that is more.

    ``control_factor`` is how many characters a writer makes of a control character in a text (any other becomes two at
    most), ``column_bytes(name)`` what it writes for a column in each row beside the value. Unsliced, the text of a page
    has no bound: a bit becomes ``false``, and an index into a dictionary a long text.
    """

    stateless = True
    holds = 0
    grows = 1.0  # slices share the buffers of the page; beside them the lengths of its texts are added up

    def __init__(self, name: str, *, page_bytes: int, control_factor: int, column_bytes: Callable[[str], int]) -> None:
        self.name = name
        self._page_bytes = page_bytes
        self._control_factor = control_factor
        self._column_bytes = column_bytes
        self._is_plain = False

    @property
    def brisk(self) -> bool:
        """The columns of the last page, which the next ones have too, are of types whose texts are soon measured."""
        return self._is_plain

    def feed(self, page: Page) -> Iterator[Page]:
        """``page`` in slices, often one. Its rejects go with the first."""
        most = max(page.nbytes * 3 // 2, self._page_bytes)
        first, rejects = page.first, page.rejects
        self._is_plain = all(_is_plain(type_) for type_ in page.payload.schema.types)
        waiting = [page.payload]
        while waiting:
            batch = waiting.pop()
            parts = min(batch.num_rows, -(-self.text_bytes(batch) // most))
            if parts > 1:
                rows = -(-batch.num_rows // parts)
                waiting += [batch.slice(start, rows) for start in range(0, batch.num_rows, rows)][::-1]
                continue
            nbytes = page.nbytes if batch is page.payload else max(1, batch.nbytes)
            yield Page(batch, nbytes, batch.num_rows, page.byte, page.line, first, rejects)
            first, rejects = False, ()

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def text_bytes(self, batch: pa.RecordBatch) -> int:
        """The most bytes that ``batch`` becomes as text."""
        between = sum(self._column_bytes(name) for name in batch.schema.names)
        return int(batch.num_rows) * between + sum(self._value_bytes(column) for column in batch.columns)

    def _value_bytes(self, array: pa.Array) -> int:
        kind, is_ = array.type, pa.types
        if is_.is_dictionary(kind):
            lengths = pc.take(self._lengths(array.dictionary), array.indices)
            return 4 * len(array) + int(pc.sum(lengths).as_py() or 0)
        if is_.is_struct(kind):
            names = sum(6 * len(field.name.encode()) + 4 for field in kind)
            return len(array) * (names + 4) + sum(self._value_bytes(child) for child in array.flatten())
        if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind) or is_.is_list_view(kind):
            values = pc.list_flatten(array)
            return 4 * len(array) + len(values) + self._value_bytes(values)
        if is_.is_decimal(kind):
            return len(array) * (int(kind.precision) + 8)
        if is_.is_string(kind) or is_.is_binary(kind):
            text = joined_text(array)
            return 4 * len(array) + len(text) * (self._control_factor if _has_control(text) else 2)
        if is_.is_fixed_size_binary(kind) or not is_.is_primitive(kind):
            return 4 * len(array) + int(pc.sum(self._lengths(array)).as_py() or 0)
        return len(array) * _LONGEST.get(str(kind), _LONGEST_OTHER)

    def _lengths(self, array: pa.Array) -> pa.Array:
        """The most characters of each value."""
        try:
            lengths = pc.binary_length(array)
        except pa.ArrowNotImplementedError:
            # A map, a run-end encoded value: seldom, and as Python has them.
            return pa.array([len(str(value)) * self._control_factor for value in array.to_pylist()], pa.int64())
        return pc.multiply(lengths.cast(pa.int64()), self._control_factor)


def _is_plain(type_: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(type_) or pa.types.is_string(type_) or pa.types.is_decimal(type_))


def _has_control(text: memoryview) -> bool:
    if not len(text):
        return False
    octets = pa.Array.from_buffers(pa.uint8(), len(text), [None, pa.py_buffer(text)])
    return bool(pc.min(octets).as_py() < 32)
