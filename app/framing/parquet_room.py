"""What a row group takes to decode, by its page headers (parquet.thrift, PageHeader), before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.core.errors import Refusal
from app.core.units import as_size
from app.framing.parquet_footer import Chunk
from app.framing.thrift import I32, I64, STRUCT, Data, field, number, skip

BUFFER_BYTES = 64 * 1024
"""What Arrow reads ahead of each column."""
_SLACK = 2
"""Arrow's buffers grow by doubling: 1.6 times the sum of the pages was measured, and more of resident memory."""
DICTIONARY_PAGE = 2
_PAGE_HEADERS = (5, 7, 8)
"""The fields that tell more of a data page, a dictionary page, and a data page of version 2."""
_HEADER_BYTES = (256, 64 * 1024, 1024 * 1024)
"""How much is looked at for a header, which is long where it has a string's statistics."""


@dataclass(frozen=True, slots=True)
class PageHeader:
    """What a page header tells: the page's kind, its size decoded and in the file, how many values it has, how these are
    encoded; and the header's own size."""

    kind: int
    nbytes: int
    compressed_bytes: int
    values: int
    encoding: int
    header_bytes: int


class PageWalk:
    """Goes from page header to page header of a column chunk, as far as its bytes are there.

    ``needed_bytes`` is what decoding holds at once of the pages seen so far: a dictionary, a page, its compressed form.
    """

    def __init__(self, chunk: Chunk) -> None:
        self.at = chunk.at
        """Where the next header begins in the file."""
        self._end = chunk.at + chunk.nbytes
        self._dictionary_bytes = 0
        self._page_bytes = 0

    @property
    def done(self) -> bool:
        """There are no more pages."""
        return not 0 <= self.at < self._end

    @property
    def needed_bytes(self) -> int:
        """See the class."""
        return BUFFER_BYTES + self._dictionary_bytes + self._page_bytes

    def over(self, data: Data, begins_at: int) -> None:
        """Take all headers that are whole in ``data``, which begins at this byte of the file."""
        view = memoryview(data)
        while not self.done and 0 <= self.at - begins_at < len(view):
            start = self.at - begins_at
            try:
                header = read_page_header(view[start : start + _HEADER_BYTES[-1]])
            except IndexError:
                if len(view) - start >= _HEADER_BYTES[-1]:
                    raise self._no_header() from None
                return
            if header.kind == DICTIONARY_PAGE:
                # Its bytes, and where each of its values is.
                self._dictionary_bytes = 2 * header.nbytes + 16 * header.values
            self._page_bytes = max(self._page_bytes, header.nbytes + header.compressed_bytes)
            self.at += header.header_bytes
            self.saw(header)
            self.at += header.compressed_bytes

    def saw(self, header: PageHeader) -> None:
        """What else is to be known of a page, which begins ``at``."""

    def through(self, read_at: Callable[[int, int], Data]) -> None:
        """Take all headers, each by a small read of its own: ``read_at`` gets a size and an offset."""
        while not self.done:
            before, left = self.at, self._end - self.at
            # Within the chunk, as long as that will do: it may be all that is at hand.
            for most_bytes in (*(min(nbytes, left) for nbytes in _HEADER_BYTES), _HEADER_BYTES[1]):
                self.over(read_at(most_bytes, before), before)
                if self.at != before:
                    break
            if self.at == before:
                raise self._no_header()

    def check_done(self) -> None:
        """Raise ``ValueError`` if the chunk's bytes were not enough for all its pages."""
        if not self.done:
            raise self._no_header()

    def _no_header(self) -> ValueError:
        return ValueError(f"no page header can be read at byte {self.at}")


def needed_bytes(walks: Iterable[PageWalk]) -> int:
    """The memory that decoding the chunks of ``walks`` side by side takes."""
    return _SLACK * sum(walk.needed_bytes for walk in walks)


class Room:
    """The walks through those chunks of row group ``index`` that are read, and the memory there is for them.

    ``held_bytes`` is what is held of the file meanwhile, in the same memory.
    """

    def __init__(self, index: int, chunks: Sequence[Chunk], room_bytes: int) -> None:
        self.walks = [PageWalk(chunk) for chunk in chunks]
        self._index = index
        self._room_bytes = room_bytes
        self.held_bytes = 0

    def check_through(self, read_at: Callable[[int, int], Data]) -> None:
        """Go through all page headers by small reads, then ``check``."""
        for walk in self.walks:
            walk.through(read_at)
        self.check()

    def check(self) -> None:
        """Raise ``page_too_large`` if the pages seen so far take more memory than there is."""
        needed = self.held_bytes + needed_bytes(self.walks)
        if needed > self._room_bytes:
            raise Refusal(
                "page_too_large",
                f"row group {self._index} of the Parquet file takes {as_size(needed)} to decode (its columns'"
                f" dictionaries and largest pages), {as_size(needed - self._room_bytes)} more than there is room"
                " for: write smaller data pages or row groups, or fewer columns",
            )


def read_page_header(data: Data) -> PageHeader:
    """The page header that ``data`` begins with. Raises ``IndexError`` if it is not whole, ``ValueError`` if it is none."""
    numbers = {1: 0, 2: 0, 3: 0}
    values = encoding = at = last = 0
    while data[at]:
        last, kind, at = field(data, at, last)
        if last in numbers:
            numbers[last], at = number(data, at)
            continue
        if last in _PAGE_HEADERS and kind == STRUCT:
            # The second is the encoding, the fourth where nulls and rows are counted before it.
            values, encoding = _first_numbers(data, at, 4 if last == 8 else 2)
        at = skip(data, at, kind)
    if numbers[2] < 0 or numbers[3] < 0:
        raise ValueError("a page has a negative size")
    return PageHeader(numbers[1], numbers[2], numbers[3], values, encoding, at + 1)


def _first_numbers(data: Data, at: int, other: int) -> tuple[int, int]:
    """Of the struct at ``at`` the first number and another one of the first; 0 where it has none."""
    found: dict[int, int] = {}
    last = 0
    while data[at] and last < other:
        last, kind, at = field(data, at, last)
        if kind not in (I32, I64):
            break
        found[last], at = number(data, at)
    return found.get(1, 0), found.get(other, 0)
