"""Rows on disk, in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from app.core.errors import Refusal
from app.core.interfaces import Spill


class BlockFile:
    """Rows of ``schema`` in a file of the spill, in the blocks in which they were added.

    Raises ``state_too_large`` where there is no disk, ``spool_full``, ``spool_failed``.
    """

    def __init__(self, spill: Spill | None, schema: pa.Schema) -> None:
        if spill is None:
            raise Refusal("state_too_large", "what is to be remembered outgrows memory, and there is no disk for it")
        self.schema = schema
        self.most_rows = 0
        """Of a block."""
        self._places: list[tuple[int, int]] = []
        self._file = spill.open()

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """On disk."""
        return self._file.nbytes

    def add(self, block: pa.RecordBatch) -> None:
        """Put it behind the others."""
        data = block.serialize()
        self._places.append((self._file.nbytes, data.size))
        self._file.append(memoryview(data))
        self.most_rows = max(self.most_rows, block.num_rows)

    def block(self, index: int) -> pa.RecordBatch:
        """One of those that were added."""
        return pa.ipc.read_record_batch(self._file.read_at(*self._places[index]), self.schema)

    def joined(self, batch_bytes: int) -> Iterator[pa.RecordBatch]:
        """All of them in order, about ``batch_bytes`` at a time."""
        at_a_time = max(1, batch_bytes * len(self) // max(1, self.nbytes))
        for start in range(0, len(self), at_a_time):
            yield pa.concat_batches(map(self.block, range(start, min(len(self), start + at_a_time))))

    def close(self) -> None:
        """It is of no more use. May be called twice."""
        self._file.close()
