"""Bad rows: when a parser refuses a block, find the records it refuses, and keep the others.

The parser that reads good blocks is the judge of the others, so the fast and the slow way cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from app.core.page import Page, Reject
from app.framing.batches import occupied_bytes
from app.framing.ends import Ends

PARSER_ERRORS = (pa.ArrowException, ValueError, OverflowError)
"""What pyarrow raises for data. A ``ValueError``: its own, and for an error text that is not UTF-8."""

_PIECE_BYTES = 64 * 1024
"""Text that is looked at record by record in one go; a record may take a hundred bytes of Python objects then."""
_WAYS = 4
"""Into how many parts refused records are divided. With 1 % of them bad, 2 reads more bytes and 16 makes more calls."""
_HINTS = 4
"""How often in a piece a hint is followed. Each costs another look at the rest, which with many bad ones is dear."""
_TEXT_CHARACTERS = 1000
_VALUE_CHARACTERS = 100

Record = tuple[int, int]
"""Where a record starts and ends in its block."""


Read = Callable[[bytes | memoryview, int | None], pa.RecordBatch | int | None]
"""``read(text, count)``: the rows of whole records; of exactly ``count``, where that is known. If any is bad there are no
rows, but perhaps the index of one that is said to be bad, which is only a hint."""


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
    read: Read,
    blame: Callable[[bytes], Fault],
) -> list[pa.RecordBatch]:
    """The rows of those ``records`` of ``data`` that are good; ``faults`` is filled up with the others, by index.

    ``faults`` already has those that are known for certain. ``read`` is given their count; ``blame(text)`` tells why one is
    bad that it refuses by itself.
    """
    batches: list[pa.RecordBatch] = []
    hints = _HINTS

    def narrow(indices: Sequence[int]) -> None:
        nonlocal hints
        found = read(b"".join([data[start:end] for start, end in map(records.__getitem__, indices)]), len(indices))
        if isinstance(found, pa.RecordBatch):
            batches.append(found)
        elif len(indices) == 1:
            start, end = records[indices[0]]
            faults[indices[0]] = blame(data[start:end])
        else:
            if found is not None and found < len(indices) and hints:
                hints -= 1
                edges = [0, found, found + 1, len(indices)]
            else:
                edges = [*range(0, len(indices), -(-len(indices) // _WAYS)), len(indices)]
            for low, high in pairwise(edges):
                if low < high:
                    narrow(indices[low:high])

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
    read: Read,
    index: Callable[[bytes], Ends],
    records: Callable[[bytes], Sequence[Record]],
    blame: Callable[[bytes], Fault],
    faults: Callable[[bytes, Sequence[Record]], dict[int, Fault]] = lambda text, records: {},
) -> Page:
    """The rows of ``page``, and rejects for its other records.

    Only where ``read`` refuses are the records told apart: by ``index`` and ``records``. ``faults`` tells at a glance of what
    it can; the rest is narrowed down, and ``blame`` tells why one record is bad.
    """
    if not page.nbytes:
        return table_page(page, schema, [], [])
    found = read(page.payload, None)
    if isinstance(found, pa.RecordBatch):
        return table_page(page, schema, [found], [])
    data = bytes(page.payload)
    batches: list[pa.RecordBatch] = []
    rejected: list[Reject] = []
    line, at = page.line, 0
    for start, end in pieces(data, index(data)):
        line, at = line + data.count(b"\n", at, start), start
        text = data[start:end]
        found = read(text, None)
        if isinstance(found, pa.RecordBatch):
            batches.append(found)
            continue
        spans = records(text)
        bad = faults(text, spans)
        batches += salvage(text, spans, bad, read, blame)
        rejected += rejects(text, spans, bad, line=line, byte=page.byte + start)
    return table_page(page, schema, batches, rejected)


def table_page(page: Page, schema: pa.Schema, batches: Sequence[pa.RecordBatch], rejects: Sequence[Reject]) -> Page:
    """The page of rows that ``page`` becomes; the rejects that it came with stay behind its own."""
    if len(batches) == 1:
        batch = batches[0]
    else:
        batch = pa.concat_batches(batches) if batches else no_rows(schema)
    nbytes = occupied_bytes(batch, page.nbytes)
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
