"""Steps of one's own: Python callables that are installed under the entry points ``weir.stages``.

::

    from app.stages.user import step

    @step(takes="rows")
    def with_total(batch: pa.RecordBatch) -> pa.RecordBatch: ...

    @step(takes="lines", argument=True)
    def only(word: str) -> Callable[[bytes], bytes]: ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size

GROUP = "weir.stages"
"""The entry points' group."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class UserStep:
    """A callable with what Weir has to know of it; see ``step``."""

    call: Callable[..., Any]
    takes: Literal["rows", "lines", "bytes"] = "rows"
    argument: bool = False
    stateless: bool = False
    grows: float = 2.0
    holds_bytes: int = 0
    process: bool = False
    timeout_s: float = 60.0
    memory_bytes: int = 192 * _MIB

    def bound(self, argument: str) -> Callable[[Any], Any]:
        """The callable for pages, in a pipeline that says ``argument``. Raises ``bad_argument``."""
        if not self.argument:
            if argument:
                raise Refusal("bad_argument", f"this step takes no argument, not {argument[:80]!r}")
            return self.call
        try:
            made = self.call(argument)
        except Exception as error:
            raise Refusal("bad_argument", f"{type(error).__name__}: {error}"[:500]) from error
        if not callable(made):
            raise Refusal("stage_failed", "a step with an argument returns a callable for pages")
        return made  # type: ignore[no-any-return]


def step(
    *,
    takes: Literal["rows", "lines", "bytes"] = "rows",
    argument: bool = False,
    stateless: bool = False,
    grows: float = 2.0,
    holds_bytes: int = 0,
    process: bool = False,
    timeout_s: float = 60.0,
    memory_bytes: int = 192 * _MIB,
) -> Callable[[Callable[..., Any]], UserStep]:
    """Says what a step is.

    ``takes``: a record batch (of rows), whole lines, or any bytes; it gives back the same, several of them, or None.
    ``argument``: the callable is called once a run with the text behind ``NAME=``, and returns the one for pages; what
    it raises refuses the pipeline. ``stateless``: it may run for several pages at once, on several threads, and gives a
    batch for each. ``grows``: the most bytes that it makes of a page at once, per byte of it; ``holds_bytes``: what it
    keeps between pages. Both are counted in the budget, and not checked: Python's memory cannot be bounded from outside.

    ``process``: it runs in a process of its own, outside of this one's GIL, with no more than ``memory_bytes`` (which the
    budget counts), and is ended when a page takes it longer than ``timeout_s``. A step on a thread cannot be ended.
    """
    if grows < 0 or holds_bytes < 0 or timeout_s <= 0:
        raise ValueError("grows and holds_bytes are at least 0, timeout_s is more")
    if process and stateless:
        raise ValueError("a step in a process of its own takes one page at a time: leave stateless out")
    if process and memory_bytes < 96 * _MIB:
        raise ValueError("an interpreter with pyarrow needs memory_bytes of 96 MiB at least")

    def mark(call: Callable[..., Any]) -> UserStep:
        return UserStep(call, takes, argument, stateless, grows, holds_bytes, process, timeout_s, memory_bytes)

    return mark


class UserStage:
    """A user's step on worker threads. Raises ``stage_failed`` where it raises, or gives back something else."""

    def __init__(self, name: str, user: UserStep, argument: str, *, page_bytes: int) -> None:
        self.name = name
        self.holds = user.holds_bytes
        self.grows = user.grows + 1.0
        self.stateless = user.stateless
        self._call = user.bound(argument)
        self._results = Results(name, user.takes, page_bytes)

    def feed(self, page: Page) -> Iterator[Page]:
        """What the callable makes of ``page``."""
        try:
            made = self._call(page.payload if self._results.takes == "rows" else bytes(page.payload))
        except Exception as error:
            raise Refusal("stage_failed", f"{self.name}: {type(error).__name__}: {error}"[:500]) from error
        yield from self._results.pages(page, made, every_page=self.stateless)

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())


class Results:
    """What a step gives back, as pages. The columns are those of its first result."""

    def __init__(self, name: str, takes: str, page_bytes: int) -> None:
        self.takes = takes
        self._name = name
        self._page_bytes = page_bytes
        self._schema: pa.Schema | None = None
        self._first = True

    def pages(self, page: Page, made: Any, *, every_page: bool = False) -> Iterator[Page]:
        """``made`` of ``page``, cut where it is more than two pages. ``every_page``: there has to be something."""
        count = 0
        for result in self._listed(made):
            for piece in self._pieces(result):
                first = page.first and count == 0 if every_page else self._first
                rejects = page.rejects if count == 0 else ()
                self._first, count = False, count + 1
                yield self._page(page, piece, first, rejects)
        if not count and (every_page or page.rejects or (self._first and self.takes == "rows")):
            if self.takes == "rows" and self._schema is None:
                detail = f"{self._name} gave nothing for the first page: an empty batch tells its columns"
                raise Refusal("stage_failed", detail)
            nothing = b"" if self._schema is None else pa.RecordBatch.from_pylist([], schema=self._schema)
            yield self._page(page, nothing, page.first if every_page else self._first, page.rejects)
            self._first = False

    def _page(self, page: Page, piece: Any, first: bool, rejects: Any) -> Page:
        if self.takes == "rows":
            nbytes, rows = max(1, piece.nbytes), piece.num_rows
        else:
            nbytes, rows = len(piece), piece.count(b"\n") if self.takes == "lines" else 0
        return dataclasses.replace(page, payload=piece, nbytes=nbytes, rows=rows, first=first, rejects=rejects)

    def _listed(self, made: Any) -> Iterable[Any]:
        wanted: tuple[type, ...] = (
            (pa.RecordBatch, pa.Table) if self.takes == "rows" else (bytes, bytearray, memoryview)
        )
        if made is None:
            return ()
        if isinstance(made, wanted):
            return (made,)
        if not isinstance(made, Iterable) or isinstance(made, str | bytes | dict):
            raise self._wrong(made)
        return self._checked(made, wanted)

    def _checked(self, made: Iterable[Any], wanted: tuple[type, ...]) -> Iterator[Any]:
        results = iter(made)
        while True:
            try:
                result = next(results, None)
            except Exception as error:
                raise Refusal("stage_failed", f"{self._name}: {type(error).__name__}: {error}"[:500]) from error
            if result is None:
                return
            if not isinstance(result, wanted):
                raise self._wrong(result)
            yield result

    def _pieces(self, result: Any) -> Iterator[Any]:
        if self.takes != "rows":
            data = bytes(result)
            if self.takes == "lines" and len(data) > 2 * self._page_bytes:
                yield from self._lines(data)
                return
            for start in range(0, len(data), 2 * self._page_bytes):
                yield data[start : start + 2 * self._page_bytes]
            return
        batches = result.combine_chunks().to_batches() if isinstance(result, pa.Table) else [result]
        for batch in batches:
            if self._schema is None:
                self._schema = batch.schema
            elif not batch.schema.equals(self._schema):
                shown = f"{_shown(batch.schema)} instead of {_shown(self._schema)}"
                raise Refusal("stage_failed", f"{self._name} gave other columns than at first: {shown}")
            yield from self._batches(batch)

    def _batches(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        most_bytes = 2 * self._page_bytes
        if batch.nbytes <= most_bytes:
            yield batch
            return
        if batch.num_rows == 1:
            detail = f"one row of {as_size(batch.nbytes)}, the most is {as_size(most_bytes)}, two pages"
            raise Refusal("page_too_large", f"{self._name} gave {detail}")
        half = batch.num_rows // 2
        for part in (batch.slice(0, half), batch.slice(half)):
            yield from self._batches(part)

    def _lines(self, data: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(data):
            end = min(len(data), start + self._page_bytes)
            end = data.rfind(b"\n", start, end) + 1 or data.find(b"\n", end) + 1 or len(data)
            yield data[start:end]
            start = end

    def _wrong(self, made: Any) -> Refusal:
        wanted = "a pyarrow.RecordBatch" if self.takes == "rows" else "bytes"
        return Refusal(
            "stage_failed", f"{self._name} gave a {type(made).__name__}; a step gives {wanted}, several, or None"
        )


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:200]
