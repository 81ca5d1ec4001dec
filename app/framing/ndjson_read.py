"""NDJSON text to record batches, by pyarrow with the options that are ours."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.json as pa_json


def read_lines(data: bytes | memoryview, schema: pa.Schema | None, *, unexpected: str) -> pa.RecordBatch:
    """Whole lines as rows of ``schema``, or of the one that pyarrow infers; ``unexpected`` is what becomes of fields that
    ``schema`` does not have: ``error``, ``ignore``, ``infer``. Raises ``PARSER_ERRORS``."""
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
