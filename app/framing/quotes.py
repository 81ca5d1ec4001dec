"""Where CSV records end: RFC 4180 quoting as pyarrow reads it, and newlines within quotes.

A quote opens a quoted field only at the start of a field; within one, "" is a quote; any other quote stands for itself.
Where nothing is quoted, records are lines.
A carriage return ends no record here. To pyarrow it does, so outside of quotes one is only allowed before a newline.
"""

from __future__ import annotations

import re
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from app.framing.blocks import LineEnd, RecordEnd
from app.framing.ends import Ends, LineEnds, known_ends, line_ends

_NEWLINE, _RETURN = b"\n"[0], b"\r"[0]
_LONE_RETURN = re.compile(rb"\r(?!\n)")
_LINE = re.compile(rb"[^\n]*+\n|[^\n]++")


class Quoting:
    """The rules for one ``delimiter`` and one ``quote``, of a byte each; without a ``quote`` nothing is quoted."""

    def __init__(self, delimiter: bytes, quote: bytes = b'"') -> None:
        self._delimiter, self._quote = delimiter, quote
        if not quote:
            return
        d, q = re.escape(delimiter), re.escape(quote)
        quoted = q + rb"(?:[^" + q + rb"]++|" + q + q + rb")*+" + q
        # A quote that follows neither a delimiter nor a newline does not start a field. One at the very start does.
        # Atomic groups and not possessive repeats: these match too much before Python 3.11.5. And bounded, because a
        # repeat that may be backtracked takes memory for each turn until its group is left.
        inside = rb"(?>(?:[^" + q + rb"\n]++|(?<=[^" + d + rb"\n])" + q + rb"|" + quoted + rb"){0,500})"
        self._opens = pa.array([delimiter[0], _NEWLINE, quote[0]], pa.uint8())
        self._closes = pa.array([delimiter[0], _NEWLINE, _RETURN, quote[0]], pa.uint8())
        self._inside = re.compile(inside)
        self._short_records = re.compile(rb"(?>(?:" + inside + rb"\n){0,500})")
        self._quoted = re.compile(rb"(?:\A|(?<=[" + d + rb"\n]))" + quoted)

    def index(self, buffer: bytes) -> Ends:
        """The ``Index`` (see blocks) of CSV: exact, and the cheapest of the ways that are."""
        if not self._quote:
            return line_ends(buffer)
        if (known := known_ends(buffer, self._delimiter[0], self._quote[0])) is not None:
            return known
        if not self._quotes_in(buffer):
            return LineEnds(buffer)
        if self._alternate(buffer):
            return _EvenEnds(buffer, self._quote)
        return _ExactEnds(buffer, self)

    def first_end(self, buffer: bytes) -> int:
        """Where the first record of ``buffer`` ends, its newline included; 0 if it does not."""
        end = self._content_end(buffer, 0, len(buffer))
        return end + 1 if buffer[end : end + 1] == b"\n" else 0

    def unclosed(self, record: bytes | memoryview) -> int | None:
        """Where the quote stands that opens a field of ``record`` and is not closed."""
        end = self._content_end(record, 0, len(record))
        return end if end < len(record) else None

    def record_end(self) -> RecordEnd:
        """Looks for the end of a record that comes in pieces."""
        return _QuotedEnd(self._delimiter, self._quote) if self._quote else LineEnd()

    def records(self, block: bytes | memoryview) -> list[tuple[int, int]]:
        """The start and end of each record of ``block``, blank lines included."""
        if not self._quotes_in(block):
            return [match.span() for match in _LINE.finditer(block)]
        spans: list[tuple[int, int]] = []
        start = 0
        while start < len(block):
            end = self._content_end(block, start, len(block))
            if end < len(block) and block[end] != _NEWLINE:
                break
            spans.append((start, min(end + 1, len(block))))
            start = end + 1
        return spans

    def has_stray_return(self, block: bytes | memoryview) -> bool:
        """Whether a carriage return outside of quotes is not followed by a newline."""
        if _LONE_RETURN.search(block) is None:
            return False
        if not self._quotes_in(block):
            return True
        return _LONE_RETURN.search(self._quoted.sub(b"", bytes(block))) is not None

    def _quotes_in(self, block: bytes | memoryview) -> bool:
        return self._quote != b"" and self._quote in bytes(block)

    def _content_end(self, buffer: bytes | memoryview, start: int, stop: int) -> int:
        """Where the content of the record at ``start`` ends: at its newline, at ``stop``, or at a quote that opens and
        is not closed."""
        if not self._quote:
            newline = bytes(buffer).find(b"\n", start, stop)
            return stop if newline < 0 else newline
        while (end := self._inside.match(buffer, start, stop).end()) > start:  # type: ignore[union-attr]
            start = end
        return end

    def last_end(self, buffer: bytes, start: int, stop: int) -> int:
        """Where the last whole record of ``buffer[start:stop]`` ends, or ``start``."""
        stop = min(stop, len(buffer))
        while True:
            end = self._short_records.match(buffer, start, stop).end()  # type: ignore[union-attr]
            if end == start:  # a record of very many parts, or one that does not end
                end = self._content_end(buffer, start, stop) + 1
                if end > stop or buffer[end - 1] != _NEWLINE:
                    return start
            start = end

    def _alternate(self, buffer: bytes) -> bool:
        """Whether every other quote opens and every other closes: then parity tells what is quoted.

        By induction: the first, third, ... must follow a delimiter, a newline or (as the second half of "") the quote
        before it; the second, fourth, ... must precede a delimiter, a line end or (as the first half) the quote behind.
        What the last byte of the buffer is decides nothing within it.
        """
        count = len(buffer) - 2
        if count <= 0:
            return True
        array = pa.Array.from_buffers(pa.uint8(), len(buffer), [None, pa.py_buffer(buffer)])
        is_quote = pc.equal(array.slice(1, count), pa.scalar(self._quote[0], pa.uint8()))
        before = pc.filter(array.slice(0, count), is_quote)
        behind = pc.filter(array.slice(2, count), is_quote)
        # Bits 0101... or 1010...: the first byte of the buffer may be the first quote.
        bits = b"\xaa" if buffer[0] == self._quote[0] else b"\x55"
        opening = pa.Array.from_buffers(pa.bool_(), len(before), [None, pa.py_buffer(bits * (len(before) // 8 + 1))])
        legal = pc.if_else(opening, pc.is_in(before, value_set=self._opens), pc.is_in(behind, value_set=self._closes))
        return bool(legal.false_count == 0)


class _QuotedEnd:
    """See ``RecordEnd``."""

    def __init__(self, delimiter: bytes, quote: bytes) -> None:
        self._delimiter, self._quote = delimiter[0], quote[0]
        self._find_quote = re.compile(re.escape(quote)).search
        self._find_turn = re.compile(rb"\n|" + re.escape(delimiter + quote)).search
        # Before a field; in one without quotes, or behind the quotes; within quotes; behind a quote within quotes.
        self._state: Literal["before", "plain", "quoted", "quote"] = "before"

    @property
    def may_end(self) -> bool:
        return self._state != "quoted"

    def feed(self, piece: bytes | memoryview) -> int:
        at = 0
        while at < len(piece):
            if self._state == "quoted":
                found = self._find_quote(piece, at)
                if found is None:
                    return 0
                at, self._state = found.end(), "quote"
            elif self._state in ("before", "quote"):
                is_quote = piece[at] == self._quote
                at, self._state = at + is_quote, "quoted" if is_quote else "plain"
            else:
                found = self._find_turn(piece, at)
                if found is None:
                    self._state = "before" if piece[-1] == self._delimiter else "plain"
                    return 0
                if found[0] == b"\n":
                    return found.end()
                at, self._state = found.end(), "quoted"
        return 0


class _EvenEnds(LineEnds):
    """A newline ends a record if the number of quotes before it is even."""

    def __init__(self, buffer: bytes, quote: bytes) -> None:
        super().__init__(buffer)
        self._quote = quote

    def __call__(self, start: int, stop: int) -> int:
        """See ``Ends``."""
        buffer = self._buffer
        newline = buffer.rfind(b"\n", start, stop)
        quotes = buffer.count(self._quote, start, max(start, newline))
        while quotes % 2:
            earlier = buffer.rfind(b"\n", start, newline)
            if earlier < 0:
                return start
            quotes -= buffer.count(self._quote, earlier, newline)
            newline = earlier
        return newline + 1 if newline >= 0 else start


class _ExactEnds(LineEnds):
    """By every record before."""

    def __init__(self, buffer: bytes, quoting: Quoting) -> None:
        super().__init__(buffer)
        self._quoting = quoting

    def __call__(self, start: int, stop: int) -> int:
        """See ``Ends``."""
        return self._quoting.last_end(self._buffer, start, stop)
