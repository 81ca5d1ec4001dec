"""What rows occupy once they are parsed."""

from __future__ import annotations

import pyarrow as pa

from app.framing.schema import leaves, row_bytes

_MARGIN = 9 / 8
"""How much larger a part the texts may be of the next block than of any before."""
_PADDING_BYTES = 64
"""Of a column, whatever it holds."""


class Weight:
    """What rows of ``schema`` will occupy: their texts and lists at the most ``growth`` times what the records have in
    bytes, and each row ``least_bytes``, or ``reading_bytes`` while it is read.

    What blocks have occupied is noted, by any thread. What is likely by that is a guess: whoever makes rows of so many
    records looks what they come to, and has a way to make fewer at a time.
    """

    def __init__(self, schema: pa.Schema, *, growth: float, least_bytes: float, reading_bytes: float) -> None:
        self._growth = growth
        self._reading_bytes = reading_bytes
        self._row_bytes = row_bytes(schema)
        self._most_row_bytes = max(least_bytes, self._row_bytes)
        self._padding_bytes = _PADDING_BYTES * leaves(schema)
        self._share: float | None = None

    def most(self, nbytes: int, newlines: int) -> float:
        """Of so many bytes with so many newlines; rejects too, of which each takes some ``least_bytes``."""
        return self._growth * nbytes + newlines * self._most_row_bytes

    def likely(self, nbytes: int, newlines: int) -> float:
        """Of rows alone, by what was noted."""
        share = self._growth if self._share is None else min(self._growth, self._share)
        return max(share * nbytes + newlines * self._row_bytes, newlines * self._reading_bytes)

    def note(self, nbytes: int, batch: pa.RecordBatch) -> None:
        """So many bytes of records have become ``batch``."""
        occupied_bytes = batch.get_total_buffer_size()
        share = _MARGIN * (occupied_bytes - batch.num_rows * self._row_bytes - self._padding_bytes) / nbytes
        self._share = max(0.0, share) if self._share is None else max(self._share, share)
