"""The first records."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.errors import Refusal
from app.core.page import Page
from app.stages.records import count, piece


class Limit:
    """Keeps the first ``most`` records, and is sated then: the flow ends without the rest of the input."""

    name = "limit"
    holds = 0
    grows = 2.0
    stateless = False

    def __init__(self, most: int) -> None:
        self._left = most

    @property
    def sated(self) -> bool:
        """No further record will pass."""
        return self._left == 0

    def feed(self, page: Page) -> Iterable[Page]:
        """As much of the page as is still wanted; of the first page a piece always, as it carries the schema."""
        kept = min(self._left, count(page))
        if kept or page.first:
            self._left -= kept
            yield piece(page, 0, kept)

    def flush(self) -> Iterable[Page]:
        """Nothing."""
        return ()


def parse_count(text: str) -> int:
    """A number of records from 0. Raises ``bad_argument``."""
    if not text.strip().isdecimal() or len(text) > 18:
        raise Refusal("bad_argument", f"{text[:80]!r} is not a number of records")
    return int(text)
