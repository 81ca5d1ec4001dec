"""A Parquet file as pages: batch by batch, with a look ahead at what each row group takes to decode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size
from app.framing.batches import Cutter, empty_batch, table_page
from app.framing.thrift import I32, I64, LIST, STRUCT, field, list_head, skip, varint

_MAGIC = b"PAR1"
_BUFFER_BYTES = 64 * 1024
_BATCH_ROWS = 64 * 1024
_PROBE_ROWS = 256
_HEAP_PER_FOOTER_BYTE = 10
"""What a footer takes in memory, by its size in the file; 9 was measured."""
_SLACK = 2
"""Arrow's buffers grow by doubling: 1.6 times the sum of the pages was measured, and more of resident memory."""
_DICTIONARY_PAGE = 2
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3  # of FileMetaData, RowGroup and ColumnChunk
_CHUNK_BYTES, _DATA_PAGE, _DICTIONARY = 7, 9, 11  # of ColumnMetaData

_Chunk = tuple[int, int]
"""Where a column chunk begins in the file, and its size."""


def batches(path_or_file: str | IO[bytes], *, page_bytes: int, memory_bytes: int) -> Iterator[Page]:
    """The rows of a Parquet file in order, in pages of about ``page_bytes`` (see ``Cutter``); at least one page.

    It reads when it is iterated, on one thread. Of each column of a row group there are in memory a dictionary, a page
    and its compressed form: ``page_too_large`` if the page headers of a row group sum up to more than ``memory_bytes``,
    by how much. ``truncated_input`` for a file without its end, ``corrupt_input`` for what is no Parquet file or cannot
    be decoded, ``unsupported_type`` for a column (see ``Cutter``).
    """
    with pa.OSFile(path_or_file) if isinstance(path_or_file, str) else pa.PythonFile(path_or_file, "r") as source:
        footer_bytes = _check_ends(source, memory_bytes)
        try:
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            cutter = Cutter(file.schema_arrow, page_bytes=page_bytes)
            room_bytes = memory_bytes - _HEAP_PER_FOOTER_BYTE * footer_bytes - 4 * page_bytes
            given_rows = given_bytes = 0
            footer = source.read_at(footer_bytes, source.size() - 8 - footer_bytes)
            for index, chunks in zip(range(file.num_row_groups), _row_groups(footer), strict=True):
                group = file.metadata.row_group(index)
                _check_room(source, chunks, index, room_bytes)
                if not group.num_rows:
                    continue
                if not given_rows:
                    probe = next(file.iter_batches(batch_size=_PROBE_ROWS, row_groups=[index], use_threads=False))
                    row_bytes = probe.nbytes / max(1, probe.num_rows)
                else:
                    row_bytes = given_bytes / given_rows
                # Encoded, rows are smaller than in Arrow or as large; but those to come may be longer than those seen.
                row_bytes = max(1.0, row_bytes, group.total_byte_size / group.num_rows)
                rows = max(1, min(_BATCH_ROWS, int(page_bytes / row_bytes)))
                for batch in file.iter_batches(batch_size=rows, row_groups=[index], use_threads=False):
                    for piece in cutter.cut(batch, room_bytes=memory_bytes):
                        page = table_page(piece, first=not given_rows)
                        given_rows += piece.num_rows
                        given_bytes += page.nbytes
                        yield page
            if not given_rows:
                yield table_page(empty_batch(cutter.schema), first=True)
        except (pa.ArrowException, OSError, ValueError, IndexError, StopIteration) as error:
            why = str(error) or "a row group has fewer rows than its footer says"
            raise Refusal("corrupt_input", f"the Parquet file cannot be decoded: {why}") from None


def _check_ends(source: pa.NativeFile, memory_bytes: int) -> int:
    """The footer's size, if the file has one that fits into a fifth of the memory."""
    size = source.size()
    start, end = source.read_at(min(4, size), 0), source.read_at(min(8, size), max(0, size - 8))
    if start not in (_MAGIC, b"PARE"):
        raise Refusal("corrupt_input", "this is not a Parquet file: it does not begin with PAR1", byte=0)
    if b"PARE" in (start, end[4:]):
        raise Refusal("unsupported_type", "the Parquet file is encrypted: decrypt it before sending")
    nbytes = int.from_bytes(end[:4], "little")
    if size < 12 or end[4:] != _MAGIC:
        raise Refusal("truncated_input", f"the Parquet file ends after {size} bytes, without its footer", byte=size)
    if nbytes + 12 > size:
        raise Refusal("corrupt_input", f"the Parquet footer says that it has {nbytes} bytes", byte=size - 8)
    room_bytes = memory_bytes // 5
    if _HEAP_PER_FOOTER_BYTE * nbytes > room_bytes:
        raise Refusal(
            "page_too_large",
            f"the Parquet footer takes about {as_size(_HEAP_PER_FOOTER_BYTE * nbytes)} of memory,"
            f" {as_size(_HEAP_PER_FOOTER_BYTE * nbytes - room_bytes)} more than there is room for:"
            " write larger row groups",
            byte=size - 8 - nbytes,
        )
    return nbytes


def _row_groups(footer: bytes) -> Iterator[list[_Chunk]]:
    """Where the column chunks of each row group lie (parquet.thrift, FileMetaData).

    Not by ``pyarrow``'s ``RowGroupMetaData.column``: a broken footer makes it end the process.
    """
    at = last = 0
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if (last, kind) != (_ROW_GROUPS, LIST):
            at = skip(footer, at, kind)
            continue
        count, _, at = list_head(footer, at)
        for _ in range(count):
            chunks, at = _row_group(footer, at)
            yield chunks


def _row_group(footer: bytes, at: int) -> tuple[list[_Chunk], int]:
    """The column chunks of the RowGroup at ``at``, and where it ends."""
    chunks: list[_Chunk] = []
    last = 0
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if (last, kind) != (_COLUMNS, LIST):
            at = skip(footer, at, kind)
            continue
        count, _, at = list_head(footer, at)
        for _ in range(count):
            numbers, at = _chunk_numbers(footer, at, {})
            offsets = [numbers[key] for key in (_DATA_PAGE, _DICTIONARY) if numbers.get(key)]
            if not offsets or _CHUNK_BYTES not in numbers:
                raise ValueError("a column chunk is not described in the footer")
            chunks.append((min(offsets), numbers[_CHUNK_BYTES]))
    return chunks, at + 1


def _chunk_numbers(footer: bytes, at: int, numbers: dict[int, int], depth: int = 0) -> tuple[dict[int, int], int]:
    """The numbers in the ColumnMetaData of the ColumnChunk at ``at``, by field, and where the chunk ends."""
    last = 0
    while footer[at]:
        last, kind, at = field(footer, at, last)
        if depth == 0 and (last, kind) == (_META_DATA, STRUCT):
            numbers, at = _chunk_numbers(footer, at, numbers, depth=1)
        elif depth == 1 and kind in (I32, I64):
            number, at = varint(footer, at)
            numbers[last] = (number >> 1) ^ -(number & 1)
        else:
            at = skip(footer, at, kind)
    return numbers, at + 1


def _check_room(source: pa.NativeFile, chunks: list[_Chunk], index: int, room_bytes: int) -> None:
    needed_bytes = _SLACK * sum(_column_bytes(source, at, nbytes) for at, nbytes in chunks)
    if needed_bytes > room_bytes:
        raise Refusal(
            "page_too_large",
            f"row group {index} of the Parquet file takes {as_size(needed_bytes)} to decode (its columns' dictionaries"
            f" and largest pages), {as_size(needed_bytes - room_bytes)} more than there is room for:"
            " write smaller data pages or row groups, or fewer columns",
        )


def _column_bytes(source: pa.NativeFile, at: int, nbytes: int) -> int:
    """What decoding a column chunk holds at once, by all of its page headers (parquet.thrift, PageHeader)."""
    end = at + nbytes
    dictionary_bytes = page_bytes = 0
    while 0 <= at < end:
        kind, nbytes, compressed_bytes, values, header_bytes = _page_header(source, at)
        if kind == _DICTIONARY_PAGE:
            dictionary_bytes = 2 * nbytes + 16 * values  # its bytes, and where each of its values is
        page_bytes = max(page_bytes, nbytes + compressed_bytes)
        at += header_bytes + compressed_bytes
    return _BUFFER_BYTES + dictionary_bytes + page_bytes


def _page_header(source: pa.NativeFile, byte: int) -> tuple[int, int, int, int, int]:
    """Of the page at ``byte``: its kind, size, compressed size, a dictionary's values; and the header's own size."""
    for most_bytes in (256, 64 * 1024, 1024 * 1024):  # long where it has a string's statistics
        data = source.read_at(most_bytes, byte)
        try:
            return _read_page_header(data)
        except IndexError:
            if len(data) < most_bytes:
                break
    raise ValueError(f"no page header can be read at byte {byte}")


def _read_page_header(data: bytes) -> tuple[int, int, int, int, int]:
    numbers = {1: 0, 2: 0, 3: 0}
    values = at = last = 0
    while data[at]:
        last, kind, at = field(data, at, last)
        if last in numbers:
            number, at = varint(data, at)
            numbers[last] = (number >> 1) ^ -(number & 1)
            continue
        if last == 7 and kind == STRUCT and data[at]:  # DictionaryPageHeader begins with its number of values
            values = varint(data, at + 1)[0] >> 1
        at = skip(data, at, kind)
    if numbers[2] < 0 or numbers[3] < 0:
        raise ValueError("a page has a negative size")
    return numbers[1], numbers[2], numbers[3], values, at + 1
