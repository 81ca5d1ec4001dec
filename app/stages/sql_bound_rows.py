"""Steps on single rows, once the columns that they are about are known."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from app.framing.batches import empty_batch
from app.stages.sql_binding import Bound
from app.stages.sql_engine import shared_engine
from app.stages.sql_program import Program


@dataclass(slots=True)
class BoundRows:
    """Rows of ``fed`` become rows of ``schema``: by a ``program``, if there is one, or else by a ``query`` over a page."""

    fed: pa.Schema
    schema: pa.Schema
    query: Bound
    program: Program | None

    def made_of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What the rows of ``batch`` become. Raises ``bad_computation`` where a value cannot be computed."""
        if self.program is not None:
            try:
                return pa.RecordBatch.from_arrays(self.program.run(batch), schema=self.schema)
            except pa.ArrowException:
                pass  # DuckDB says whether that is a failure, and how it is told
        return self._by_duckdb(batch)

    def _by_duckdb(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        with shared_engine(batch) as connection:
            try:
                reader = connection.sql(self.query.sql).to_arrow_reader(max(1, batch.num_rows))
                batches = [made for made in reader if made.num_rows]
            except Exception as error:
                trouble = self.query.failure(error, f"in a page of {batch.num_rows:,} rows")
            else:
                table = pa.Table.from_batches(batches, reader.schema).rename_columns(self.schema.names)
                return next(iter(table.combine_chunks().to_batches()), empty_batch(self.schema))
        raise trouble
