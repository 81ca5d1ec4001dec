"""The unit that flows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not be read: where it stood and why.

    ``line`` counts from 1 and ``byte`` from 0, both in the input after its content encoding was undone and both at the
    record's first byte. ``column`` is the column's name where one is to blame. ``text`` is the record, cut to 1,000
    characters.
    """

    line: int
    byte: int
    code: str
    detail: str
    text: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a stream: a byte block, a block of whole lines, or an Arrow record batch. Its payload never changes.

    ``nbytes`` is what the payload occupies, in bytes; it is what channels and budgets count.
    ``rows`` is the number of records, 0 for raw bytes.
    ``byte`` and ``line`` tell, for text that is still to be parsed, where its first byte stands in the decoded input
    (bytes from 0, lines from 1).
    ``first`` marks the page that opens its stream; a stream of tables always has one, even when it has no row, because
    it carries the schema.
    ``rejects`` are the records of this page's stretch of input that are not among its rows.
    """

    payload: Any
    nbytes: int
    rows: int = 0
    byte: int = 0
    line: int = 1
    first: bool = False
    rejects: tuple[Reject, ...] = field(default=())
