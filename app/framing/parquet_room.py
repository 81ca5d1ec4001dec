"""What a row group takes to decode, by its page headers (parquet.thrift, PageHeader), before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.core.errors import Refusal
from app.core.units import as_size
from app.framing.parquet_footer import Chunk
from app.framing.thrift import STRUCT, Data, field, number, skip, varint

BUFFER_BYTES = 64 * 1024
"""What Arrow reads ahead of each column."""
_SLACK = 2
"""Arrow's buffers grow by doubling: 1.6 times the sum of the pages was measured, and more of resident memory."""
_DICTIONARY_PAGE = 2
_HEADER_BYTES = (256, 64 * 1024, 1024 * 1024)
"""How much is looked at for a header, which is long where it has a string's statistics."""


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
            kind, nbytes, compressed_bytes, values, header_bytes = header
            if kind == _DICTIONARY_PAGE:
                self._dictionary_bytes = 2 * nbytes + 16 * values  # its bytes, and where each of its values is
            self._page_bytes = max(self._page_bytes, nbytes + compressed_bytes)
            self.at += header_bytes + compressed_bytes

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
        needed_bytes = self.held_bytes + _SLACK * sum(walk.needed_bytes for walk in self.walks)
        if needed_bytes > self._room_bytes:
            raise Refusal(
                "page_too_large",
                f"row group {self._index} of the Parquet file takes {as_size(needed_bytes)} to decode (its columns'"
                f" dictionaries and largest pages), {as_size(needed_bytes - self._room_bytes)} more than there is room"
                " for: write smaller data pages or row groups, or fewer columns",
            )


def read_page_header(data: Data) -> tuple[int, int, int, int, int]:
    """Of the page whose header ``data`` begins with: its kind, size, compressed size, a dictionary's number of values;
    and the header's own size. Raises ``IndexError`` if the header is not whole, ``ValueError`` if it is none."""
    numbers = {1: 0, 2: 0, 3: 0}
    values = at = last = 0
    while data[at]:
        last, kind, at = field(data, at, last)
        if last in numbers:
            numbers[last], at = number(data, at)
            continue
        if last == 7 and kind == STRUCT and data[at]:  # DictionaryPageHeader begins with its number of values
            values = varint(data, at + 1)[0] >> 1
        at = skip(data, at, kind)
    if numbers[2] < 0 or numbers[3] < 0:
        raise ValueError("a page has a negative size")
    return numbers[1], numbers[2], numbers[3], values, at + 1
