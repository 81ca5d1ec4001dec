"""``infer=full``: the types of a whole table, found in a first pass over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from app.core.errors import Refusal
from app.core.interfaces import RandomAccess, ReadsSeveral, Stage
from app.core.page import Page
from app.framing.widening import unmarked

_PIECES_AT_ONCE = 4
"""How many pages are asked of an input that gives several sooner together."""


class Surveyed(Protocol):
    """A table whose types can be put together from those of its parts."""

    def evidence(self, block: bytes) -> pa.Schema:
        """The types of a block of whole records, with the marks of ``widening``; bad records are left out."""
        ...

    def put_together(self, first: pa.Schema, second: pa.Schema) -> pa.Schema:
        """The evidence of two blocks. Raises ``page_too_large`` for too many columns."""
        ...


class Survey:
    """The last stage of a first pass: takes pages of whole records, gives none, and knows the types of all then."""

    name = "survey"
    holds = 0
    stateless = False
    # What inference makes of a block, and its numbers once more as text; see ``TableCut``.
    grows = 8.0

    def __init__(self, table: Surveyed) -> None:
        self._table = table
        self._evidence: pa.Schema | None = None

    @property
    def schema(self) -> pa.Schema:
        """The types of all records so far; those of columns without a value are null."""
        found = pa.schema([]) if self._evidence is None else self._evidence
        return pa.schema([pa.field(field.name, unmarked(field.type)) for field in found])

    def feed(self, page: Page) -> Iterator[Page]:
        """Nothing."""
        if page.nbytes:
            found = self._table.evidence(bytes(page.payload))
            self._evidence = found if self._evidence is None else self._table.put_together(self._evidence, found)
        return iter(())

    def flush(self) -> Iterator[Page]:
        """Nothing."""
        return iter(())


def two_passes(input: RandomAccess, first_pass: Sequence[Stage], page_bytes: int) -> Iterator[Page]:
    """Take all of ``input`` through the stages of ``first_pass``, then give its pages.

    In the first pass a page without bytes is given for each that was taken, so that it can be stopped there. A refusal
    of the first pass is the input's.
    """
    for page in _pages(input, page_bytes):
        _feed(first_pass, page)
        yield Page(b"", 0)
    for index, stage in enumerate(first_pass):
        for page in stage.flush():
            _feed(first_pass[index + 1 :], page)
            yield Page(b"", 0)
    yield from _pages(input, page_bytes)


def first_pass_bytes(first_pass: Sequence[Stage], page_bytes: int) -> int:
    """The most bytes that ``two_passes`` holds: what it has read ahead, and what the stages hold, each with a page."""
    stages = sum(stage.holds + (1 + stage.grows) * page_bytes for stage in first_pass)
    return int(stages) + _PIECES_AT_ONCE * page_bytes


def _feed(stages: Sequence[Stage], page: Page) -> None:
    if stages:
        for result in stages[0].feed(page):
            _feed(stages[1:], result)


def _pages(input: RandomAccess, page_bytes: int) -> Iterator[Page]:
    at_once = _PIECES_AT_ONCE if isinstance(input, ReadsSeveral) else 1
    for start in range(0, input.nbytes, at_once * page_bytes):
        stop = min(input.nbytes, start + at_once * page_bytes)
        places = [(offset, min(page_bytes, stop - offset)) for offset in range(start, stop, page_bytes)]
        if isinstance(input, ReadsSeveral):
            pieces = input.read_several(places)
        else:
            pieces = [input.read_at(*place) for place in places]
        pieces.reverse()
        for offset, nbytes in places:
            piece = pieces.pop()
            if len(piece) != nbytes:
                raise Refusal("source_failed", f"reading failed at byte {offset}: the input ends too early")
            yield Page(piece, nbytes, byte=offset, first=offset == 0)
            del piece
