"""Bad rows: when a parser refuses a block, find the records it refuses, and keep the others.

The parser that reads good blocks is the only judge of a record, so both ways always agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from app.core.page import Page, Reject

PARSER_ERRORS = (pa.ArrowException, ValueError, OverflowError)
"""What pyarrow raises for data. A ``ValueError``: its own, and for an error text that is not UTF-8."""

_WAYS = 4
"""Into how many parts a refused range is cut. With 1 % bad records, 2 reads more bytes and 16 makes more calls."""
_TEXT_CHARACTERS = 1000
_VALUE_CHARACTERS = 100

Read = Callable[[int, int], pa.RecordBatch | None]
"""``read(i, j)``: the rows of the records i to j - 1, or None if the parser refuses any of them."""


def salvage(count: int, read: Read, blame: Callable[[int], Reject | None]) -> tuple[list[pa.RecordBatch], list[Reject]]:
    """The rows that ``read`` accepts of ``count`` records, and what ``blame`` says of each of the others, in order.

    All records together are known to be refused. ``blame`` may give None for a record that is none (a blank line).
    """
    batches: list[pa.RecordBatch] = []
    rejects: list[Reject] = []

    def narrow(start: int, stop: int) -> None:
        if stop - start == 1:
            reject = blame(start)
            if reject is not None:
                rejects.append(reject)
            return
        step = -(-(stop - start) // _WAYS)
        for low in range(start, stop, step):
            high = min(stop, low + step)
            batch = read(low, high)
            if batch is None:
                narrow(low, high)
            elif batch.num_rows:
                batches.append(batch)

    if count:
        narrow(0, count)
    return batches, rejects


def table_page(page: Page, schema: pa.Schema, batches: Sequence[pa.RecordBatch], rejects: Sequence[Reject]) -> Page:
    """The page of rows that ``page`` becomes; the rejects that it came with stay behind its own."""
    if len(batches) == 1:
        batch = batches[0]
    else:
        batch = pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], schema=schema)
    return Page(
        batch,
        max(1, batch.nbytes),
        rows=batch.num_rows,
        byte=page.byte,
        line=page.line,
        first=page.first,
        rejects=(*rejects, *page.rejects),
    )


def text_of(record: bytes | memoryview) -> str:
    """A record as it is shown to the user: at most 1,000 characters of it, without its line end."""
    return bytes(record[: 4 * _TEXT_CHARACTERS]).decode(errors="replace").rstrip("\r\n")[:_TEXT_CHARACTERS]


def misfit(column: str, value: object, type_: pa.DataType) -> str:
    """The phrase for a value that does not fit its column."""
    text = str(value)
    shown = text if len(text) <= _VALUE_CHARACTERS else text[:_VALUE_CHARACTERS] + "…"
    return f"column {column[:_VALUE_CHARACTERS]!r}: {shown!r} is not {type_}"
