"""CSV (RFC 4180) to pages of rows and back, for any delimiter and quote of one byte.

Read: the first record is the header; duplicate names get ``_1``, ``_2``, and empty ones become ``column0``, ... Where
there is no header, all are called so, and the first record tells how many they are.
An empty field is null and ``""`` is an empty text, unless the dialect has other spellings of null: then it is an empty
text too. What is quoted is never null. Blank lines are ignored, except in a table of one column, where each
is a null: there it is the only way to write one. Types are set by the first page; by its look, whole numbers of more
than 18 digits become decimals rather than lose digits; numbers with leading zeros and whole ones with a plus sign stay
text.

Written: texts in quotation marks, numbers, dates and the like without; null is empty; timestamps as
``2020-01-31 10:00:00``, those with a time zone in UTC with a Z; binary as it is; structs, lists and maps as JSON.
What is written is read back the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from app.core.interfaces import Stage
from app.framing.csv_parse import CsvParse
from app.framing.csv_table import CsvTable
from app.framing.csv_write import CsvWrite
from app.framing.dialect import CsvDialect
from app.framing.needs import ALL, Needs
from app.framing.slices import Slices
from app.framing.survey import Survey
from app.framing.table_cut import TableCut


def reader(
    *,
    dialect: CsvDialect,
    page_bytes: int,
    max_line_bytes: int,
    types: Mapping[str, pa.DataType],
    survey: Survey | None = None,
    needs: Needs = ALL,
) -> list[Stage]:
    """The stages from byte pages to record batches: one that cuts, cheaply, and one that parses, on any thread.

    Bad rows become rejects: ``ragged_row``, ``bad_value``, ``bad_encoding``, ``record_too_long``. Raises ``empty_input``,
    ``record_too_long`` (the header, the first record, or a quote that is never closed), ``page_too_large`` (too many
    columns), ``bad_argument`` (``types`` of a column that is not there), and for the header ``bad_encoding`` and
    ``corrupt_input``. With a ``survey``, which has ended before the first page comes, types are those that it found. Of
    columns that nobody ``needs`` no value is looked at.
    """
    table = CsvTable(
        dialect, page_bytes=page_bytes, max_line_bytes=max_line_bytes, types=types, survey=survey, needs=needs
    )
    return [TableCut("csv-cut", table, block_bytes=2 * page_bytes), CsvParse(table)]


def surveyor(*, dialect: CsvDialect, page_bytes: int, max_line_bytes: int) -> tuple[Stage, Survey]:
    """The stages of a first pass over byte pages: one that cuts, and one that looks at the types."""
    table = CsvTable(dialect, page_bytes=page_bytes, max_line_bytes=max_line_bytes, types={})
    return TableCut("csv-cut", table, block_bytes=page_bytes), Survey(table)


def writer(*, delimiter: bytes, page_bytes: int) -> list[Stage]:
    """The stages from record batches to bytes: the header first, then a line per row, each ended by a newline."""
    slices = Slices("csv-slice", page_bytes=page_bytes, control_factor=2, column_bytes=lambda name: 3)
    return [slices, CsvWrite(delimiter)]
