"""A page pushed through a chain of stages, each timed by itself. Plain functions; they run on any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.core.segment import Parallel
from app.pipeline.statistics import StageClock, clocks_of

_LOOK_S = 0.05
"""How often a thread that waits for its turn looks whether it will come."""
_PATIENCE_S = 0.002
"""How long a thread waits for its turn before another one is asked to go on once it has come."""


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


def together(stages: tuple[Stage, ...], clocks: list[StageClock], pages: list[Page]) -> Iterator[Page]:
    """Push pages through, into the first stage all at once where it takes them so."""
    # Asked for each page: see ``sated``.
    feed_several = getattr(stages[0], "feed_several", None) if len(pages) > 1 else None
    if feed_several is None:
        for page in pages:
            yield from through(stages, clocks, page, 0)
    else:
        clocks[0].bytes_in += nbytes_of(pages)
        clocks[0].rows_in += sum(page.rows for page in pages)
        yield from _timed(stages, clocks, 0, lambda: feed_several(pages))


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


def is_brisk(stages: tuple[Stage, ...]) -> bool:
    """The next call of each will be quick."""
    return all(getattr(stage, "brisk", False) for stage in stages)


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
        del page  # that it is gone when the next one is made


class Work:
    """Some pages on their way through a parallel segment, with clocks of their own: several may be under way at once.

    Those stages that lead it, and those that trail, see pages in order: a work waits until the one ``before`` it is past
    them. Whoever submits works does so in order, to threads that begin them in order; ``future`` is the first hop of each.
    No thread waits long in front of what trails: then ``some`` gives nothing, and is to be called again once the work
    before is over. Without pages it is the end: what the stages in order kept back.
    """

    def __init__(self, segment: Parallel, pages: list[Page] | None, before: Work | None) -> None:
        self.clocks = clocks_of(segment)
        self.nbytes = nbytes_of(pages or ())
        self.future: Future[tuple[list[Page], bool]] | None = None
        self._segment = segment
        self._pages = pages
        self._before = before
        self._led, self._over = _Past(), _Past()
        self._results = self._made()

    def some(self, enough_bytes: int) -> tuple[list[Page], bool]:
        """See ``collect``."""
        return collect(self._results, enough_bytes)

    def _made(self) -> Iterator[Page | None]:
        segment, before, is_end = self._segment, self._before, self._pages is None
        self._before = None
        clocks, middle = self.clocks, len(segment.lead)
        end = middle + len(segment.stages)
        try:
            pages = self._lead(before) if segment.lead else self._pages or []
            self._pages = None
            while pages:
                page = pages.pop(0)
                for result in through(segment.stages, clocks[middle:end], page, 0):
                    if segment.trail:
                        yield from _turn(before)
                        before = None
                        yield from through(segment.trail, clocks[end:], result, 0)
                    else:
                        yield result
                    del result
                del page
            if segment.trail:
                yield from _turn(before)
                if is_end:
                    yield from flush(segment.trail, clocks[end:], 0)
            self._over.well()
        finally:
            self._over.end()

    def _lead(self, before: Work | None) -> list[Page]:
        lead, clocks = self._segment.lead, self.clocks[: len(self._segment.lead)]
        try:
            while before is not None and not before._led.wait(_LOOK_S):
                if before.future is not None and before.future.cancelled():
                    raise CancelledError
            if self._pages is None:
                pages = list(flush(lead, clocks, 0))
            else:
                pages = list(together(lead, clocks, self._pages))
            self._led.well()
            return pages
        finally:
            self._led.end()


class _Past:
    """Whether a work is past something. A lock: an ``Event`` is made in eight times its time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._is_well = False

    def well(self) -> None:
        """It will be, and nothing went wrong."""
        self._is_well = True

    def end(self) -> None:
        """It is."""
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether it is, or comes to be within ``seconds``. Only one may wait. Raises ``CancelledError`` if what comes
        behind has no meaning any more."""
        if not self._lock.acquire(timeout=seconds):
            return False
        if not self._is_well:
            raise CancelledError
        return True


def _turn(before: Work | None) -> Iterator[None]:
    """Nothing until ``before`` is over, again and again; at once if it is."""
    while before is not None and not before._over.wait(_PATIENCE_S):
        yield None


def collect(results: Iterator[Page | None], enough_bytes: int) -> tuple[list[Page], bool]:
    """Results until they make up a page, or there are none for now; and whether there may be more."""
    pages: list[Page] = []
    collected = 0
    for page in results:
        if page is None:
            return pages, True
        pages.append(page)
        collected += page.nbytes
        if collected >= enough_bytes:
            return pages, True
    return pages, False


def stage_failed(name: str, error: Exception) -> Refusal:
    """The refusal of what a stage raised and did not mean to."""
    return Refusal("stage_failed", f"the stage {name!r} failed: {type(error).__name__}: {error}")
