"""All but the first records."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.page import Page
from app.stages.records import count, piece


class Offset:
    """Leaves out the first ``most`` records."""

    name = "offset"
    holds = 0
    grows = 2.0
    stateless = False

    def __init__(self, most: int) -> None:
        self._left = most

    def feed(self, page: Page) -> Iterable[Page]:
        """What of the page comes after the records that are left out; of the first page a piece always."""
        records = count(page)
        dropped = min(self._left, records)
        self._left -= dropped
        if dropped < records or page.first:
            yield piece(page, dropped, records)

    def flush(self) -> Iterable[Page]:
        """Nothing."""
        return ()
