"""Bad rows: when a parser refuses a block, find the records it refuses, and keep the others.

The parser that reads good blocks is the judge of the others, so the fast and the slow way cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from app.core.page import Page, Reject
from app.framing.ends import Ends

PARSER_ERRORS = (pa.ArrowException, ValueError, OverflowError)
"""What pyarrow raises for data. A ``ValueError``: its own, and for an error text that is not UTF-8."""

REJECT_BYTES = 128
"""What a row is reckoned to occupy at least when blocks are cut: a reject takes two or three times that."""

_PIECE_BYTES = 64 * 1024
"""Text that is looked at record by record in one go; a record may take a hundred bytes of Python objects then."""
_WAYS = 4
"""Into how many parts refused records are divided. With 1 % of them bad, 2 reads more bytes and 16 makes more calls."""
_TEXT_CHARACTERS = 1000
_VALUE_CHARACTERS = 100

Record = tuple[int, int]
"""Where a record starts and ends in its block."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record is bad; see ``Reject``."""

    code: str
    detail: str
    column: str | None = None


def pieces(data: bytes, ends: Ends) -> Iterator[Record]:
    """``data`` in parts of whole records, small enough to be taken apart."""
    start = 0
    while start < len(data):
        window = _PIECE_BYTES
        end = ends(start, start + window)
        while end == start and start + window < len(data):
            window *= 2
            end = ends(start, start + window)
        if end == start:
            end = len(data)  # the last record, without a newline
        yield start, end
        start = end


def salvage(
    data: bytes,
    records: Sequence[Record],
    faults: dict[int, Fault],
    read: Callable[[bytes | memoryview, int | None], pa.RecordBatch | None],
    blame: Callable[[bytes], Fault],
) -> list[pa.RecordBatch]:
    """The rows of those ``records`` of ``data`` that are good; ``faults`` is filled up with the others, by index.

    ``faults`` already has those that are known for certain. ``read(text, count)`` gives the rows of ``count`` records,
    or None if any is bad; ``blame(text)`` tells why one is that ``read`` refuses by itself.
    """
    batches: list[pa.RecordBatch] = []

    def narrow(indices: Sequence[int]) -> None:
        batch = read(b"".join([data[start:end] for start, end in map(records.__getitem__, indices)]), len(indices))
        if batch is not None:
            batches.append(batch)
        elif len(indices) == 1:
            start, end = records[indices[0]]
            faults[indices[0]] = blame(data[start:end])
        else:
            step = -(-len(indices) // _WAYS)
            for low in range(0, len(indices), step):
                narrow(indices[low : low + step])

    rest = [index for index in range(len(records)) if index not in faults]
    if rest:
        narrow(rest)
    return batches


def rejects(
    data: bytes, records: Sequence[Record], faults: dict[int, Fault], *, line: int, byte: int
) -> Iterator[Reject]:
    """The rejects for ``faults``, in order; ``line`` and ``byte`` are where ``data`` starts."""
    at = 0
    for index, fault in sorted(faults.items()):
        start, end = records[index]
        line, at = line + data.count(b"\n", at, start), start
        yield Reject(line, byte + start, fault.code, fault.detail, text_of(data[start:end]), fault.column)


def parse_page(
    page: Page,
    schema: pa.Schema,
    *,
    read: Callable[[bytes | memoryview, int | None], pa.RecordBatch | None],
    index: Callable[[bytes], Ends],
    records: Callable[[bytes], Sequence[Record]],
    blame: Callable[[bytes], Fault],
    faults: Callable[[bytes, Sequence[Record]], dict[int, Fault]] = lambda text, records: {},
) -> Page:
    """The rows of ``page``, and rejects for its other records.

    ``read(text, count)`` gives the rows of whole records, None if any is bad (or, where it is known, if there are not
    ``count``). Only then are the records told apart: by ``index`` and ``records``. ``faults`` tells at a glance of what
    it can; the rest is narrowed down, and ``blame`` tells why one record is bad.
    """
    if not page.nbytes:
        return table_page(page, schema, [], [])
    batch = read(page.payload, None)
    if batch is not None:
        return table_page(page, schema, [batch], [])
    data = bytes(page.payload)
    batches: list[pa.RecordBatch] = []
    rejected: list[Reject] = []
    line, at = page.line, 0
    for start, end in pieces(data, index(data)):
        line, at = line + data.count(b"\n", at, start), start
        text = data[start:end]
        batch = read(text, None)
        if batch is not None:
            batches.append(batch)
            continue
        found = records(text)
        bad = faults(text, found)
        batches += salvage(text, found, bad, read, blame)
        rejected += rejects(text, found, bad, line=line, byte=page.byte + start)
    return table_page(page, schema, batches, rejected)


def table_page(page: Page, schema: pa.Schema, batches: Sequence[pa.RecordBatch], rejects: Sequence[Reject]) -> Page:
    """The page of rows that ``page`` becomes; the rejects that it came with stay behind its own."""
    if len(batches) == 1:
        batch = batches[0]
    else:
        batch = pa.concat_batches(batches) if batches else no_rows(schema)
    nbytes = max(1, batch.nbytes)
    return Page(batch, nbytes, batch.num_rows, page.byte, page.line, page.first, (*rejects, *page.rejects))


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """An empty batch."""
    return pa.RecordBatch.from_pylist([], schema=schema)


def text_of(record: bytes | memoryview) -> str:
    """A record as it is shown to the user: at most 1,000 characters of it, without its line end."""
    return bytes(record[: 4 * _TEXT_CHARACTERS]).decode(errors="replace").rstrip("\r\n")[:_TEXT_CHARACTERS]


def misfit(column: str, value: object, type_: pa.DataType) -> Fault:
    """The fault of a value that does not fit its column."""
    return Fault("bad_value", f"column {short(column)}: {short(str(value))} is not {type_}", column)


def short(text: str) -> str:
    """``text`` in quotation marks, cut to 100 characters."""
    return repr(text if len(text) <= _VALUE_CHARACTERS else text[:_VALUE_CHARACTERS] + "…")
