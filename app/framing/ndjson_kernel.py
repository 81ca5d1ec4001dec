"""NDJSON text to columns by C, for what is written plainly: four times as fast as pyarrow, which judges the rest.

What it reads is bit for bit what pyarrow reads (a property test holds the two side by side). Where anything is not
certain (a key that is not a column, a value of another type, a text that is not UTF-8) it gives nothing, and pyarrow
reads the block. The library is built with the package; without it, or for other types, pyarrow reads everything.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.types as pt

from app.framing.native import LIBRARY, Node
from app.framing.native.kinds import STRING, STRUCT, Kind, kind_of
from app.framing.native.room import Room
from app.framing.native.scratch import scratch

_MOST_FIELDS = 256
"""Of an object: beyond, keys in ever another order would be looked for too long."""
_KEY_PADDING_BYTES = 16
_SPAN_BYTES = 8


class NdjsonKernel:
    """Reads the columns of ``schema`` that are ``wanted`` (indices), and judges the others.

    ``most_bytes`` is what it may take for a while, beside the rows: blocks that need more are pyarrow's too, and so are
    those whose rows would occupy more than ``most_rows_bytes``. Calls may run on several threads at once; the GIL is given
    up for most of each.
    """

    def __init__(
        self, library: ctypes.CDLL, schema: pa.Schema, wanted: list[int], most_bytes: int, most_rows_bytes: float
    ) -> None:
        self._library = library
        self._most_bytes = most_bytes
        self._most_rows_bytes = most_rows_bytes
        self._schema = pa.schema([schema.field(index) for index in wanted])
        self._wanted = wanted
        # Breadth first: the row itself, its fields, and then what stands within these.
        self._fields: list[tuple[pa.DataType, Kind, bool]] = [(pa.struct(list(schema)), Kind(STRUCT), False)]
        self._children: list[range] = []
        keys: list[bytes] = [b""]
        for type_, _, used in self._fields:
            first = len(self._fields)
            for index, field in enumerate(type_ if pt.is_struct(type_) else ()):
                kind = Kind(STRUCT) if pt.is_struct(field.type) else kind_of(field.type)
                assert kind is not None
                self._fields.append((field.type, kind, used if len(self._children) else index in wanted))
                keys.append(b'"' + field.name.encode() + b'"')
            self._children.append(range(first, len(self._fields)))
        self._keys = ctypes.create_string_buffer(b"".join(keys) + bytes(_KEY_PADDING_BYTES))
        template = (Node * len(self._fields))()
        address = ctypes.addressof(self._keys)
        for node, (_, kind, _), children, key in zip(template, self._fields, self._children, keys, strict=True):
            node.key, node.key_bytes = address, len(key)
            node.kind, node.first, node.second = kind.code, kind.first, kind.second
            node.first_child, node.children = children.start, len(children)
            address += len(key)
        self._template = bytes(template)
        self._used = [(index, kind) for index, (_, kind, used) in enumerate(self._fields) if used]
        self._strings = [index for index, kind in self._used if kind.code == STRING]

    def read(self, data: bytes | memoryview, lines: int) -> pa.RecordBatch | None:
        """The rows of whole lines, in which no more than ``lines`` newlines stand; None where pyarrow has to look."""
        if not len(data):
            return None
        if data[-1] != _NEWLINE:
            data, lines = bytes(data) + b"\n", lines + 1
        text = pa.py_buffer(data)
        nodes = (Node * len(self._fields)).from_buffer_copy(self._template)
        fixed, spans, texts = Room(), Room(), Room()
        bits, places = (lines + 7) // 8, {}
        for index, kind in self._used:
            places[index] = [fixed.want(bits)]
            if kind.code == STRING:
                nodes[index].spans, _ = spans.want(_SPAN_BYTES * lines)
            elif kind.code != STRUCT:
                places[index].append(fixed.want(int(lines * kind.value_bytes) + 1))
        if spans.nbytes > self._most_bytes or fixed.nbytes > self._most_rows_bytes:
            return None
        fixed_at, spans_at = fixed.make(), scratch(spans.nbytes).address
        for index, kind in self._used:
            node, [(validity_at, _), *values] = nodes[index], places[index]
            node.validity = fixed_at + validity_at
            if values:
                node.values = fixed_at + values[0][0]
            elif kind.code == STRING:
                node.spans = spans_at + (node.spans or 0)
        rows = self._library.weir_json_rows(text.address, text.size, nodes, len(nodes), lines)
        if rows < 0:
            return None
        text_places = {i: (texts.want(4 * (rows + 1)), texts.want(nodes[i].nbytes + 32)) for i in self._strings}
        if fixed.nbytes + texts.nbytes > self._most_rows_bytes:
            return None
        if text_places:
            texts_at = texts.make()
            for index, (offsets, characters) in text_places.items():
                nodes[index].offsets, nodes[index].values = texts_at + offsets[0], texts_at + characters[0]
            self._library.weir_json_texts(text.address, text.size, nodes, len(nodes), rows)
        arrays: dict[int, pa.Array] = {}
        for index, kind in reversed(self._used):  # children first
            node, [validity, *values] = nodes[index], places[index]
            if kind.code == STRING:
                parts = texts.buffers(text_places[index], rows, kind.value_bytes)
            else:
                parts = fixed.buffers(values, rows, kind.value_bytes) if values else []
            arrays[index] = pa.Array.from_buffers(
                self._fields[index][0],
                rows,
                [fixed.buffer(validity, (rows + 7) // 8) if node.nulls else None, *parts],
                null_count=node.nulls,
                children=[arrays[child] for child in self._children[index]] or None,
            )
        columns = [arrays[self._children[0][index]] for index in self._wanted]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


_NEWLINE = b"\n"[0]


def kernel(
    schema: pa.Schema, wanted: list[int], *, most_bytes: int, most_rows_bytes: float = math.inf
) -> NdjsonKernel | None:
    """One for those columns of ``schema`` whose indices are ``wanted``; None if C does not know a type of any column."""
    if LIBRARY is None or not all(_is_known(list(fields)) for fields in _objects(schema)):
        return None
    return NdjsonKernel(LIBRARY, schema, wanted, most_bytes, most_rows_bytes)


def _objects(schema: pa.Schema) -> Iterator[pa.Schema | pa.StructType]:
    """The row, and each object within it."""
    objects = [schema]
    for fields in objects:
        yield fields
        objects += [field.type for field in fields if pt.is_struct(field.type)]


def _is_known(fields: list[pa.Field]) -> bool:
    """C finds these keys as they are written, and reads their values."""
    return 0 < len(fields) <= _MOST_FIELDS and all(
        (pt.is_struct(field.type) or kind_of(field.type) is not None)
        and not any(character < " " or character in '"\\' for character in field.name)
        for field in fields
    )
