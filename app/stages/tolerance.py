"""What becomes of records that could not be read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from app.core.errors import Refusal
from app.core.page import Page, Reject


class Tolerance:
    """Takes the rejects off each page, in order, and fails, skips or keeps them as the user asked.

    ``fail`` raises the first reject as a refusal with its line, byte and column. ``skip`` drops them; ``quarantine``
    gives them to ``keep`` first. More than ``max_errors`` of them (a number of rows; or a share of all rows, as a float,
    which is judged at the end) is ``too_many_rejects``. ``rejected`` counts them by code.
    """

    name = "tolerance"
    holds = 0
    grows = 0.0
    brisk = True

    def __init__(
        self, on_error: str, max_errors: int | float | None, keep: Callable[[Sequence[Reject]], None] | None
    ) -> None:
        self.stateless = on_error == "fail"  # failures come in the order of pages, whoever finds them
        self._on_error = on_error
        self._max_errors = max_errors
        self._keep = keep
        self._rows = 0
        self._last: Reject | None = None
        self.rejected: Counter[str] = Counter()

    def feed(self, page: Page) -> Iterable[Page]:
        """The page without its rejects."""
        if page.rejects:
            self._judge(page.rejects)
        self._rows += page.rows
        yield dataclasses.replace(page, rejects=()) if page.rejects else page

    def flush(self) -> Iterable[Page]:
        """Nothing; but a share of bad rows that is too large is known now."""
        share, bad = self._max_errors, self.rejected.total()
        if isinstance(share, float) and self._last is not None and bad > share * (self._rows + bad):
            raise self._too_many(self._last, f"{bad} of {self._rows + bad} rows, {share:.3%}")
        return ()

    def _judge(self, rejects: Sequence[Reject]) -> None:
        if self._on_error == "fail":
            first = rejects[0]
            place = f"line {first.line}, byte {first.byte}"
            raise Refusal(first.code, f"{place}: {first.detail}", line=first.line, byte=first.byte, column=first.column)
        for reject in rejects:
            self.rejected[reject.code] += 1
            self._last = reject
            if type(self._max_errors) is int and self.rejected.total() > self._max_errors:
                raise self._too_many(reject, str(self._max_errors))
        if self._keep is not None:
            self._keep(rejects)

    def _too_many(self, last: Reject, allowed: str) -> Refusal:
        return Refusal(
            "too_many_rejects",
            f"more bad rows than max_errors allows ({allowed}); the last is at line {last.line}: {last.detail}",
            line=last.line,
            byte=last.byte,
            column=last.column,
        )
