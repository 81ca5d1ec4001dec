"""Some of a page's records: rows of a table, or whole lines."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from app.core.page import Page
from app.stages.lines import join, split


def count(page: Page) -> int:
    """How many records the page has."""
    return page.payload.num_rows if isinstance(page.payload, pa.RecordBatch) else page.rows


def piece(page: Page, start: int, stop: int) -> Page:
    """The records from ``start`` up to ``stop``, which lie within the page."""
    if start == 0 and stop == count(page):
        return page
    if isinstance(page.payload, pa.RecordBatch):
        batch = page.payload.slice(start, stop - start)
        return dataclasses.replace(page, payload=batch, nbytes=max(1, batch.nbytes), rows=batch.num_rows)
    lines, bare = split(page.payload)
    kept = lines[start:stop]
    return _of_lines(page, kept, bare and stop == len(lines))


def chosen(page: Page, mask: pa.Array) -> Page:
    """The records for which ``mask``, an array of booleans, holds."""
    if isinstance(page.payload, pa.RecordBatch):
        batch = page.payload.filter(mask)
        return dataclasses.replace(page, payload=batch, nbytes=max(1, batch.nbytes), rows=batch.num_rows)
    lines, bare = split(page.payload)
    return _of_lines(page, lines.filter(mask), bare and bool(mask[-1].as_py()))


def _of_lines(page: Page, lines: pa.Array, bare_end: bool) -> Page:
    payload = join(lines, bare_end=bare_end and len(lines) > 0)
    return dataclasses.replace(page, payload=payload, nbytes=len(payload), rows=len(lines))
