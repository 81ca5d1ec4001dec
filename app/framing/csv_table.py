"""A CSV table as text: its header, the types of its columns, and pyarrow's reader with the options that are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from app.core.errors import Refusal
from app.core.page import Reject
from app.framing.bad_rows import REJECT_BYTES, text_of
from app.framing.blocks import Block, Opening, shorter, too_long
from app.framing.csv_dialect import PLAIN, CsvDialect
from app.framing.csv_kernel import CsvKernel, kernel
from app.framing.ends import Ends
from app.framing.needs import ALL, Needs, needed_fields
from app.framing.quotes import Quoting
from app.framing.schema import check_width, row_bytes, settle

_GROUP_COLUMNS = 256
"""Columns that are converted in one pass over a block: pyarrow takes 10 KiB for each while it does."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LEADING_ZERO = r"^\s*[+-]?0[0-9xX]"
_WHOLE = r"^\s*[+-]?[0-9]+\s*$"


class CsvTable:
    """What both stages of a reader know of their table.

    Once ``open`` gave an ``Opening``, it has the ``names`` of all columns, the ``schema`` of those that are needed (one
    at least: it carries the rows), and perhaps a ``kernel`` that reads these.
    """

    def __init__(
        self,
        dialect: CsvDialect,
        *,
        page_bytes: int,
        max_line_bytes: int,
        types: Mapping[str, pa.DataType],
        needs: Needs = ALL,
    ) -> None:
        self.quoting = Quoting(dialect.delimiter, dialect.quote)
        self._dialect = dialect
        self.index = self.quoting.index
        self.schema = pa.schema([])
        self.names: list[str] = []
        self.kernel: CsvKernel | None = None
        self._needs = needs
        self._page_bytes = page_bytes
        self._max_line_bytes = max_line_bytes
        self._types = types

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Take the header from ``prefix`` and settle the schema by the records behind it. See ``TextFormat``."""
        header_bytes = self.quoting.first_end(prefix)
        if header_bytes == 0 and final:
            if self.quoting.unclosed(prefix) is not None:
                raise Refusal("corrupt_input", "a quote in the header is never closed", line=line, byte=byte)
            header_bytes = len(prefix)
        if (header_bytes or len(prefix)) > self._max_line_bytes + 1:
            raise too_long(line, byte, self._max_line_bytes)
        if header_bytes == 0:
            return None
        ends = self.index(prefix)
        end = ends(header_bytes, len(prefix))
        newlines = prefix.count(b"\n", 0, header_bytes)
        if final and self.quoting.unclosed(prefix[end:]) is None:
            end = len(prefix)
        if end == header_bytes and not final:
            if len(prefix) - header_bytes > self._max_line_bytes:
                raise too_long(line + newlines, byte + header_bytes, self._max_line_bytes)
            return None
        self.names = self._names(prefix[:header_bytes], line, byte)
        if not self._dialect.header:
            # The first record is one like all others; what was looked for behind it begins with it.
            self.names = [f"column{index}" for index in range(len(self.names))]
            header_bytes = newlines = 0
        sample = self._sample(prefix, ends, header_bytes, end, len(self.names))
        schema = settle(self._infer(sample, self.names), self._types)
        self.schema = pa.schema([schema.field(index) for index in needed_fields(self._needs, schema) or (0,)])
        self.kernel = self._kernel()
        bytes_per_row = max(REJECT_BYTES, row_bytes(self.schema))
        return Opening(header_bytes, newlines, lambda nbytes, newlines: nbytes + newlines * bytes_per_row)

    def _kernel(self) -> CsvKernel | None:
        if self._dialect.nulls != PLAIN.nulls:
            return None
        return kernel(
            self.schema,
            self.names,
            delimiter=self._dialect.delimiter,
            quote=self._dialect.quote,
            # Beside the rows, as much as pyarrow takes at the most: see CsvParse.grows.
            most_bytes=4 * self._page_bytes,
        )

    def unfinished(self, block: Block) -> Reject | None:
        """The reject of a last record in which a quote is never closed."""
        quote = self.quoting.unclosed(block.data)
        if quote is None:
            return None
        line = block.line + bytes(block.data[:quote]).count(b"\n")
        detail = f"the quote that opens in line {line} (byte {block.byte + quote}) is not closed before the input ends"
        return Reject(block.line, block.byte, "ragged_row", detail, text_of(block.data))

    def read(
        self,
        data: bytes | memoryview,
        types: pa.Schema | None,
        *,
        names: Sequence[str] | None = None,
        on_ragged: Callable[[Any], str] | None = None,
    ) -> pa.RecordBatch:
        """Whole records as pyarrow reads them: those columns of ``names`` (the table's) that ``types`` has.

        Without ``types`` it infers them. Raises ``PARSER_ERRORS``; ``on_ragged`` is called for rows of another number
        of columns, and must not be where ``data`` is not UTF-8.
        """
        names = self.names if names is None else names
        wanted = names if types is None else types.names
        if bytes(data[:3]) == _BYTE_ORDER_MARK:
            # Inside a stream it is text, but pyarrow would drop it where a block starts. So let it start with a line.
            data, skip = b"\n" + bytes(data), 1
        else:
            skip = 0
        columns: list[pa.Array] = []
        found: list[pa.Field] = []
        for start in range(0, len(wanted), _GROUP_COLUMNS):
            group = wanted[start : start + _GROUP_COLUMNS]
            table = pa_csv.read_csv(
                pa.py_buffer(data),
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=names, skip_rows=skip
                ),
                parse_options=self._parse_options(ignore_empty_lines=len(names) > 1, invalid_row_handler=on_ragged),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=None if len(group) == len(names) else group,
                    column_types=None if types is None else {name: types.field(name).type for name in group},
                    null_values=list(self._dialect.nulls),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ).combine_chunks()
            found += table.schema
            columns += [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(found))

    def _parse_options(self, **options: Any) -> pa_csv.ParseOptions:
        delimiter, quote = self._dialect.delimiter.decode(), self._dialect.quote.decode()
        return pa_csv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=True, **options)

    def _names(self, header: bytes, line: int, byte: int) -> list[str]:
        if self.quoting.has_stray_return(header):
            raise Refusal(
                "corrupt_input",
                f"line {line}, the header, has a carriage return that is not followed by a newline: lines must end"
                " in a newline, or in both",
                line=line,
                byte=byte,
            )
        text = header if header.endswith(b"\n") else header + b"\n"
        try:
            names = pa_csv.read_csv(
                pa.py_buffer(text),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1),
                parse_options=self._parse_options(),
            ).column_names
        except UnicodeDecodeError:
            raise Refusal(
                "bad_encoding", f"line {line}, the header, is not valid UTF-8", line=line, byte=byte
            ) from None
        check_width(len(names), self._page_bytes)
        return _unique(names)

    def _sample(self, prefix: bytes, ends: Ends, start: int, end: int, columns: int) -> bytes:
        """The first records: as many as take no more than two pages while their types are still to be found."""
        while (end - start) + 9 * columns * prefix.count(b"\n", start, end) > 2 * self._page_bytes:
            length = shorter(ends, start, end)
            if not length:
                break
            end = start + length
        # What is not UTF-8 is a matter for the parser of rows; here it would make text look like binary.
        return prefix[start:end].decode(errors="replace").encode()

    def _infer(self, sample: bytes, names: Sequence[str]) -> pa.Schema:
        if not sample:
            return pa.schema([pa.field(name, pa.string()) for name in names])
        schema = self.read(sample, None, names=names, on_ragged=_skip).schema
        numbers = [field for field in schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
        text_schema = pa.schema([pa.field(field.name, pa.string()) for field in numbers])
        texts = self.read(sample, text_schema, names=names, on_ragged=_skip).columns
        for field, text in zip(numbers, texts, strict=True):
            if pa.types.is_integer(field.type):
                exact = pa.string() if _any(pc.match_substring_regex(text, _LEADING_ZERO)) else field.type
            else:
                exact = _of_digits(text) if _all(pc.match_substring_regex(text, _WHOLE)) else field.type
            schema = schema.set(schema.get_field_index(field.name), pa.field(field.name, exact))
        return schema


def _skip(row: Any) -> str:
    return "skip"


def _unique(names: Sequence[str]) -> list[str]:
    named = [name or f"column{index}" for index, name in enumerate(names)]
    taken, unique = set(named), set[str]()
    result = []
    for name in named:
        free = name
        if name in unique:
            free = next(other for number in count(1) if (other := f"{name}_{number}") not in taken)
            taken.add(free)
        unique.add(free)
        result.append(free)
    return result


def _of_digits(texts: pa.Array) -> pa.DataType:
    """A type that keeps every digit of whole numbers that are too large for int64."""
    digits = pc.max(pc.utf8_length(pc.utf8_trim(texts, " \t+-"))).as_py()
    return pa.decimal128(38, 0) if digits is not None and digits <= 38 else pa.string()


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _all(mask: pa.Array) -> bool:
    return bool(pc.all(mask).as_py())
