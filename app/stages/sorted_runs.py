"""Sorted runs of rows on disk, and how far they were read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy

import pyarrow as pa

from app.core.interfaces import Spill
from app.framing.batches import empty_batch
from app.stages.block_file import BlockFile

_SAMPLE_BYTES = 128
"""What a sample takes beside its key."""
_LOOSE_SAMPLES = 64
"""More small batches that stay, between the large ones that go, would leave the heap in pieces: 10 MiB a second."""
_SAMPLES_SHARE = 1 / 12
"""Of the memory: keys by which ranges are chosen."""
_LEAST_RUN_BYTES = 512 * 1024
_LEAST_RUNS, _MOST_RUNS = 8, 128
"""So many of one length become one. Each is an open file."""


class SortedRun(BlockFile):
    """Rows in the order of their keys. ``samples`` are the first keys of those blocks that are ``sampled``, and ``length``
    is how many times what is in it was merged of others."""

    def __init__(self, spill: Spill | None, schema: pa.Schema, length: int, *, phase: int) -> None:
        super().__init__(spill, schema)
        self.length = length
        self._phase = phase
        self.sampled: list[int] = []
        self.samples: pa.RecordBatch = None

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


class SortedRuns:
    """Runs of rows of ``schema``, older ones first, whose keys are the columns ``keys``. As many of one length as
    ``memory_bytes`` allow for, ``most``, become one, and a twelfth of it is for what is sampled. ``look`` is called for
    each block that is added, and what it raises comes out."""

    def __init__(
        self,
        schema: pa.Schema,
        keys: list[str],
        *,
        memory_bytes: int,
        spill: Spill | None,
        look: Callable[[], None],
    ) -> None:
        self.all: list[SortedRun] = []
        self.stride = 1
        """Of so many blocks one is sampled."""
        self.spilled_bytes = 0
        """The most that stood on disk."""
        self._schema = schema
        self._keys = keys
        self.most = min(max(_LEAST_RUNS, memory_bytes // _LEAST_RUN_BYTES), _MOST_RUNS)
        self._samples_bytes = int(memory_bytes * _SAMPLES_SHARE)
        self._spill = spill
        self._look = look

    def close(self) -> None:
        """Give the disk back."""
        for run in self.all:
            run.close()

    def add(self, blocks: Iterator[pa.RecordBatch], length: int = 0) -> None:
        """One more, of blocks that are in order. Raises what ``BlockFile`` does."""
        run = SortedRun(self._spill, self._schema, length, phase=len(self.all))
        self.all.append(run)
        samples: list[pa.RecordBatch] = []
        for block in blocks:
            self._look()
            if run.is_sampled(len(run), self.stride):
                samples.append(block.select(self._keys).take(pa.array([0])))
                run.sampled.append(len(run))
            if len(samples) > _LOOSE_SAMPLES:
                samples = [pa.concat_batches(samples)]
            run.add(block)
        self.spilled_bytes = max(self.spilled_bytes, sum(one.nbytes for one in self.all))
        run.samples = pa.concat_batches([empty_batch(self._schema).select(self._keys), *samples])
        while sum(one.samples_bytes for one in self.all) > self._samples_bytes:
            self.stride *= 2
            for one in self.all:
                one.thin(self.stride)

    def shorten(self, merge: Callable[[list[SortedRun]], Iterator[pa.RecordBatch]]) -> None:
        """Where there are as many of one length as there may be, they become one, of what ``merge`` makes of them."""
        while len(last := [run for run in self.all if run.length == self.all[-1].length]) == self.most:
            self.add(merge(last), last[0].length + 1)
            self.all = [run for run in self.all if run not in last]
            for run in last:
                run.close()
