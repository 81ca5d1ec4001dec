"""A page of whole lines as an array of lines, and back."""

from __future__ import annotations

import struct

import pyarrow as pa
import pyarrow.compute as pc


def split(payload: bytes | memoryview) -> tuple[pa.Array, bool]:
    """The lines without their newlines, and whether the last one had none. Bytes that are not UTF-8 stay as they are."""
    data = pa.py_buffer(payload)
    bare = data.size > 0 and payload[-1] != 0x0A
    size = data.size if bare or data.size == 0 else data.size - 1
    if data.size == 0:
        return pa.array([], pa.string()), False
    whole = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(struct.pack("=ii", 0, size)), data])
    return pc.split_pattern(whole, "\n").flatten(), bare


def join(lines: pa.Array, *, bare_end: bool) -> memoryview | bytes:
    """The lines with newlines between and, unless ``bare_end``, behind them."""
    if len(lines) == 0:
        return b""
    if not bare_end:
        lines = pa.concat_arrays([lines, pa.array([""], lines.type)])
    offsets = pa.py_buffer(struct.pack("=ii", 0, len(lines)))
    listed = pa.Array.from_buffers(pa.list_(lines.type), 1, [None, offsets], children=[lines])
    joined = pc.binary_join(listed, "\n").buffers()[2]
    return memoryview(joined).toreadonly() if joined is not None else b""
