"""Steps on single rows, once the columns that they are about are known."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from app.framing.batches import empty_batch
from app.stages.sql_binding import Bound
from app.stages.sql_engine import MEMORY_LIMIT_BYTES, open_engine
from app.stages.sql_program import Program


@dataclass(slots=True)
class BoundRows:
    """Rows of ``fed`` become rows of ``schema``: by a ``program``, if there is one, or else by a ``query`` over a page."""

    fed: pa.Schema
    schema: pa.Schema
    query: Bound
    program: Program | None
    _connection: duckdb.DuckDBPyConnection | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def made_of(self, batch: pa.RecordBatch, work_bytes: float) -> pa.RecordBatch:
        """What the rows of ``batch`` become; in about ``work_bytes``. DuckDB is asked by one thread at a time. Raises
        ``bad_computation`` where a value cannot be computed."""
        if self.program is not None:
            try:
                columns, _ = self.program.run(batch)
                return pa.RecordBatch.from_arrays(columns, schema=self.schema)
            except pa.ArrowException:
                pass  # DuckDB says whether that is a failure, and how it is told
        with self._asking:
            return self._by_duckdb(batch, work_bytes)

    def _by_duckdb(self, batch: pa.RecordBatch, work_bytes: float) -> pa.RecordBatch:
        if self._connection is None:
            self._connection = open_engine(memory_bytes=MEMORY_LIMIT_BYTES + int(4 * work_bytes))
        self._connection.register("input", batch)
        try:
            reader = self._connection.sql(self.query.sql).to_arrow_reader(max(1, batch.num_rows))
            batches = [made for made in reader if made.num_rows]
        except Exception as error:
            trouble = self.query.failure(error, f"in a page of {batch.num_rows:,} rows")
        else:
            self._connection.unregister("input")
            table = pa.Table.from_batches(batches, reader.schema).rename_columns(self.schema.names).combine_chunks()
            return next(iter(table.to_batches()), empty_batch(self.schema))
        raise trouble
