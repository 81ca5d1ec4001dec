"""Rows on their way into a query and out of it, in pages."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from app.core.errors import Refusal
from app.core.page import Page, Reject
from app.core.units import as_size
from app.framing.batches import occupied_bytes


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """``batch`` with the names and types of ``schema``."""
    if batch.schema.equals(schema):
        return batch
    arrays = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def pieces(batch: pa.RecordBatch, *, page_bytes: int, row_bytes: int, steps: str) -> Iterator[pa.RecordBatch]:
    """``batch`` in slices of two pages at most, none if it has no row. Raises ``page_too_large`` in the name of ``steps``
    where a row has more than that, and than ``row_bytes``, which the input had."""
    most_bytes, rows = 2 * page_bytes, batch.num_rows
    nbytes = occupied_bytes(batch, most_bytes)
    if rows == 1 and nbytes > max(most_bytes, row_bytes):
        detail = f"{steps}: one row becomes {as_size(nbytes)}, the most is {as_size(most_bytes)}, two pages"
        raise Refusal("page_too_large", detail)
    if nbytes <= most_bytes or rows == 1:
        yield from (batch,) if rows else ()
        return
    step = max(1, min(rows // 2, rows * page_bytes // nbytes))
    for start in range(0, rows, step):
        yield from pieces(batch.slice(start, step), page_bytes=page_bytes, row_bytes=row_bytes, steps=steps)


def query_page(
    batch: pa.RecordBatch, *, page_bytes: int, first: bool = False, rejects: tuple[Reject, ...] = ()
) -> Page:
    """``batch`` as a page, which brings the ``rejects`` of the input along."""
    nbytes = occupied_bytes(batch, 2 * page_bytes)
    return Page(batch, nbytes, rows=batch.num_rows, first=first, rejects=rejects)


def query_pages(
    made: pa.RecordBatch, page: Page, *, page_bytes: int, steps: str, rejects: tuple[Reject, ...] = ()
) -> Iterator[Page]:
    """The rows ``made`` of ``page`` as pages, one at least. See ``pieces``."""
    first = page.first
    for piece in pieces(made, page_bytes=page_bytes, row_bytes=page.nbytes, steps=steps):
        yield query_page(piece, page_bytes=page_bytes, first=first, rejects=rejects)
        first, rejects = False, ()
    if not made.num_rows:
        yield query_page(made, page_bytes=page_bytes, first=first, rejects=rejects)
