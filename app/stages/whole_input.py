"""What operators that have to see a whole input have in common."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace

from app.core.page import Page
from app.stages.sql_engine import QueryOptions

_LEAST_BYTES = 8 * 1024 * 1024


class WholeInput:
    """Holds what it may, of which it can spare all but ``least_bytes``, and can be interrupted. What it does is ``pages``."""

    name: str
    grows: float

    def __init__(self, options: QueryOptions, *, least_bytes: int = 0) -> None:
        self._page_bytes = options.page_bytes
        self._spill = options.spill
        self._least_bytes = max(_LEAST_BYTES, least_bytes, options.least_bytes)
        self.holds = max(_LEAST_BYTES, options.whole_bytes)
        self.spilled_bytes = 0
        self._is_over = threading.Event()

    def pages(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The output for the whole stream, one page at least; whether one is ``first`` is not for it to tell."""
        raise NotImplementedError

    def run(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The output for the whole stream. What ``pages`` raises comes out as it is."""
        first = True
        for page in self.pages(pages):
            yield replace(page, first=first)
            first = False

    def spare(self, nbytes: int) -> None:
        """Hold so much less, as far as that is possible."""
        self.holds -= min(nbytes, self.spare_bytes)

    @property
    def spare_bytes(self) -> int:
        """See ``Modest``."""
        return max(0, self.holds - self._least_bytes)

    def interrupt(self) -> None:
        """See ``Interruptible``."""
        self._is_over.set()

    def look(self) -> None:
        """Raises ``CancelledError`` once it was interrupted."""
        if self._is_over.is_set():
            raise CancelledError
