"""A sorted run of groups on disk, and how far it was read."""

from __future__ import annotations

from copy import copy

import pyarrow as pa

from app.core.interfaces import SpillFile
from app.framing.batches import empty_batch

_SAMPLE_BYTES = 128
"""What a sample takes beside its key."""


class SortedRun:
    """Groups in the order of their keys, each once, in blocks in a file. ``samples`` are the first keys of those that
    are ``sampled``, and ``length`` is how many times what is in it was merged of others."""

    def __init__(self, file: SpillFile, schema: pa.Schema, length: int, *, phase: int) -> None:
        self.length = length
        self._phase = phase
        self.sampled: list[int] = []
        self.samples: pa.RecordBatch = None
        self.most_rows = 0
        self.schema = schema
        self._places: list[tuple[int, int]] = []
        self._file = file

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """On disk."""
        return self._file.nbytes

    @property
    def samples_bytes(self) -> int:
        """What they take."""
        return int(self.samples.get_total_buffer_size() + _SAMPLE_BYTES * len(self.sampled))

    def is_sampled(self, block: int, stride: int) -> bool:
        """Of each ``stride`` blocks one is, in runs beside each other another one."""
        return block % stride == self._phase % stride

    def thin(self, stride: int) -> None:
        """Keep the samples of fewer blocks."""
        kept = [i for i, block in enumerate(self.sampled) if self.is_sampled(block, stride) and stride < len(self)]
        self.sampled = [self.sampled[i] for i in kept]
        self.samples = self.samples.take(pa.array(kept, pa.int32()))

    def add(self, block: pa.RecordBatch) -> None:
        """Put it behind the others."""
        data = block.serialize()
        self._places.append((self._file.nbytes, data.size))
        self._file.append(memoryview(data))
        self.most_rows = max(self.most_rows, block.num_rows)

    def block(self, index: int) -> pa.RecordBatch:
        """One of those that were added."""
        return pa.ipc.read_record_batch(self._file.read_at(*self._places[index]), self.schema)

    def close(self) -> None:
        """It is of no more use. May be called twice."""
        self._file.close()


class Cursor:
    """How far a run was read: ``rows`` are what is left of the block before ``next``."""

    def __init__(self, run: SortedRun) -> None:
        self.rows = empty_batch(run.schema)
        self.next = 0
        self._run = run

    @property
    def is_over(self) -> bool:
        """No row is left."""
        return not self.rows.num_rows and self.next == len(self._run)

    def moved(self, count: int) -> Cursor:
        """A cursor ``count`` rows behind this one, which stays where it is; they are some of ``rows``."""
        other = copy(self)
        other.rows = self.rows.slice(count)
        if not other.rows.num_rows and self.next < len(self._run):
            other.rows = self._run.block(self.next)
            other.next += 1
        return other
