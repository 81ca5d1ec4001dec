"""Pages that bodies are received into: memory that was touched before, taken again and again."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass

from app.core.unset import unset_bytearray

_Lease = weakref.ref[ctypes.Array[ctypes.c_char]]


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot: ``leased_bytes`` is what somebody still refers to, ``free_bytes`` what waits to be used again."""

    leased_bytes: int
    free_bytes: int


class PagePool:
    """Lends pages of ``page_bytes``. A page comes back by itself when nothing refers to it any more.

    A page is lent as a memoryview; slices of it, Arrow buffers and the server's queue of writes all keep it lent, on
    whatever thread they are, so nobody can overwrite what somebody still reads. How many pages are lent is not for the
    pool to bound: each belongs to a run whose worst case was paid, or to what a connection may read ahead. At most
    ``keep_bytes`` of free pages are kept for the next one; a fresh page costs ten times what a touched one does.
    """

    def __init__(self, page_bytes: int, *, keep_bytes: int) -> None:
        self.page_bytes = page_bytes
        self._keep = keep_bytes // page_bytes
        self._free: list[bytearray] = []
        self._lent: dict[int, tuple[_Lease, bytearray]] = {}
        self._kind = ctypes.c_char * page_bytes

    def lend(self) -> memoryview:
        """A page to write to, with what was in it before."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = unset_bytearray(self.page_bytes)
        # Every view of the page keeps this one object alive, and this object alone: its end is the page's return.
        lease = self._kind.from_buffer(memory)
        seen = weakref.ref(lease, self._take_back)
        self._lent[id(seen)] = seen, memory
        return memoryview(lease).cast("B")

    def statistics(self) -> PoolStatistics:
        """What is lent and what is free, now."""
        return PoolStatistics(len(self._lent) * self.page_bytes, len(self._free) * self.page_bytes)

    def _take_back(self, seen: _Lease) -> None:
        _, memory = self._lent.pop(id(seen))
        if len(self._free) < self._keep:
            self._free.append(memory)
