"""Parquet files: written while their rows come in, read from a file batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.framing.footer import Footer
from app.framing.parquet_encode import Columns, Encoded, ParquetEncode
from app.framing.parquet_pages import batches
from app.framing.parts import Parts

__all__ = ["batches", "writer"]

_MAGIC = b"PAR1"
_ROW_GROUP_ROWS = 1024 * 1024
_COLUMN_PAGES = 2
"""Columns of a row group are encoded together up to so many pages, and a row group ends before one of them has more."""
_SAMPLE_ROWS, _SAMPLE_BYTES = 20_000, 256 * 1024
"""Of each column, to see whether its values repeat."""
_SAMPLED_BYTES = 6 * 1024 * 1024
"""What a table of values that were seen takes."""
_FOOTER_BYTES = 4 * 1024 * 1024
"""Set aside for the footer: a tenth of a KiB for each column of each row group, 50 GB of a table with 16 columns."""


def writer(*, page_bytes: int, row_group_bytes: int, compression: str = "snappy") -> list[Stage]:
    """Table pages to the bytes of a Parquet file.

    A row group has about ``row_group_bytes`` of Arrow data, 1,048,576 rows, or two pages of one column. The first page's
    schema is the file's; a table without rows becomes a file without row groups. Bytes come in pages of at most
    ``page_bytes``. ``not_acceptable`` for a table without columns, and for a column of a type that Parquet does not have.
    """
    return [
        ParquetRows(page_bytes=page_bytes, row_group_bytes=row_group_bytes),
        ParquetEncode(compression),
        ParquetJoin(page_bytes=page_bytes),
    ]


class ParquetRows:
    """Collects pages until they make up a row group, and gives it as pages of ``Columns``; first the schema as one."""

    name = "parquet-rows"
    stateless = False
    grows = 0.0  # a page is only kept: that is in ``holds``

    def __init__(self, *, page_bytes: int, row_group_bytes: int) -> None:
        self._row_group_bytes = row_group_bytes
        # One page more, of twice ``page_bytes``; and once, what is counted of a sample of a column.
        self.holds = row_group_bytes + 2 * page_bytes + _SAMPLED_BYTES
        self._most_bytes = _COLUMN_PAGES * page_bytes
        self.gives_bytes = max(self._most_bytes, 2 * page_bytes)
        self._schema: pa.Schema | None = None
        self._dictionaries: dict[str, tuple[str, ...]] | None = None
        self._statistics: set[str] = set()
        self._batches: list[pa.RecordBatch] = []
        self._column_bytes: list[int] = []
        self._rows = 0

    def feed(self, page: Page) -> Iterator[Page]:
        """Nothing, or the columns of a row group."""
        if self._schema is None:
            _check_schema(page.payload.schema)
            self._schema = page.payload.schema
            self._column_bytes = [0] * len(self._schema)
            self._statistics = set(_statistics_columns(self._schema))
            yield self._page(Columns(self._schema.empty_table(), (), (), True), first=True)
        if page.rows:
            added = [column.nbytes for column in page.payload.columns]
            grown = [nbytes + more for nbytes, more in zip(self._column_bytes, added, strict=True)]
            if self._rows and (max(grown) > self._most_bytes or self._rows + page.rows > _ROW_GROUP_ROWS):
                yield from self._row_group()
                grown = added
            self._batches.append(page.payload)
            self._column_bytes = grown
            self._rows += page.rows
            if sum(grown) >= self._row_group_bytes:
                yield from self._row_group()

    def flush(self) -> Iterator[Page]:
        """The last row group."""
        if self._rows:
            yield from self._row_group()

    def _row_group(self) -> Iterator[Page]:
        table = pa.Table.from_batches(self._batches, self._schema)
        sizes = self._column_bytes
        self._batches, self._column_bytes, self._rows = [], [0] * len(sizes), 0
        if self._dictionaries is None:
            self._dictionaries = _dictionary_columns(table)
        start = 0
        while start < len(sizes):
            end, nbytes = start + 1, sizes[start]
            while end < len(sizes) and nbytes + sizes[end] <= self._most_bytes:
                nbytes += sizes[end]
                end += 1
            names = table.schema.names[start:end]
            columns = Columns(
                table=table.select(list(range(start, end))),
                dictionaries=tuple(path for name in names for path in self._dictionaries[name]),
                statistics=tuple(name for name in names if name in self._statistics),
                is_last=end == len(sizes),
            )
            yield self._page(columns, nbytes=nbytes)
            start = end

    def _page(self, columns: Columns, *, nbytes: int = 1, first: bool = False) -> Page:
        return Page(columns, max(1, nbytes), columns.table.num_rows, first=first)


class ParquetJoin:
    """Pages of ``Encoded`` to the bytes of the file; the footer comes at the end."""

    name = "parquet-join"
    stateless = False
    grows = 1.0

    def __init__(self, *, page_bytes: int) -> None:
        self.holds = 2 * page_bytes + _FOOTER_BYTES
        self.gives_bytes = page_bytes
        self._footer: Footer | None = None
        self._out = Parts(page_bytes)
        self._group: list[tuple[bytes, int]] = []

    def feed(self, page: Page) -> Iterator[Page]:
        """The bytes of some columns, behind those before them."""
        encoded: Encoded = page.payload
        if self._footer is None:
            self._footer = Footer(encoded.footer)
            yield from self._out.add(_MAGIC)
            return
        self._group.append((encoded.footer, self._out.total_bytes - encoded.began_at))
        for start in range(0, len(encoded.body), self._out.page_bytes):
            yield from self._out.add(bytes(encoded.body[start : start + self._out.page_bytes]))
        if encoded.is_last:
            self._footer.add(self._group, encoded.rows)
            self._group = []
            yield from self._out.drain()

    def flush(self) -> Iterator[Page]:
        """The footer."""
        if self._footer is not None:
            footer = self._footer.joined()
            yield from self._out.add(footer + len(footer).to_bytes(4, "little") + _MAGIC)
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


def _dictionary_columns(table: pa.Table) -> dict[str, tuple[str, ...]]:
    """For each column, those of its leaves that are worth a dictionary, by the first rows: a fifth of the values, at most,
    are distinct.

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

    return {field.name: tuple(path for path in _leaves(pa.schema([field])) if repeats(path)) for field in table.schema}


def _statistics_columns(schema: pa.Schema) -> list[str]:
    """All but strings and binaries, whose statistics are 15 % of the encoding time."""
    return [field.name for field in schema if not (_is_text(field.type) or pt.is_nested(field.type))]


def _is_text(type_: pa.DataType) -> bool:
    if pt.is_dictionary(type_):
        return _is_text(type_.value_type)
    texts = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return any(type_ == text for text in texts)
