"""What tells the rows of a ``distinct`` apart."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from app.framing.batches import empty_batch
from app.framing.needs import field_called, folded
from app.stages.groups import supported
from app.stages.groups_merge import mergeable
from app.stages.sql_binding import Bound, bind
from app.stages.sql_clause import Clause
from app.stages.sql_engine import shared_engine
from app.stages.sql_pages import fitted
from app.stages.sql_text import keyed
from app.stages.sql_types import fed_schema, given_names


class DistinctKeys:
    """The columns of ``clause``, in rows of ``fed``; or, where these are of types that groups do not know, bytes that DuckDB
    makes of them.

    Rows are given with the names and types of ``schema``, and are meanwhile as ``rows`` makes them. Keys have ``types``.
    Raises ``bad_sql`` where a column is missing.
    """

    def __init__(self, clause: Clause, fed: pa.Schema) -> None:
        self._fed = fed_schema(fed)
        with shared_engine(empty_batch(self._fed)) as connection:
            self._query: Bound = bind(connection, [keyed(clause)], self._fed.names)
            made = connection.sql(self._query.sql).to_arrow_reader(1).schema
        names = given_names(made.names[:-1])
        self.schema = pa.schema([field.with_name(name) for field, name in zip(list(made)[:-1], names, strict=True)])
        places = self._places(clause)
        self._is_plain = (
            places is not None
            and made.types[:-1] == self._fed.types
            and mergeable([self._fed.field(place).type for place in places])
            and all(supported("key", self._fed.field(place).type) for place in places)
        )
        self._made = self.schema if self._is_plain else pa.schema([*self.schema, made.field(len(made) - 1)])
        self._key_places: list[int] = places if places is not None and self._is_plain else [len(self.schema)]
        self.types = [self._made.field(place).type for place in self._key_places]

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Those of ``batch``, perhaps with their keys behind them."""
        batch = fitted(batch, self._fed)
        if self._is_plain:
            return pa.RecordBatch.from_arrays(batch.columns, schema=self._made)
        with shared_engine(batch) as connection:
            try:
                made = connection.sql(self._query.sql).to_arrow_table()
            except Exception as error:
                trouble = self._query.failure(error, f"in a page of {batch.num_rows:,} rows")
            else:
                found = made.combine_chunks().to_batches()
                return fitted(found[0], self._made) if found else empty_batch(self._made)
        raise trouble

    def of(self, rows: pa.RecordBatch) -> list[pa.Array]:
        """The keys of what ``rows`` gave, perhaps with more columns behind it."""
        return [rows.column(place) for place in self._key_places]

    def given(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """What ``rows`` gave as it is given, without more columns behind it."""
        return pa.RecordBatch.from_arrays(rows.columns[: len(self.schema)], schema=self.schema)

    def numbered(self, number: pa.Field) -> pa.Schema:
        """The schema of what ``rows`` gives with ``number`` behind it."""
        return pa.schema([*self._made, number])

    def hashed(self, keys: Sequence[pa.Array], level: int, parts: int) -> pa.Array:
        """For each key the number of its part, of so many (a power of two), by other bits of its hash at each level."""
        names = [f"k{place}" for place in range(len(keys))]
        bits = parts.bit_length() - 1
        with shared_engine(pa.RecordBatch.from_arrays(list(keys), names=names)) as connection:
            sql = f"SELECT ((hash({', '.join(names)}) >> {bits * level}) & {parts - 1})::UTINYINT AS part FROM input"
            return connection.sql(sql).to_arrow_table().column(0).combine_chunks()

    def _places(self, clause: Clause) -> list[int] | None:
        paths = [node["column_names"] for node in clause.levels[0].others]
        if not paths:
            return list(range(len(self._fed)))
        found = [field_called(folded(path[0]), self._fed) if len(path) == 1 else None for path in paths]
        return [place for place in found if place is not None] if None not in found else None
