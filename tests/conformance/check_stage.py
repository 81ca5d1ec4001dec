"""One conformance check for any stage or chain of stages: hand it a maker and the same stream cut in many ways.

check_stage(lambda: lines.reader(page_bytes=64, max_line_bytes=99), byte_cuts(b"a\\nb\\n"), page_bytes=64)
check_stage(lambda: [Case(upper=True)], byte_cuts(b"abc"))
check_stage(lambda: csv.writer(delimiter=b","), table_cuts(table))
check_memory(lambda: csv.reader(...), pages_of(large, range(PAGE, len(large), PAGE)))
"""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from app.core.errors import Refusal
from app.core.interfaces import Operator, Sheds, Stage, TakesSeveral
from app.core.page import Page, Reject
from app.framing.native.scratch import scratch

_AT_ONCE = (1, 2, 5)
"""How many pages at a time a stage gets that takes several."""
MakeStages = Callable[[], Sequence[Stage]]


@dataclass(frozen=True)
class Outcome:
    """What a stream comes out as, however it was cut: joined bytes or all rows, the rejects, or the refusal.

    ``refusal`` is its code, line, byte and column.
    """

    content: Any
    rejects: tuple[Reject, ...]
    refusal: tuple[Any, ...] | None


def pages_of(data: bytes, cuts: Iterable[int]) -> list[Page]:
    """``data`` as byte pages that are cut before the given positions; an empty stream is one empty page."""
    edges = [0, *cuts, len(data)]
    pieces = [(start, data[start:end]) for start, end in itertools.pairwise(edges)]
    return [Page(piece, len(piece), byte=start, first=i == 0) for i, (start, piece) in enumerate(pieces)]


def byte_cuts(data: bytes) -> Iterator[list[Page]]:
    """``data`` in one page, in two at every position, and byte by byte; also as a memoryview and with empty pages."""
    yield pages_of(data, ())
    for position in range(1, len(data)):
        yield pages_of(data, (position,))
    yield pages_of(data, range(1, len(data)))
    yield [Page(b"", 0, first=True), Page(memoryview(data), len(data)), Page(b"", 0, byte=len(data))]


def line_cuts(data: bytes) -> Iterator[list[Page]]:
    """``data`` as pages of whole lines: all in one, two at every line end, and line by line."""
    lines = data.splitlines(keepends=True) if b"\r" not in data else data.replace(b"\n", b"\n\0").split(b"\0")
    lines = [line for line in lines if line] or [b""]
    for groups in _groupings(lines):
        pages, byte, line = [], 0, 1
        for group in groups:
            payload = b"".join(group)
            pages.append(Page(payload, len(payload), rows=len(group), byte=byte, line=line, first=byte == 0))
            byte, line = byte + len(payload), line + len(group)
        yield pages


def table_cuts(table: pa.Table) -> Iterator[list[Page]]:
    """``table`` as record batches: all rows in one, two at every row, row by row, and with empty batches between."""
    rows = [table.slice(i, 1) for i in range(table.num_rows)] or [table]
    for groups in _groupings(rows):
        batches = [_batch(pa.concat_tables(group), table.schema) for group in groups]
        yield [Page(b, max(1, b.nbytes), rows=b.num_rows, first=i == 0) for i, b in enumerate(batches)]
    empty, whole = _batch(table.slice(0, 0), table.schema), _batch(table, table.schema)
    yield [Page(b, max(1, b.nbytes), rows=b.num_rows, first=i == 0) for i, b in enumerate((empty, whole, empty))]


def run_stages(stages: Sequence[Stage], pages: Iterable[Page], at_once: int = 1) -> Iterator[Page]:
    """Everything that ``stages`` make of ``pages``, depth first and lazily as in the engine, then flushed in order. The first
    stage gets ``at_once`` of them together."""
    pages = iter(pages)
    while group := list(itertools.islice(pages, at_once)):
        if len(group) == 1:
            yield from _through(stages, group[0])
        else:
            assert isinstance(stages[0], TakesSeveral)
            for page in stages[0].feed_several(group):
                yield from _through(stages[1:], page)
    for index, stage in enumerate(stages):
        for page in stage.flush():
            yield from _through(stages[index + 1 :], page)


def run_chain(chain: Iterable[Stage | Operator], pages: Iterator[Page]) -> Iterator[Page]:
    """As ``run_stages``, of a chain with operators, which pull."""
    for stage in chain:
        pages = stage.run(pages) if not hasattr(stage, "feed") else run_stages([stage], pages)
    return pages


def outcome_of(stages: Sequence[Stage], pages: Iterable[Page]) -> Outcome:
    """The stream's outcome; a refusal is one, and hides how far the stream came before it."""
    try:
        out = list(run_stages(stages, pages))
    except Refusal as refusal:
        return Outcome(None, (), (refusal.code, refusal.line, refusal.byte, refusal.column))
    return Outcome(_content(out), tuple(reject for page in out for reject in page.rejects), None)


def check_stage(make: MakeStages, streams: Iterable[Sequence[Page]], *, page_bytes: int | None = None) -> Outcome:
    """Check every law that a chain of stages can be held to from outside; gives the outcome that all streams share.

    ``streams`` are the same input in different cuts. For each: the same content, rejects and refusal come out; every
    page's ``nbytes`` and ``rows`` are those of its payload; only the first output page is ``first``; a table stream has
    a page, and one schema; where the first stage takes several pages at once, it does not matter either how many these are;
    ``first`` and ``stateless`` keep the contract of each single stage. ``page_bytes``: no
    output page of several rows or of bytes may exceed its double.
    """
    expected: Outcome | None = None
    together = _AT_ONCE if isinstance(make()[0], TakesSeveral) else _AT_ONCE[:1]
    for pages, at_once in itertools.product(streams, together):
        if at_once > max(1, len(pages)):
            continue
        stages = [_Checked(stage) for stage in make()]
        out: list[Page] = []
        try:
            for page in run_stages(stages, pages, at_once):
                out.append(page)  # noqa: PERF402, what came before a refusal is checked too
        except Refusal as refusal:
            found = Outcome(None, (), (refusal.code, refusal.line, refusal.byte, refusal.column))
        else:
            found = Outcome(_content(out), tuple(reject for page in out for reject in page.rejects), None)
        _check_pages(out, page_bytes)
        cut = [page.nbytes for page in pages]
        assert expected is None or found == expected, f"cut {cut}, {at_once} at a time:\n{found}\nis not\n{expected}"
        expected = found
    assert expected is not None, "no stream was given"
    return expected


def check_memory(
    make: MakeStages, pages: Sequence[Page], *, page_bytes: int = 0, slack_bytes: int = 128 * 1024
) -> None:
    """Check ``holds`` and ``grows`` of each stage by what Python and Arrow allocate, on a stream of full pages.

    While a page p is fed a stage may have ``holds + grows * max(p.nbytes, page_bytes)``, and ``holds`` between calls.
    ``page_bytes`` is the largest page of the flow, which is what the engine reckons with for every page.
    Memory that other C code allocates for itself is not seen. ``slack_bytes`` is for interpreter objects.
    """
    pool = pa.default_memory_pool()
    scratch(1)  # is the thread's, not a stage's
    gc.freeze()  # what is there already need not be looked at with each collection
    tracemalloc.start()
    try:
        first: _Weighed | None = None
        for stage in reversed(make()):
            first = _Weighed(stage, first, page_bytes, slack_bytes)
        assert first is not None
        for page in pages:
            first.feed(page)
        first.flush()
    finally:
        pa.set_memory_pool(pool)
        tracemalloc.stop()
        gc.unfreeze()


class _Checked:
    """A stage that is watched for its own contract."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.name, self.holds, self.grows, self.stateless = stage.name, stage.holds, stage.grows, stage.stateless
        assert self.name.replace("-", "_").isidentifier(), f"{self.name!r} is to be a metric label"
        assert isinstance(self.holds, int)
        assert self.holds >= 0
        assert self.grows >= 0

    def feed(self, page: Page) -> Iterator[Page]:
        count = 0
        for result in self.stage.feed(page):
            if self.stateless:
                assert result.first == (page.first and count == 0), f"{self.name}: first is lost or made up"
            count += 1
            yield result
        assert count or not self.stateless, f"{self.name} is stateless and gave nothing for a page"

    def feed_several(self, pages: Sequence[Page]) -> Iterator[Page]:
        assert isinstance(self.stage, TakesSeveral)
        yield from self.stage.feed_several(pages)

    def flush(self) -> Iterator[Page]:
        for result in self.stage.flush():
            assert not self.stateless, f"{self.name} is stateless and gave a page at flush"
            yield result


class _Weighed:
    """A stage whose allocations are weighed, and the one behind it. Pages belong to the caller once they were taken."""

    def __init__(self, stage: Stage, behind: _Weighed | None, page_bytes: int, slack_bytes: int) -> None:
        self.stage, self.behind, self.page_bytes, self.slack_bytes = stage, behind, page_bytes, slack_bytes
        self.own_bytes = 0

    def feed(self, page: Page) -> None:
        largest = max(page.nbytes, self.page_bytes)
        self._weigh(lambda: self.stage.feed(page), self.stage.grows * largest, largest, f"feeding {page.nbytes}")

    def flush(self) -> None:
        self._weigh(self.stage.flush, self.stage.holds, 0, "flushing")
        if self.behind:
            self.behind.flush()

    def kept_bytes(self) -> int:
        return self.own_bytes + (self.behind.kept_bytes() if self.behind else 0)

    def _weigh(self, call: Callable[[], Iterable[Page]], allowed: float, enough_bytes: int, doing: str) -> None:
        allowed += self.stage.holds + self.slack_bytes
        results: list[Page] = []
        iterator: Iterator[Page] | None = None
        while True:
            pool = pa.proxy_memory_pool(_POOLS[0])
            _POOLS.append(pool)
            pa.set_memory_pool(pool)
            before = _allocated()
            tracemalloc.reset_peak()
            if iterator is None:
                iterator = iter(call())
            page = next(iterator, None)
            peak = self.own_bytes + tracemalloc.get_traced_memory()[1] - before[0] + (pool.max_memory() or 0)
            assert peak <= allowed, f"{self.stage.name} {doing}: {peak} bytes, declared {allowed:.0f}"
            gc.collect()  # so that garbage counts neither here nor below
            self.own_bytes += sum(_allocated()) - sum(before)
            if page is None:
                break
            if isinstance(self.stage, Sheds):
                kept = self.stage.holds + self.stage.keeps * enough_bytes + self.slack_bytes
                assert self.own_bytes <= kept, f"{self.stage.name} keeps {self.own_bytes} bytes, declared {kept:.0f}"
            results.append(page)
            del page  # only the list holds it now, so that it is freed while it is given on
            # Rejects are taken off each page as it comes, by the stage behind the parser.
            is_much = sum(result.nbytes for result in results) > enough_bytes or bool(results[-1].rejects)
            if is_much or not self.stage.stateless:
                self._give(results)
        del iterator
        self._give(results)
        most = self.stage.holds + self.slack_bytes
        assert self.own_bytes <= most, f"{self.stage.name} keeps {self.own_bytes} bytes, declared {self.stage.holds}"

    def _give(self, pages: list[Page]) -> None:
        """Hand pages on and forget them: what is freed thereby was this stage's, what the next one keeps is not."""
        before = sum(_allocated()), self.behind.kept_bytes() if self.behind else 0
        while pages:
            page = pages.pop(0)
            if self.behind:
                self.behind.feed(page)
            del page
        gc.collect()
        kept = self.behind.kept_bytes() if self.behind else 0
        self.own_bytes += sum(_allocated()) - before[0] - (kept - before[1])


_POOLS = [pa.default_memory_pool()]
"""Kept for ever: a buffer that outlives the pool that it came from would crash the interpreter."""


def _allocated() -> tuple[int, int]:
    """The bytes that Python and Arrow have allocated."""
    return tracemalloc.get_traced_memory()[0], _POOLS[0].bytes_allocated()


def _through(stages: Sequence[Stage], page: Page) -> Iterator[Page]:
    if not stages:
        yield page
        return
    for result in stages[0].feed(page):
        yield from _through(stages[1:], result)


def _check_pages(pages: Sequence[Page], page_bytes: int | None) -> None:
    assert [page.first for page in pages[:1]] in ([], [True]), "the stream's first page is not marked"
    assert not any(page.first for page in pages[1:]), "a later page is marked as the first"
    for page in pages:
        if isinstance(page.payload, pa.RecordBatch):
            assert page.payload.schema.equals(pages[0].payload.schema), "the schema changes within the stream"
            assert page.rows == page.payload.num_rows
            assert page.payload.nbytes <= page.nbytes <= max(1, page.payload.get_total_buffer_size())
        else:
            assert isinstance(page.payload, bytes) or page.payload.readonly, "a payload never changes"
            assert page.nbytes == len(page.payload)
        if page_bytes is not None and page.rows != 1:
            assert page.nbytes <= 2 * page_bytes, f"a page of {page.nbytes} bytes, wanted {page_bytes}"


def _content(pages: Sequence[Page]) -> Any:
    batches = [page.payload for page in pages if isinstance(page.payload, pa.RecordBatch)]
    if not batches:
        return b"".join(page.payload for page in pages)
    assert len(batches) == len(pages), "tables and bytes in one stream"
    for batch in batches:
        batch.validate(full=True)
    # The text of the rows, because a NaN does not equal itself.
    return str(batches[0].schema), repr(pa.Table.from_batches(batches).to_pylist())


def _groupings(items: list[Any]) -> Iterator[list[list[Any]]]:
    yield [items]
    for position in range(1, len(items)):
        yield [items[:position], items[position:]]
    yield [[item] for item in items]


def _batch(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)
