"""Arrow values as JSON text (RFC 8259), by vector: no value becomes a Python object unless it has to.

Numbers and decimals are numbers, NaN and infinities null; dates, times and timestamps ISO 8601 strings, those with a
time zone in UTC with a Z; intervals ISO 8601 durations; binary is base64; structs and maps are objects, lists arrays.
Text stays UTF-8; only what must be is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from app.framing.native import LIBRARY
from app.framing.row_text import Column, Quoting, is_written, row_text

_STRING = pa.string()
_QUOTE = re.compile(rb'"')
_BACKSLASH = re.compile(rb"\\")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_CONTROL = {chr(code): _SHORT.get(chr(code), f"\\u{code:04x}") for code in range(32)}


def rows_text(batch: pa.RecordBatch) -> memoryview:
    """Each row as an object on a line of its own, in the order of the columns."""
    if not batch.num_rows:
        return memoryview(b"")
    if LIBRARY is not None and batch.num_columns:
        columns = [
            _column(array, ("," if index else "{") + _key(name) + ":")
            for index, (name, array) in enumerate(zip(batch.schema.names, batch.columns, strict=True))
        ]
        if (text := row_text(columns, null=b"null", end=b"}\n")) is not None:
            return text
    lines = _objects(batch.schema.names, batch.columns, end="}\n")
    return joined_text(lines)


def _column(array: pa.Array, before: str) -> Column:
    if is_written(array.type):
        if pa.types.is_floating(array.type):
            return Column(_finite(array, array), before.encode(), Quoting.PLAIN)
        number = pa.types.is_integer(array.type)
        quoting = Quoting.PLAIN if number else Quoting.QUOTED if pa.types.is_date(array.type) else Quoting.JSON_TEXT
        return Column(array, before.encode(), quoting)
    text, quoted = _text(array)
    return Column(text, before.encode(), Quoting.QUOTED if quoted else Quoting.PLAIN)


def joined_text(array: pa.Array) -> memoryview:
    """The texts of an array of strings or binaries, one behind the other as they lie in memory: not a copy."""
    offsets, data = array.buffers()[1:]
    if data is None or not len(array):
        return memoryview(b"")
    ends = memoryview(offsets).cast("i")
    return memoryview(data).toreadonly()[ends[array.offset] : ends[array.offset + len(array)]]


def value_text(array: pa.Array) -> pa.StringArray:
    """Each value as JSON; nulls as ``null``."""
    plain, quoted = _text(array)
    return _filled(_joined('"', plain, '"') if quoted else plain)


def unquoted_text(array: pa.Array) -> pa.StringArray:
    """Each value as ``value_text`` has it, but without quotation marks or escapes around a text; nulls stay null."""
    if pa.types.is_string(array.type):
        return array
    return _text(array)[0]


def _text(array: pa.Array) -> tuple[pa.StringArray, bool]:
    """The texts, null for null, and whether quotation marks belong around them."""
    kind, is_ = array.type, pa.types
    if is_.is_dictionary(kind):
        return _text(array.dictionary_decode())
    if is_.is_run_end_encoded(kind):
        return _text(pc.run_end_decode(array))
    if is_.is_string(kind):
        return _escaped(array), True
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return _escaped(array.cast(_STRING)), True
    if is_.is_floating(kind):
        return _float_text(array), False
    if is_.is_timestamp(kind):
        utc = array.cast(pa.timestamp(kind.unit, "UTC")) if kind.tz else array
        return pc.replace_substring(utc.cast(_STRING), " ", "T"), True
    if is_.is_date(kind) or is_.is_time(kind):
        return array.cast(_STRING), True
    if is_.is_integer(kind) or is_.is_decimal(kind) or is_.is_boolean(kind) or is_.is_null(kind):
        return array.cast(_STRING), False
    if is_.is_duration(kind):
        return array.cast(pa.int64()).cast(_STRING), False
    if is_.is_struct(kind):
        return pc.if_else(array.is_valid(), _objects([field.name for field in kind], array.flatten()), None), False
    if is_.is_map(kind):
        return _texts(None if value is None else _map_text(value) for value in array.to_pylist()), False
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind) or is_.is_list_view(kind):
        return _list_text(array), False
    if is_.is_interval(kind):
        return _texts(None if value is None else _interval_text(*value) for value in array.to_pylist()), True
    return _texts(None if value is None else base64.b64encode(value).decode() for value in array.to_pylist()), True


def _objects(names: Iterable[str], columns: Iterable[pa.Array], end: str = "}") -> pa.StringArray:
    """Objects, none of them null. The fixed text between two columns is one piece of the join."""
    pieces: list[Any] = []
    between = "{"
    rows = 0
    for name, column in zip(names, columns, strict=True):
        rows = len(column)
        plain, quoted = _text(column)
        if quoted and plain.null_count:
            plain, quoted = _joined('"', plain, '"'), False
        mark = '"' if quoted else ""
        pieces += [f"{between}{_key(name)}:{mark}", _filled(plain)]
        between = mark + ","
    if not pieces:
        return pc.fill_null(pa.nulls(rows, _STRING), "{" + end)
    return _joined(*pieces, between[:-1] + end)


def _list_text(array: pa.Array) -> pa.StringArray:
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    texts = pa.ListArray.from_arrays(offsets, value_text(pc.list_flatten(array)))
    return pc.if_else(array.is_valid(), _joined("[", pc.binary_join(texts, ","), "]"), None)


def _float_text(array: pa.Array) -> pa.StringArray:
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    return _finite(array, array.cast(_STRING))


def _finite(array: pa.Array, values: pa.Array) -> pa.Array:
    """``values``, but null where ``array`` is NaN or an infinity."""
    finite = pc.is_finite(array)
    return values if finite.false_count == 0 else pc.if_else(finite, values, None)


def _escaped(array: pa.StringArray) -> pa.StringArray:
    text = joined_text(array)
    if not len(text):
        return array
    # Looked at as one run of bytes first: most columns have nothing to escape.
    if _BACKSLASH.search(text):
        array = pc.replace_substring(array, "\\", "\\\\")
    if _QUOTE.search(text):
        array = pc.replace_substring(array, '"', '\\"')
    octets = pa.Array.from_buffers(pa.uint8(), len(text), [None, pa.py_buffer(text)])
    if pc.min(octets).as_py() < 32:
        found = pc.unique(pc.filter(octets, pc.less(octets, 32))).to_pylist()
        for code in found:
            array = pc.replace_substring(array, chr(code), _CONTROL[chr(code)])
    return array


def _joined(*pieces: Any) -> pa.StringArray:
    return pc.binary_join_element_wise(*pieces, "")


def _filled(text: pa.StringArray) -> pa.StringArray:
    return pc.fill_null(text, "null") if text.null_count else text


def _texts(values: Iterable[str | None]) -> pa.StringArray:
    return pa.array(values, _STRING)


def _key(name: str) -> str:
    return orjson.dumps(name).decode()


def _map_text(pairs: list[tuple[Any, Any]]) -> str:
    return orjson.dumps(dict(pairs), default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return orjson.Fragment(str(value))  # a decimal


def _interval_text(months: int, days: int, nanoseconds: int) -> str:
    seconds = f"{nanoseconds / 1e9:.9f}".rstrip("0").rstrip(".")
    return f"P{months}M{days}DT{seconds}S"
