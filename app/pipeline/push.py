"""A page pushed through a chain of stages, each timed by itself. Plain functions; they run on any thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.pipeline.statistics import StageClock


def nbytes_of(pages: Iterable[Page]) -> int:
    """What the pages occupy, in bytes."""
    return sum(page.nbytes for page in pages)


def through(stages: tuple[Stage, ...], clocks: list[StageClock], page: Page, index: int) -> Iterator[Page]:
    """Push one page through the stages from ``index`` on, depth first, timing each stage by itself."""
    if index == len(stages):
        yield page
        return
    clocks[index].bytes_in += page.nbytes
    clocks[index].rows_in += page.rows
    yield from _timed(stages, clocks, index, lambda: stages[index].feed(page))


def serve(stages: tuple[Stage, ...], clocks: list[StageClock], pages: list[Page]) -> Iterator[Page]:
    """Push pages through, as long as the stages want any."""
    for page in pages:
        yield from through(stages, clocks, page, 0)
        if sated(stages) is not None:
            return


def sated(stages: tuple[Stage, ...]) -> int | None:
    """The index of the first stage that needs no more input, if there is one."""
    # Asked for each page: to look whether a stage is ``Sated`` takes longer than to look for its word.
    return next((index for index, stage in enumerate(stages) if getattr(stage, "sated", False)), None)


def flush(stages: tuple[Stage, ...], clocks: list[StageClock], start: int) -> Iterator[Page]:
    """The input ended well, for the stages from ``start`` on: what they kept back, through those behind them."""
    for index in range(start, len(stages)):
        yield from _timed(stages, clocks, index, stages[index].flush)


def _timed(
    stages: tuple[Stage, ...], clocks: list[StageClock], index: int, call: Callable[[], Iterable[Page]]
) -> Iterator[Page]:
    clock = clocks[index]
    results: Iterator[Page] | None = None
    while True:
        started = time.perf_counter()
        try:
            if results is None:
                results = iter(call())
            page = next(results, None)
        except Refusal:
            raise
        except Exception as error:
            raise stage_failed(stages[index].name, error) from error
        finally:
            clock.busy_s += time.perf_counter() - started
        if page is None:
            return
        clock.bytes_out += page.nbytes
        clock.rows_out += page.rows
        yield from through(stages, clocks, page, index + 1)


class Work:
    """Some pages on their way through stateless stages, with clocks of their own: several may be under way at once."""

    def __init__(self, stages: tuple[Stage, ...], pages: list[Page]) -> None:
        self.clocks = [StageClock(stage.name) for stage in stages]
        self.pages = pages
        self._results = (result for page in pages for result in through(stages, self.clocks, page, 0))

    def some(self, enough_bytes: int) -> tuple[list[Page], bool]:
        """See ``collect``."""
        return collect(self._results, enough_bytes)


def collect(results: Iterator[Page], enough_bytes: int) -> tuple[list[Page], bool]:
    """Results until they make up a page; and whether there may be more."""
    pages: list[Page] = []
    collected = 0
    for page in results:
        pages.append(page)
        collected += page.nbytes
        if collected >= enough_bytes:
            return pages, True
    return pages, False


def stage_failed(name: str, error: Exception) -> Refusal:
    """The refusal of what a stage raised and did not mean to."""
    return Refusal("stage_failed", f"the stage {name!r} failed: {type(error).__name__}: {error}")
