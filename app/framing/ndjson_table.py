"""An NDJSON table as text: the types of its columns, and pyarrow's reader with the options that are ours."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from app.core.page import Reject
from app.framing.bad_rows import PARSER_ERRORS
from app.framing.blocks import Block, LineEnd, RecordEnd, shorter, too_long
from app.framing.ends import Ends, line_ends
from app.framing.ndjson_kernel import NdjsonKernel, kernel
from app.framing.ndjson_read import read_lines
from app.framing.ndjson_types import (
    are_certain,
    as_texts,
    by_look,
    distinct_paths,
    evidence,
    has_many_digits,
    inference_bytes,
    inferred,
    put_together,
    shallow,
)
from app.framing.needs import ALL, Needs, needed_fields
from app.framing.schema import check_width, leaves, row_bytes, settle, text_growth
from app.framing.survey import Survey
from app.framing.table_cut import Opening
from app.framing.weight import Weight

_REJECT_BYTES = 128
"""What a row is reckoned to occupy at least when blocks are cut: a reject takes two or three times that."""
_TEXT_BYTES = 5.5
"""What a text is reckoned to take while it is read: two thirds of where it starts and ends, as that has half as much room
again as rows have. See ``open``."""
_SAMPLE_BYTES = 64 * 1024
"""Whose types are looked whether the rest of the first page has them too."""
TOO_DEEP = "objects and lists stand in one another too deep"


class NdjsonTable:
    """What both stages of a reader know of their table.

    Once ``open`` gave an ``Opening``, it has the ``schema`` of those columns that are needed (one at least: it carries the
    rows), ``every`` column, by which lines are judged, and perhaps a ``kernel`` that reads and judges them.
    """

    def __init__(
        self,
        *,
        page_bytes: int,
        max_line_bytes: int,
        types: Mapping[str, pa.DataType],
        survey: Survey | None = None,
        needs: Needs = ALL,
    ) -> None:
        self.schema = pa.schema([])
        self.kernel: NdjsonKernel | None = None
        self._needs = needs
        self._survey = survey
        self.page_bytes = page_bytes
        self.max_line_bytes = max_line_bytes
        self._types = types
        self.every = self._text_schema = self.schema
        self.weight = self._weight()

    def index(self, buffer: bytes) -> Ends:
        """Records are lines."""
        return line_ends(buffer)

    def record_end(self) -> RecordEnd:
        """See ``TextFormat``."""
        return LineEnd()

    def open(self, prefix: bytes, line: int, byte: int, *, final: bool) -> Opening | None:
        """Settle the schema by the first records. See ``TextFormat``."""
        ends = line_ends(prefix)
        end = len(prefix) if final else ends(0, len(prefix))
        if not end:
            if len(prefix) > self.max_line_bytes:
                raise too_long(line, byte, self.max_line_bytes)
            return None
        while inference_bytes(prefix, end) > 2 * self.page_bytes and (length := shorter(ends, 0, end)):
            end = length
        if self._survey is None:
            found = self._like_the_first(prefix[:end], ends(0, _SAMPLE_BYTES)) or self._inferred(prefix[:end])
        else:
            found = self._survey.schema
        added = [pa.field(name, type_) for name, type_ in self._types.items() if name not in found.names]
        self.every = settle(pa.schema([*found, *added]), self._types)
        check_width(leaves(self.every), self.page_bytes)
        wanted = needed_fields(self._needs, self.every) or [0][: len(self.every)]
        self.schema = pa.schema([self.every.field(index) for index in wanted])
        # Beside the rows, as much as pyarrow takes at the most: see NdjsonParse.grows.
        self.kernel = kernel(self.every, wanted, most_bytes=3 * self.page_bytes, most_rows_bytes=2 * self.page_bytes)
        # pyarrow reads these from numbers alone.
        self._text_schema = pa.schema(
            [pa.field(f.name, pa.string()) if _is_text_in_json(f.type) else f for f in self.every]
        )
        self.weight = self._weight()
        return Opening(0, 0, self.weight.most if self.kernel is None else self.weight.likely)

    def _weight(self) -> Weight:
        """pyarrow makes all columns, C those that are wanted."""
        return Weight(
            self.schema,
            growth=text_growth(self.every),
            least_bytes=max(_REJECT_BYTES, row_bytes(self.every)),
            reading_bytes=_TEXT_BYTES * leaves(self.schema),
        )

    def _looked_at(self, text: bytes) -> bytes:
        """What of ``text`` types are inferred of, if it has not too many columns for that."""
        text = shallow(text)
        check_width(distinct_paths(text), self.page_bytes)
        return text

    def _inferred(self, text: bytes) -> pa.Schema:
        text = self._looked_at(text)
        return inferred(text, 0, len(text))

    def _like_the_first(self, text: bytes, sample_bytes: int) -> pa.Schema | None:
        """The schema of some of ``text``, if it is that of all of it for certain: 33 ms a page, where to infer
        it of all takes 190."""
        if not 0 < sample_bytes < len(text) or has_many_digits(text):
            return None
        found = self._inferred(text[:sample_bytes])
        if not are_certain(found):
            return None
        texts, looking = as_texts(found)
        judge = kernel(texts, looking, most_bytes=3 * self.page_bytes)
        batch = None if judge is None else judge.read(text, text.count(b"\n"))
        same = batch is not None and all(by_look(batch[name]) == found.field(name).type for name in batch.schema.names)
        return found if same else None

    def evidence(self, block: bytes) -> pa.Schema:
        """See ``Surveyed``."""
        return evidence(self._looked_at(block))

    def put_together(self, first: pa.Schema, second: pa.Schema) -> pa.Schema:
        """See ``Surveyed``."""
        found = put_together(first, second)
        check_width(leaves(found), self.page_bytes)
        return found

    def unfinished(self, block: Block) -> Reject | None:
        """A last line without a newline is a record like any other."""
        return None

    def read(self, data: bytes | memoryview) -> pa.RecordBatch:
        """Lines as pyarrow reads them. Raises ``PARSER_ERRORS``.

        It may find more or fewer rows than there are lines.
        """
        batch = read_lines(data, self._text_schema, unexpected="error")
        columns = [_cast(column, field.type) for column, field in zip(batch.columns, self.every, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=self.every).select(self.schema.names)

    def untyped(self, name: str, value: object) -> str | None:
        """Why a value, which is JSON, has no type at all; None if it has one."""
        try:
            read_lines(orjson.dumps({name: value}) + b"\n", None, unexpected="infer")
        except orjson.JSONEncodeError:
            return TOO_DEEP
        except PARSER_ERRORS:
            return "the elements of a list, or the same field of several objects, differ in type"
        return None

    def read_value(self, name: str, value: object) -> pa.RecordBatch:
        """A row of one column, as ``read`` would have it in the whole row."""
        text = orjson.dumps({name: value}) + b"\n"
        column = read_lines(text, pa.schema([self._text_schema.field(name)]), unexpected="error").column(0)
        return pa.RecordBatch.from_arrays([_cast(column, self.every.field(name).type)], [name])


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if column.type.equals(type_):
        return column
    if pa.types.is_time(type_) and pa.types.is_string(column.type):
        moments = pc.binary_join_element_wise("1970-01-01T", column, "").cast(pa.timestamp("us"))
        return moments.cast(type_)
    return column.cast(type_)


def _is_text_in_json(type_: pa.DataType) -> bool:
    return bool(pa.types.is_date(type_) or pa.types.is_time(type_))
