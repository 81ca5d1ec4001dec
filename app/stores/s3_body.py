"""A body that is sent from the pages it consists of."""

from __future__ import annotations

import io
from collections.abc import Sequence

from app.stores.objects import Piece


class PartBody:
    """A file, as far as an HTTP client reads one: each ``read`` gives a whole piece, however little was asked for, so
    that nothing is joined or copied on the way to the socket."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        self.nbytes = sum(piece.nbytes for piece in self._pieces)
        self._next = 0

    def read(self, _: int = -1) -> Piece:
        """The next piece; empty at the end."""
        if self._next == len(self._pieces):
            return b""
        piece = self._pieces[self._next]
        self._next += 1
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to the beginning, or to the end: clients ask for the size so."""
        if offset or whence == io.SEEK_CUR:
            raise io.UnsupportedOperation("only the two ends can be sought")
        self._next = len(self._pieces) if whence == io.SEEK_END else 0
        return self.tell()

    def tell(self) -> int:
        """How much was read, in bytes."""
        return sum(piece.nbytes for piece in self._pieces[: self._next])

    def close(self) -> None:
        """Let go of the pieces: clients keep requests in what their failures remember."""
        self._pieces = []

    def __len__(self) -> int:
        return self.nbytes
