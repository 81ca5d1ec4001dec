"""A CSV table as text: its header, the types of its columns, and pyarrow's reader with the options that are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from app.core.errors import Refusal
from app.core.page import Reject
from app.framing.bad_rows import text_of
from app.framing.blocks import Block, shorter, too_long
from app.framing.csv_kernel import CsvKernel, kernel
from app.framing.csv_types import evidence, inferred, put_together
from app.framing.dialect import CsvDialect
from app.framing.ends import Ends
from app.framing.needs import ALL, Needs, needed_fields
from app.framing.quotes import Quoting
from app.framing.schema import check_width, settle
from app.framing.survey import Survey
from app.framing.table_cut import Opening
from app.framing.weight import Weight

_REJECT_BYTES = 96
"""What a row is reckoned to occupy at least when blocks are cut: a reject takes three or four times that."""
_FIELD_BYTES = 2.2
"""What a field is reckoned to take while it is read: a bit more than half of where it ends, as that has twice the room that
rows have. See ``_kernel``."""
_GROUP_COLUMNS = 256
"""Columns that are converted in one pass over a block: pyarrow takes 10 KiB for each while it does."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class CsvTable:
    """What both stages of a reader know of their table.

    Once ``open`` gave an ``Opening``, it has the ``names`` of all columns, the ``schema`` of those that are needed (one
    at least: it carries the rows), what these occupy as ``weight``, and perhaps a ``kernel`` that reads them.
    """

    def __init__(
        self,
        dialect: CsvDialect,
        *,
        page_bytes: int,
        max_line_bytes: int,
        types: Mapping[str, pa.DataType],
        survey: Survey | None = None,
        needs: Needs = ALL,
    ) -> None:
        self.quoting = Quoting(dialect.delimiter, dialect.quote)
        self.index = self.quoting.index
        self.record_end = self.quoting.record_end
        self.schema = pa.schema([])
        self.names: list[str] = []
        self.kernel: CsvKernel | None = None
        self.weight = self._weight()
        self._needs = needs
        self._dialect = dialect
        self.page_bytes = page_bytes
        self.max_line_bytes = max_line_bytes
        self._types = types
        self._survey = survey

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Take the header from ``prefix`` and settle the schema by the records behind it. See ``TextFormat``."""
        first_bytes = self.quoting.first_end(prefix)
        if first_bytes == 0 and final:
            if self.quoting.unclosed(prefix) is not None:
                raise Refusal("corrupt_input", "a quote in the first record is never closed", line=line, byte=byte)
            first_bytes = len(prefix)
        if (first_bytes or len(prefix)) > self.max_line_bytes + 1:
            raise too_long(line, byte, self.max_line_bytes)
        if first_bytes == 0:
            return None
        header_bytes = first_bytes if self._dialect.header else 0
        ends = self.index(prefix)
        end = ends(header_bytes, len(prefix))
        newlines = prefix.count(b"\n", 0, header_bytes)
        if final and self.quoting.unclosed(prefix[end:]) is None:
            end = len(prefix)
        if end == header_bytes and not final:
            if len(prefix) - header_bytes > self.max_line_bytes:
                raise too_long(line + newlines, byte + header_bytes, self.max_line_bytes)
            return None
        names = self.names = self._names(prefix[:first_bytes], line, byte)
        sample = self._sample(prefix, ends, header_bytes, end, len(names))
        found = pa.schema([pa.field(name, pa.null()) for name in names])
        if self._survey is not None:
            found = self._survey.schema or found
        elif sample.strip(b"\r\n"):
            found = inferred(self.read, sample, names)
        schema = settle(found, self._types)
        needed = [schema.field(index) for index in needed_fields(self._needs, schema)]
        # Where only rows are counted, a column has to carry them; whatever stands there.
        self.schema = pa.schema(needed or [schema.field(0).with_type(pa.string())])
        self.kernel = self._kernel()
        self.weight = self._weight()
        return Opening(header_bytes, newlines, self.weight.most if self.kernel is None else self.weight.likely)

    def _weight(self) -> Weight:
        reading_bytes = _FIELD_BYTES * len(self.names)
        return Weight(self.schema, growth=1.0, least_bytes=_REJECT_BYTES, reading_bytes=reading_bytes)

    def _kernel(self) -> CsvKernel | None:
        if self._dialect.nulls != ("",):
            return None
        return kernel(
            self.schema,
            self.names,
            delimiter=self._dialect.delimiter,
            quote=self._dialect.quote,
            # Beside the rows, as much as pyarrow takes at the most: see CsvParse.grows.
            most_bytes=4 * self.page_bytes,
            most_rows_bytes=2 * self.page_bytes,
        )

    def evidence(self, block: bytes) -> pa.Schema:
        """See ``Surveyed``."""
        text = block.decode(errors="replace").encode()
        if self.quoting.has_stray_return(text):
            spans = self.quoting.records(text)
            text = b"".join(text[i:j] for i, j in spans if not self.quoting.has_stray_return(text[i:j]))
        if not text.strip(b"\r\n"):
            return pa.schema([pa.field(name, pa.null()) for name in self.names])
        return evidence(self.read, text, self.names)

    def put_together(self, first: pa.Schema, second: pa.Schema) -> pa.Schema:
        """See ``Surveyed``."""
        return put_together(first, second)

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
        if len(data) and _BYTE_ORDER_MARK.startswith(bytes(data[:3])):
            # Inside a stream it is text, but pyarrow would drop it where a block starts, and does not take one byte or two
            # of it. So let it start with a line.
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
                parse_options=self._parse_options(ignore_empty_lines=len(names) > 1, on_ragged=on_ragged),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=None if len(group) == len(names) else group,
                    column_types=None if types is None else {name: types.field(name).type for name in group},
                    null_values=self._dialect.nulls,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ).combine_chunks()
            found += table.schema
            columns += [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(found))

    def _parse_options(
        self, *, ignore_empty_lines: bool = True, on_ragged: Callable[[Any], str] | None = None
    ) -> pa_csv.ParseOptions:
        return pa_csv.ParseOptions(
            delimiter=self._dialect.delimiter.decode(),
            quote_char=self._dialect.quote.decode() or False,
            newlines_in_values=self._dialect.quote != b"",
            ignore_empty_lines=ignore_empty_lines,
            invalid_row_handler=on_ragged,
        )

    def _names(self, first: bytes, line: int, byte: int) -> list[str]:
        what = "the header" if self._dialect.header else "the first record"
        if self.quoting.has_stray_return(first):
            raise Refusal(
                "corrupt_input",
                f"line {line}, {what}, has a carriage return that is not followed by a newline: lines must end"
                " in a newline, or in both",
                line=line,
                byte=byte,
            )
        text = first if first.endswith(b"\n") else first + b"\n"
        try:
            names = pa_csv.read_csv(
                pa.py_buffer(text),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1),
                parse_options=self._parse_options(),
            ).column_names
        except (UnicodeDecodeError, pa.ArrowInvalid):
            if self._dialect.header:
                raise Refusal(
                    "bad_encoding", f"line {line}, the header, is not valid UTF-8", line=line, byte=byte
                ) from None
            return self._names(first.decode(errors="replace").encode(), line, byte)
        check_width(len(names), self.page_bytes)
        return _unique(names if self._dialect.header else [""] * len(names))

    def _sample(self, prefix: bytes, ends: Ends, start: int, end: int, columns: int) -> bytes:
        """The first records: as many as take no more than two pages while their types are still to be found."""
        while (end - start) + 9 * columns * prefix.count(b"\n", start, end) > 2 * self.page_bytes:
            length = shorter(ends, start, end)
            if not length:
                break
            end = start + length
        # What is not UTF-8 is a matter for the parser of rows; here it would make text look like binary.
        return prefix[start:end].decode(errors="replace").encode()


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
