"""Which Parquet columns hold plainly what they say, and how long their values are, before anything is decoded.

A column is plain if Arrow and DuckDB read the same from it, and if its pages bound what a few rows of it can take: values
that stand there one by one, or in a dictionary whose longest value is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from app.framing.parquet_footer import Chunk
from app.framing.parquet_room import DICTIONARY_PAGE, PageHeader, PageWalk
from app.framing.thrift import Data

VECTOR_ROWS = 2048
"""So many rows DuckDB has in hand at a time."""
_MOST_WORDS = 100_000
"""Of a dictionary whose longest value is looked for."""
_SHORT_BYTES = 256
"""A text is taken to be so long where a whole dictionary is no longer."""
_CODECS = {0: None, 1: "snappy", 6: "zstd"}
_DATA_PAGES = (0, 3)
_PLAIN, _RUNS, _DICTIONARIES = 0, 3, (2, 8)  # encodings
_PHYSICAL_TYPES = {
    "BOOLEAN": (pa.bool_(),),
    "INT32": (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.date32()),
    "INT64": (pa.int64(), pa.timestamp("us")),
    "FLOAT": (pa.float32(),),
    "DOUBLE": (pa.float64(),),
    "BYTE_ARRAY": (pa.string(), pa.large_string()),
}
"""The types of Arrow that are DuckDB's as well, by what they are stored as; decimals beside them."""
_LOGICAL_TYPES = ("NONE", "INT", "DATE", "TIMESTAMP", "STRING", "DECIMAL")


def is_plain(type_: pa.DataType, column: pq.ColumnSchema) -> bool:
    """Whether a ``column`` that Arrow reads as ``type_`` is of the same type to DuckDB, and flat."""
    if column.max_repetition_level or column.max_definition_level > 1 or column.logical_type.type not in _LOGICAL_TYPES:
        return False
    stored = column.physical_type
    if pt.is_decimal128(type_):
        return stored in ("INT32", "INT64", "FIXED_LEN_BYTE_ARRAY") and column.logical_type.type == "DECIMAL"
    if stored == "BYTE_ARRAY" and column.logical_type.type != "STRING":
        return False
    return type_ in _PHYSICAL_TYPES.get(stored, ())


class PlainWalk(PageWalk):
    """Sees what bounds the values of a chunk. Raises ``Fancy`` at a page that is not plain.

    ``rows`` counts those of the pages seen so far; ``vector_bytes`` is what the texts of ``VECTOR_ROWS`` rows next to each
    other take at most, 0 for other types; ``value_bytes`` what a value of the dictionary takes in the mean.
    """

    def __init__(self, chunk: Chunk, type_: pa.DataType, read_at: Callable[[int, int], Data]) -> None:
        super().__init__(chunk)
        if chunk.codec not in _CODECS or chunk.dictionary_at not in (0, chunk.at):
            raise Fancy
        self.rows = 0
        self._codec = _CODECS[chunk.codec]
        self._is_text = pt.is_string(type_) or pt.is_large_string(type_)
        self._is_boolean = pt.is_boolean(type_)
        self._read_at = read_at
        self._began_at = chunk.at
        self.value_bytes = 1.0
        self._longest_bytes = 0
        self._span_bytes = 0
        self._span: deque[tuple[int, int]] = deque()
        self._span_rows = 0

    @property
    def vector_bytes(self) -> int:
        """See the class."""
        return self._span_bytes + VECTOR_ROWS * self._longest_bytes if self._is_text else 0

    def saw(self, header: PageHeader) -> None:
        """See ``PageWalk``."""
        if header.kind == DICTIONARY_PAGE:
            if self._began_at + header.header_bytes != self.at:
                raise Fancy
            if self._is_text:
                self._longest_bytes = self._longest(header)
            self.value_bytes = header.nbytes / max(1, header.values)
            return
        encodings = (_PLAIN, _RUNS) if self._is_boolean else (_PLAIN, *_DICTIONARIES)
        if header.kind not in _DATA_PAGES or header.encoding not in encodings or header.values <= 0:
            raise Fancy
        self.rows += header.values
        if self._is_text:
            self._extend(header.values, header.nbytes)

    def _extend(self, rows: int, nbytes: int) -> None:
        """One page more; those whose rows can no longer be next to it, with a vector's between, are over."""
        self._span.append((rows, nbytes))
        self._span_rows += rows
        while len(self._span) > 2 and self._span_rows - self._span[0][0] - rows > VECTOR_ROWS - 2:
            self._span_rows -= self._span.popleft()[0]
        self._span_bytes = max(self._span_bytes, sum(nbytes for _, nbytes in self._span))

    def _longest(self, header: PageHeader) -> int:
        """The longest text of a dictionary, or something longer."""
        if header.nbytes <= _SHORT_BYTES:
            return header.nbytes
        if header.values > _MOST_WORDS:
            raise Fancy
        data = self._read_at(header.compressed_bytes, self.at)
        if self._codec is not None:
            data = pa.decompress(data, header.nbytes, codec=self._codec, asbytes=True)
        at = longest_bytes = 0
        while at < header.nbytes:
            nbytes = int.from_bytes(data[at : at + 4], "little")
            longest_bytes = max(longest_bytes, nbytes)
            at += 4 + nbytes
        return longest_bytes


class Fancy(Exception):
    """A column is not plain."""
