"""Groups of a whole input, of totals that come in parts: in memory as far as they fit, in sorted runs on disk beyond.

An external sort that adds up early, as in "Duplicate Record Elimination in Large Data Files" (D. Bitton and D. DeWitt,
TODS 1983); section 4.2 of "Query Evaluation Techniques for Large Databases" (G. Graefe, ACM Computing Surveys 1993). Its
runs are not merged row by row: ranges of keys are, each as large as what fits, found by the first keys of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.interfaces import Spill
from app.core.page import Page
from app.framing.batches import table_page
from app.stages.groups import Groups, Total
from app.stages.sorted_runs import Cursor, SortedRun, SortedRuns
from app.stages.sql_pages import fitted

_TABLE_SHARE = 1 / 3
"""Of the memory: the groups that rows are added to, of which a copy leaves, and its order, or half as much in blocks, one of
each run. Samples take some of the rest."""
_GIVEN_ROWS = 16 * 1024


def mergeable(keys: Sequence[pa.DataType]) -> bool:
    """Whether groups with such keys can be merged: keys have to have an order, the one that DuckDB has too."""
    return bool(keys) and not any(
        pt.is_null(type_) or pt.is_interval(type_) or type_ in (pa.string_view(), pa.binary_view()) for type_ in keys
    )


class GroupMerge:
    """Merges rows of ``schema``, keys and behind them ``totals``, of which several may be of one group.

    It takes ``memory_bytes``, and files of ``spill`` until it is closed. ``look`` is called again and again meanwhile; what
    it raises comes out.
    """

    def __init__(
        self,
        schema: pa.Schema,
        totals: Sequence[Total],
        *,
        memory_bytes: int,
        spill: Spill | None,
        look: Callable[[], None],
    ) -> None:
        self._schema = schema
        keys = len(schema) - len(totals)
        self._groups = Groups(schema.types[:keys], totals, most_bytes=int(memory_bytes * _TABLE_SHARE))
        self._partial = self._groups.take_partial().schema
        self._keys = self._partial.names[:keys]
        self._look = look
        self._runs = SortedRuns(self._partial, self._keys, memory_bytes=memory_bytes, spill=spill, look=look)
        self._full_rows = 0

    @property
    def spilled_bytes(self) -> int:
        """The most that stood on disk."""
        return self._runs.spilled_bytes

    def close(self) -> None:
        """Give the disk back."""
        self._runs.close()

    def pages(self, pages: Iterator[Page]) -> Iterator[Page]:
        """Each group once, in the order of the keys, ascending and nulls last; of totals of floats those of rows that
        came first are added first. Nothing comes before the input is over.

        Raises what that raises; ``spool_full``, and ``state_too_large`` for a group that is too large by itself.
        """
        first = True
        for groups in self._merged(pages):
            yield table_page(fitted(groups, self._schema), first=first)
            first = False

    def _merged(self, pages: Iterator[Page]) -> Iterator[pa.RecordBatch]:
        for page in pages:
            rows = fitted(page.payload, self._partial)
            del page
            while rows.num_rows:
                rows = rows.slice(self._groups.merge(rows))
                if rows.num_rows:
                    self._spill_groups()
        if not self._runs.all:
            yield from self._sorted(_GIVEN_ROWS)
            return
        if len(self._groups):
            self._spill_groups()
        yield from self._merge(self._runs.all, _GIVEN_ROWS)

    def _sorted(self, rows: int, first_rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """All groups there are, so many ``rows`` at a time; one batch at least, which may have fewer."""
        groups = self._groups.take_partial()
        order = self._order(groups)
        start, end = 0, first_rows or rows
        while start < max(1, groups.num_rows):
            yield groups.take(order.slice(start, end - start))
            start, end = end, end + rows

    def _order(self, rows: pa.RecordBatch) -> pa.Array:
        return pc.sort_indices(rows, sort_keys=[(name, "ascending", "at_end") for name in self._keys])  # it is stable

    def _spill_groups(self) -> None:
        """All groups there are become a run; and where there are many of one length, those become one."""
        self._full_rows = min(self._full_rows or len(self._groups), len(self._groups))
        # Runs are often alike: blocks of one end where those of the others do not, so that their keys part ranges finely.
        first_rows = 1 + self._block_rows * (len(self._runs.all) % self._runs.most) // self._runs.most
        self._runs.add(self._sorted(self._block_rows, first_rows))
        self._runs.shorten(lambda runs: self._merge(runs, self._block_rows))

    @property
    def _block_rows(self) -> int:
        """A block of each run is half of what there is room for among the groups."""
        return max(1, self._full_rows // (2 * self._runs.most))

    def _merge(self, runs: Sequence[SortedRun], rows: int) -> Iterator[pa.RecordBatch]:
        """The groups of ``runs``, each once, in order."""
        samples = pa.concat_batches([run.samples for run in runs])
        places = [(i, block) for i, run in enumerate(runs) for block in run.sampled]
        order = self._order(samples).to_pylist()
        most_blocks = max(1, self._full_rows * 3 // 4 // (self._runs.stride * max(run.most_rows for run in runs)))
        cursors, sure = [Cursor(run).moved(0) for run in runs], [0] * len(runs)
        begin, blocks = 0, most_blocks
        while not all(cursor.is_over for cursor in cursors):
            end = begin + blocks
            bound = samples.slice(order[end], 1) if end < len(order) else None
            until = {**dict(enumerate(sure)), **dict(map(places.__getitem__, order[begin:end]))}
            moved = self._gathered(cursors, bound, list(until.values()))
            if moved is not None:
                sure, begin, blocks = list(until.values()), end, most_blocks
            elif blocks > 1:
                blocks //= 2
                continue
            else:
                moved = self._gathered_of_few(cursors, bound, sure)
            cursors = moved
            if len(self._groups):
                yield from self._sorted(rows)

    def _gathered_of_few(
        self, cursors: Sequence[Cursor], bound: pa.RecordBatch | None, sure: Sequence[int]
    ) -> list[Cursor]:
        """``_gathered`` up to some key before ``bound``, where that is too far: the middle one of those that stand in the
        middle of blocks, or the first of all. Raises ``state_too_large``."""
        keys = [cursor.rows.select(self._keys) for cursor in cursors]
        counts = [self._rows_before(bound, rows) for rows in keys]
        middle = pa.concat_batches([rows.slice(n // 2, 1) for rows, n in zip(keys, counts, strict=True) if n])
        first = pa.concat_batches([rows.slice(0, 1) for rows in keys])
        for some, place in ((middle, middle.num_rows // 2), (first, 0)):
            key = some.take(self._order(some).slice(place, 1))
            moved = self._gathered(cursors, key, sure, including=True)
            if moved is not None:
                return moved
        raise Refusal("state_too_large", "one group takes more than what QUERY_MEMORY leaves: raise it")

    def _gathered(
        self,
        cursors: Sequence[Cursor],
        bound: pa.RecordBatch | None,
        sure: Sequence[int],
        *,
        including: bool = False,
    ) -> list[Cursor] | None:
        """Have the rows behind cursors whose keys are less than ``bound``, or equal, among the groups, those of older runs
        first; all in blocks before those that are ``sure`` are less. Gives the cursors behind these; None, and no group,
        where there is no room."""
        moved = []
        for cursor, sure_until in zip(cursors, sure, strict=True):
            while True:
                self._look()
                rows = cursor.rows
                is_less = cursor.next <= sure_until
                count = rows.num_rows if is_less else self._rows_before(bound, rows, including=including)
                if self._groups.merge(rows.slice(0, count)) < count:
                    self._groups.take_partial()
                    return None
                cursor = cursor.moved(count)
                if count < rows.num_rows or cursor.is_over:
                    break
            moved.append(cursor)
        return moved

    def _rows_before(self, bound: pa.RecordBatch | None, rows: pa.RecordBatch, *, including: bool = False) -> int:
        """How many of ``rows``, which are in order, have keys that are less, or equal."""
        if bound is None or not rows.num_rows:
            return int(rows.num_rows)
        keys = rows.select(self._keys)
        order = self._order(pa.concat_batches([keys, bound] if including else [bound, keys]))
        place = rows.num_rows if including else 0
        return int(pc.index(order, pa.scalar(place, order.type)).as_py())
