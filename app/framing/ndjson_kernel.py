"""NDJSON text to columns by C, for what is written plainly: four times as fast as pyarrow, which judges the rest.

What it reads is bit for bit what pyarrow reads (a property test holds the two side by side). Where anything is not
certain (a key that is not a column, a value of another type, a text that is not UTF-8) it gives nothing, and pyarrow
reads the block. The library is built with the package; without it, or for other types, pyarrow reads everything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.types as pt

from app.framing.native import LIBRARY, Node
from app.framing.native.kinds import BOOL, STRING, STRUCT, Kind, kind_of

_MOST_FIELDS = 256
"""Of an object: beyond, keys in ever another order would be looked for too long."""
_KEY_PADDING_BYTES = 16
_SPAN_BYTES = 8


class NdjsonKernel:
    """Reads the columns of ``schema`` that are ``wanted`` (indices), and judges the others.

    ``most_bytes`` is what it may take for a while, beside the rows: blocks that need more are pyarrow's too. Calls may
    run on several threads at once; the GIL is given up for most of each.
    """

    def __init__(self, library: ctypes.CDLL, schema: pa.Schema, wanted: list[int], most_bytes: int) -> None:
        self._library = library
        self._most_bytes = most_bytes
        self._columns = [schema.field(index) for index in wanted]
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

    def read(self, data: bytes | memoryview, lines: int) -> pa.RecordBatch | None:
        """The rows of whole lines, in which no more than ``lines`` newlines stand; None where pyarrow has to look."""
        if not len(data):
            return None
        if data[-1] != _NEWLINE:
            data, lines = bytes(data) + b"\n", lines + 1
        texts = sum(used and kind.code == STRING for _, kind, used in self._fields)
        if texts * lines * _SPAN_BYTES > self._most_bytes:
            return None
        text = pa.py_buffer(data)
        nodes = (Node * len(self._fields)).from_buffer_copy(self._template)
        room = [
            self._allocate(node, kind, lines) if used else ()
            for node, (_, kind, used) in zip(nodes, self._fields, strict=True)
        ]
        rows = self._library.weir_json_rows(text.address, text.size, nodes, lines)
        if rows < 0:
            return None
        columns = [self._array(text, nodes, room, self._children[0][index], rows) for index in self._wanted]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(self._columns))

    def _allocate(self, node: Node, kind: Kind, lines: int) -> tuple[pa.Buffer, ...]:
        """A bit a row that tells whether there is a value, and the room for values, or for where texts stand."""
        bits = (lines + 7) // 8
        validity = pa.allocate_buffer(bits)
        ctypes.memset(validity.address, 0xFF, bits)
        node.validity = validity.address
        if kind.code == STRUCT:
            return (validity,)
        if kind.code == STRING:
            spans = pa.allocate_buffer(_SPAN_BYTES * lines)
            node.spans = spans.address
            return (validity, spans)
        values = pa.allocate_buffer(int((lines + 7) * kind.value_bytes))
        node.values = values.address
        if kind.code == BOOL:
            ctypes.memset(values.address, 0, values.size)
        return (validity, values)

    def _array(
        self, text: pa.Buffer, nodes: ctypes.Array[Node], room: list[tuple[pa.Buffer, ...]], index: int, rows: int
    ) -> pa.Array:
        type_, kind, _ = self._fields[index]
        node, (validity, *parts) = nodes[index], room[index]
        room[index] = ()
        children: list[pa.Array] | None = None
        if kind.code == STRUCT:
            children = [self._array(text, nodes, room, child, rows) for child in self._children[index]]
        elif kind.code == STRING:
            offsets, values = pa.allocate_buffer(4 * (rows + 1)), pa.allocate_buffer(node.nbytes + 16)
            self._library.weir_json_texts(text.address, text.size, node.spans, rows, values.address, offsets.address)
            parts = [offsets, values]
        buffers = [validity if node.nulls else None, *parts]
        return pa.Array.from_buffers(type_, rows, buffers, null_count=node.nulls, children=children)


_NEWLINE = b"\n"[0]


def kernel(schema: pa.Schema, wanted: list[int], *, most_bytes: int) -> NdjsonKernel | None:
    """One for those columns of ``schema`` whose indices are ``wanted``; None if C does not know a type of any column."""
    if LIBRARY is None or not all(_is_known(list(fields)) for fields in _objects(schema)):
        return None
    return NdjsonKernel(LIBRARY, schema, wanted, most_bytes)


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
