"""NDJSON text to record batches, by pyarrow with the options that are ours."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.json as pa_json

_BEGINS = re.compile(rb"[ \t\r\n]*+(?:\{|\Z)")


def read_lines(data: bytes | memoryview, schema: pa.Schema | None, *, unexpected: str) -> pa.RecordBatch:
    """Whole lines as rows of ``schema``, or of the one that pyarrow infers; ``unexpected`` is what becomes of fields that
    ``schema`` does not have: ``error``, ``ignore``, ``infer``. Raises ``PARSER_ERRORS``."""
    if _BEGINS.match(data) is None:
        raise ValueError("the first line is not an object")  # pyarrow 26 crashes the process where it is null
    table = pa_json.read_json(
        pa.py_buffer(data),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pa_json.ParseOptions(
            explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior=unexpected
        ),
    ).combine_chunks()
    if schema is not None and not table.num_rows:
        return pa.RecordBatch.from_pylist([], schema=schema)
    columns = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)
