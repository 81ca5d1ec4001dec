"""What the engine asks of the things it joins. Each docstring is the contract; an implementation adds no rule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from app.core.page import Page

Source = AsyncIterator[Page]
"""An async iterator of pages is enough.

It ends only when the input ended well; everything else it raises. It is read by one task. Once that task is cancelled
it is not read again, and whoever made the source closes what the source opened.
"""


class RandomAccess(Protocol):
    """An input whose bytes can be read from anywhere, as often as one likes. They stay the same meanwhile.

    Whoever opened it closes it, once nobody reads any more.
    """

    @property
    def nbytes(self) -> int:
        """How many bytes there are."""
        ...

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` at ``offset``; fewer only at the end. Blocks; from any thread. Raises ``Refusal``."""
        ...


class SpillFile(RandomAccess, Protocol):
    """A file that grows at its end. Its calls block; they may come from any thread."""

    def append(self, data: bytes | memoryview) -> None:
        """Write all of ``data`` at the end. Raises ``spool_full``, ``spool_failed``."""
        ...

    def close(self) -> None:
        """Give the file back. May be called twice."""
        ...


class Spill(Protocol):
    """The disk for what outgrows memory."""

    @property
    def directory(self) -> Path:
        """Where engines may write files by themselves."""
        ...

    @property
    def limit_bytes(self) -> int:
        """What there may be at once, of everybody."""
        ...

    def open(self) -> SpillFile:
        """An empty file. Raises ``spool_full``, ``spool_failed``."""
        ...


@runtime_checkable
class OnDisk(Protocol):
    """A random-access input that is a file of this machine: an engine may open it by itself, which is faster."""

    @property
    def path(self) -> str:
        """A name that works in this process for as long as the input is open."""
        ...


@runtime_checkable
class ReadsSeveral(Protocol):
    """A random-access input that gives several ranges sooner together than one after the other."""

    def read_several(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """What ``read_at`` gives for each pair of an offset and a size, in order."""
        ...


class Stage(Protocol):
    """A transform made of plain functions: pages in, pages out. It knows no asyncio, no budget and no I/O.

    Calls never overlap for a stage that is not ``stateless``, but may come from different threads. After an exception,
    or once the iterable of ``feed`` or ``flush`` was left half consumed, the stage is not called again; there is
    nothing to close.
    """

    name: str
    """A bounded word: a metric label."""
    holds: int
    """The most bytes it keeps back between calls."""
    grows: float
    """The most bytes that exist at once while one page is fed, beside that page, per byte of the page: intermediates
    and those results that were yielded and not yet taken. Results are taken one by one from a stage that is not
    stateless, and from one that is once they are more than a page."""
    stateless: bool
    """It may run for several pages at a time on several threads; the engine keeps the order. Such a stage gives at
    least one page for a page (an empty one, if need be, so that ``first`` is never lost), and nothing at ``flush``."""

    def feed(self, page: Page) -> Iterable[Page]:
        """What ``page`` adds to the output, lazily: never more than about ``page_bytes`` in one page."""
        ...

    def flush(self) -> Iterable[Page]:
        """What is left once the input ended well. Called once, and only then."""
        ...


class Operator(Protocol):
    """A transform that pulls: it runs on a thread of its own, because an engine below it wants to be in charge.

    ``run`` takes an iterator that blocks until a page is there, and is iterated in turn. When the run is cancelled the
    input iterator raises, and ``run`` must let that exception out within a second. It is called once.
    """

    name: str
    holds: int
    grows: float

    def run(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The output for the whole stream ``pages``."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """An operator that can be told, from another thread, that its run is over."""

    def interrupt(self) -> None:
        """Let whoever is in ``run`` come out of it soon, by whatever exception; also before it began, or after."""
        ...


@runtime_checkable
class Modest(Protocol):
    """An operator that can do with less memory, though slower: what it has no room for goes to disk."""

    @property
    def spare_bytes(self) -> int:
        """The most that it can still spare."""
        ...

    def spare(self, nbytes: int) -> None:
        """Hold so much less, or as much of it as is possible. Only before it runs."""
        ...


@runtime_checkable
class Sated(Protocol):
    """A stage that can tell, after ``feed``, that no further page will change its output (``limit``)."""

    @property
    def sated(self) -> bool:
        """True once the rest of the input does not matter; ``flush`` is still called."""
        ...


@runtime_checkable
class Brisk(Protocol):
    """A stage that a page costs little more than a hop to a thread would (some 100 us for 1 MiB, where nobody waits). Where
    it does not stand next to a slower one of its kind, it runs in place, on the loop."""

    @property
    def brisk(self) -> bool:
        """The next call will be quick. While it may not be, the stage is called on a thread."""
        ...


@runtime_checkable
class Sheds(Protocol):
    """A stage that has freed what it needed for a page before it gives a result: the stages behind it, which work on the
    same thread meanwhile, find so much more room."""

    keeps: float
    """What is left of ``grows`` by then: results."""


@runtime_checkable
class TakesSeveral(Protocol):
    """A stage that makes fewer and larger pages of those that wait than of each by itself."""

    def feed_several(self, pages: Sequence[Page]) -> Iterable[Page]:
        """As ``feed`` for one after the other; together they are no more than a page of the flow."""
        ...


@runtime_checkable
class Gathers(Protocol):
    """A stage that keeps its place and gives little before the end, if anything: a page costs it less than to read the page
    from text did. Where that is done on threads, each page goes on to it there when it is its turn."""

    gathers: Literal[True]


@runtime_checkable
class Resizes(Protocol):
    """A stage whose pages are of another size than the flow's, from here on until another one says so."""

    gives_bytes: int
    """The largest page it gives."""


@runtime_checkable
class KeepsLength(Protocol):
    """A stage that gives as many bytes as it takes, so that the length of a result is known before it is made."""

    keeps_length: Literal[True]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a sink has committed. ``digest`` is the SHA-256 of the bytes in lower-case hex, where the sink made one;
    ``etag``, ``parts`` and ``crc32`` (zlib's, of the whole) are those of an object in a store."""

    nbytes: int
    digest: str | None = None
    etag: str | None = None
    parts: int = 0
    crc32: int | None = None


class Sink(Protocol):
    """Where pages of bytes go. Exactly one of ``commit`` and ``abort`` ends it."""

    holds: int
    """The most bytes it keeps back between calls."""

    async def write(self, page: Page) -> None:
        """Take a page; returns once the next may come. After a cancellation some, all or none of it was taken."""
        ...

    async def commit(self) -> Receipt:
        """Make the result whole and visible. Called once, after the last page of a flow that ended well."""
        ...

    async def abort(self) -> None:
        """Leave nothing behind that could pass for a result. Never raises, at any time, any number of times."""
        ...


class HeldFile(Protocol):
    """A file that is there for as long as somebody holds it."""

    def held(self) -> AbstractContextManager[int]:
        """Its descriptor, within a scope."""
        ...


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some of a result that is in a file already: to make pages of it would only be to send them."""

    file: HeldFile
    offset: int
    nbytes: int


@runtime_checkable
class GivesStretches(Protocol):
    """An edge that has the rest of a result in a file."""

    def stretch(self) -> Stretch | None:
        """What comes next, if it is in a file and the producer has closed; it counts as received. None otherwise."""
        ...


@runtime_checkable
class TakesStretches(Protocol):
    """A sink that sends files by a shorter way than pages take."""

    @property
    def takes_stretches(self) -> bool:
        """This one does."""
        ...

    async def write_stretch(self, stretch: Stretch) -> None:
        """See ``Sink.write``."""
        ...
