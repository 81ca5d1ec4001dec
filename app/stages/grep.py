"""Lines that match."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from app.core.errors import Refusal
from app.core.page import Page
from app.stages.lines import join, split


class Grep:
    """Keeps the lines in which an RE2 expression matches somewhere; what ends a line is not searched, but a carriage
    return before the newline is, as grep does it. With ``keep_header`` the first line of the stream is kept always.

    Raises ``bad_argument`` for an expression that RE2 does not take.
    """

    name = "grep"
    holds = 0
    grows = 3.0
    """The lines as an array (copied by the split, with 4 to 8 bytes of offset each), the kept ones, and these joined."""
    stateless = True

    def __init__(self, regex: str, *, keep_header: bool) -> None:
        self._regex = regex
        self._keep_header = keep_header
        check_regex(regex)

    def feed(self, page: Page) -> Iterable[Page]:
        """A page of the lines that match; empty if none does."""
        lines, tail = split(page.payload)
        header = 1 if self._keep_header and page.first else 0
        matches = pc.match_substring_regex(lines[header:], self._regex)
        kept = pa.concat_arrays([lines[:header], lines[header:].filter(matches)])
        # The last line may have no newline: it keeps none if it is kept.
        ends_bare = tail and len(kept) > 0 and (len(lines) == header or bool(matches[-1].as_py()))
        payload = join(kept, bare_end=ends_bare)
        yield dataclasses.replace(page, payload=payload, nbytes=len(payload), rows=len(kept))

    def flush(self) -> Iterable[Page]:
        """Nothing: a page holds whole lines."""
        return ()


def check_regex(regex: str) -> None:
    """Raise ``bad_argument`` with RE2's words if it does not take ``regex``."""
    try:
        pc.match_substring_regex(pa.array([""]), regex)
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
        raise Refusal("bad_argument", f"{regex[:80]!r} is not a regular expression (RE2): {reason}") from error
