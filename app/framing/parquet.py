"""Parquet files: written while their rows come in, read from a file batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.framing.parts import Parts

_ROW_GROUP_ROWS = 1024 * 1024
_SAMPLE_ROWS = 20_000


def writer(*, page_bytes: int, row_group_bytes: int, compression: str = "snappy") -> list[Stage]:
    """Table pages to the bytes of a Parquet file; see ``ParquetWriter``."""
    return [ParquetWriter(page_bytes=page_bytes, row_group_bytes=row_group_bytes, compression=compression)]


class ParquetWriter:
    """Collects pages until they make up a row group, encodes it, and gives its bytes; the footer comes at the end.

    A row group has about ``row_group_bytes`` of Arrow data (or 1,048,576 rows). The first page's schema is the file's;
    a table without rows becomes a file without row groups. Bytes come in pages of at most ``page_bytes``.
    ``not_acceptable`` for a table without columns, and for a column of a type that Parquet does not have.
    """

    name = "parquet-writer"
    stateless = False
    grows = 0.0  # a page is only kept: that is in ``holds``

    def __init__(self, *, page_bytes: int, row_group_bytes: int, compression: str) -> None:
        self._row_group_bytes = row_group_bytes
        self._compression = compression
        self.holds = 3 * row_group_bytes
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._file = _File()
        self._out = Parts(page_bytes)
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._rows = 0

    def feed(self, page: Page) -> Iterator[Page]:
        """Nothing, or the bytes of a row group."""
        if self._schema is None:
            self._schema = page.payload.schema
            _check_schema(self._schema)
        if page.rows:
            self._batches.append(page.payload)
            self._bytes += page.nbytes
            self._rows += page.rows
        if self._bytes >= self._row_group_bytes or self._rows >= _ROW_GROUP_ROWS:
            self._write_row_group()
            yield from self._drain()

    def flush(self) -> Iterator[Page]:
        """The last row group, and the footer."""
        if self._schema is None:
            return
        self._write_row_group()
        if self._writer is not None:
            self._writer.close()
        yield from self._drain()

    def _drain(self) -> Iterator[Page]:
        while self._file.parts:
            yield from self._out.add(self._file.parts.popleft())
        yield from self._out.drain()

    def _write_row_group(self) -> None:
        table = pa.Table.from_batches(self._batches, self._schema)
        self._batches, self._bytes, self._rows = [], 0, 0
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._file,
                self._schema,
                compression=self._compression,
                use_dictionary=_dictionary_columns(table),
                write_statistics=_statistics_columns(table.schema),
            )
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)


def _check_schema(schema: pa.Schema) -> None:
    if not len(schema):
        raise Refusal("not_acceptable", "a Parquet file has at least one column, and this table has none")
    for field in schema:
        try:
            _leaves(pa.schema([field]))
        except pa.ArrowException as error:
            raise Refusal(
                "not_acceptable",
                f"column {field.name!r} has the type {field.type}, which Parquet does not have ({error}): cast it",
                column=field.name,
            ) from None


def _leaves(schema: pa.Schema) -> list[str]:
    """The paths of the columns that ``schema`` becomes in Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [leaves.column(i).path for i in range(len(leaves))]


def _dictionary_columns(table: pa.Table) -> list[str]:
    """The columns worth a dictionary, by the first rows: a fifth of the values, at most, are distinct.

    Where they are not, building one costs a third of the encoding time, and it is thrown away in the end.
    """
    sample, names = table.slice(0, _SAMPLE_ROWS), table.schema.names

    def repeats(name: str) -> bool:
        if name not in names:
            return True  # nested
        column = sample.column(names.index(name))
        if pt.is_dictionary(column.type):
            return True
        try:
            return 5 * int(pc.count_distinct(column, mode="all").as_py()) <= sample.num_rows
        except pa.ArrowNotImplementedError:
            return True

    return [name for name in _leaves(table.schema) if repeats(name)]


def _statistics_columns(schema: pa.Schema) -> list[str]:
    """All but strings and binaries: those are 15 % of the encoding time, and most of the footer."""
    return [field.name for field in schema if not (_is_text(field.type) or pt.is_nested(field.type))]


def _is_text(type_: pa.DataType) -> bool:
    if pt.is_dictionary(type_):
        return _is_text(type_.value_type)
    return bool(
        pt.is_string(type_)
        or pt.is_large_string(type_)
        or pt.is_binary(type_)
        or pt.is_large_binary(type_)
        or pt.is_string_view(type_)
        or pt.is_binary_view(type_)
    )


class _File:
    """A file, for Arrow, whose parts are taken away as they come."""

    closed = False

    def __init__(self) -> None:
        self.parts: deque[bytes] = deque()
        self._written_bytes = 0

    def write(self, data: bytes) -> int:
        self.parts.append(data)
        self._written_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
