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
from app.framing.footer import Footer
from app.framing.parquet_pages import batches
from app.framing.parts import Parts

__all__ = ["ParquetWriter", "batches", "writer"]

_MAGIC = b"PAR1"
_ROW_GROUP_ROWS = 1024 * 1024
_STRETCH_GROUPS = 64
"""Row groups to a stretch (see ``Footer``). More, and the writer's heap grows: 14 KB each with 16 columns."""
_SAMPLE_ROWS, _SAMPLE_BYTES = 20_000, 256 * 1024
"""Of each column, to see whether its values repeat. The table of those seen takes several times their bytes."""
_ENCODER_BYTES = 8 * 1024 * 1024
"""Pages and dictionaries of the one column that is being encoded, and the heap of a stretch; 6 MiB were measured."""


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
        # The rows, and beside them what they are encoded to: as much, where nothing repeats. One page more of each.
        self.holds = 2 * (row_group_bytes + 2 * page_bytes) + _ENCODER_BYTES
        self._schema: pa.Schema | None = None
        self._dictionary_columns: list[str] | None = None
        self._writer: pq.ParquetWriter | None = None
        self._file = _File()
        self._footer = Footer()
        self._stretch_byte = 0
        self._stretch_groups = 0
        self._out = Parts(page_bytes)
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._rows = 0

    def feed(self, page: Page) -> Iterator[Page]:
        """Nothing, or the bytes of a row group."""
        if self._schema is None:
            _check_schema(page.payload.schema)
            self._schema = page.payload.schema
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
        if self._rows or self._writer is None:
            self._write_row_group()
        self._end_stretch()
        if self._stretch_byte:
            metadata = self._footer.joined()
            self._file.write(metadata + len(metadata).to_bytes(4, "little") + _MAGIC)
        yield from self._drain()

    def _write_row_group(self) -> None:
        table = pa.Table.from_batches(self._batches, self._schema)
        self._batches, self._bytes, self._rows = [], 0, 0
        if self._dictionary_columns is None:
            self._dictionary_columns = _dictionary_columns(table)
        if self._stretch_groups == _STRETCH_GROUPS:
            self._end_stretch()
            self._stretch_byte, self._stretch_groups = self._file.written_bytes, 0
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._file,
                self._schema,
                compression=self._compression,
                use_dictionary=self._dictionary_columns,
                write_statistics=_statistics_columns(table.schema),
            )
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._stretch_groups += 1

    def _end_stretch(self) -> None:
        assert self._writer is not None
        parts = len(self._file.parts)
        self._writer.close()
        self._writer = None
        end = b"".join(list(self._file.parts)[parts:])
        nbytes = int.from_bytes(end[-8:-4], "little")
        self._footer.add(end[-8 - nbytes : -8], begins_at=self._stretch_byte)

    def _drain(self) -> Iterator[Page]:
        while self._file.parts:
            yield from self._out.add(self._file.parts.popleft())
        yield from self._out.drain()


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
        rows = len(column) * min(1.0, _SAMPLE_BYTES / max(1, int(column.nbytes)))
        try:
            distinct = int(pc.count_distinct(column.slice(0, int(rows)), mode="all").as_py())
        except pa.ArrowNotImplementedError:
            return True
        return 5 * distinct <= int(rows)

    return [name for name in _leaves(table.schema) if repeats(name)]


def _statistics_columns(schema: pa.Schema) -> list[str]:
    """All but strings and binaries, whose statistics are 15 % of the encoding time."""
    return [field.name for field in schema if not (_is_text(field.type) or pt.is_nested(field.type))]


def _is_text(type_: pa.DataType) -> bool:
    if pt.is_dictionary(type_):
        return _is_text(type_.value_type)
    texts = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return any(type_ == text for text in texts)


class _File:
    """A file, for Arrow, whose parts are taken away as they come."""

    closed = False

    def __init__(self) -> None:
        self.parts: deque[bytes] = deque()
        self.written_bytes = 0

    def write(self, data: bytes) -> int:
        self.parts.append(data)
        self.written_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
