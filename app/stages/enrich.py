"""Each row with what a lookup table has for its key: hash probes and gathers, each for a whole page in one call of C."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from app.core.errors import Refusal, known
from app.core.page import Page, Reject
from app.core.units import as_size
from app.framing.batches import occupied_bytes
from app.framing.json_text import rows_text
from app.framing.native.gather import Taken, take_rows, text_span_bytes
from app.framing.needs import field_called, folded
from app.stages.lookup import Found, Lookup, is_key, key_of, key_type
from app.stages.phrase import Part, split_phrase

WORDS = ("table", "on", "add", "missing")
"""The parts of the argument."""
_MISSING = ("null", "drop", "fail")


@dataclass(frozen=True, slots=True)
class Enrichment:
    """``TABLE on col[=col] [add a, b] [missing null|drop|fail]``, read: ``on`` has pairs of the input's column and the
    table's; ``add`` is None for all columns that are no keys."""

    table: str
    on: tuple[tuple[str, str], ...]
    add: tuple[str, ...] | None
    missing: str


def parse(argument: str) -> Enrichment:
    """Raises ``bad_argument`` with the position."""
    parts = split_phrase(argument, WORDS)
    if "on" not in parts:
        raise Refusal("bad_argument", "it names no key: TABLE on COLUMN, or TABLE on COLUMN=COLUMN", position=0)
    table = parts["table"].text
    if not table.replace("-", "_").replace(".", "_").isidentifier():
        raise Refusal("bad_argument", f"{table[:80]!r} is no name of a lookup table", position=parts["table"].position)
    pairs = []
    for item in _items(parts["on"], ","):
        sides = [_name(side) for side in _items(item, "=")]
        if len(sides) > 2:
            raise Refusal("bad_argument", f"{item.text[:80]!r} is not COLUMN or COLUMN=COLUMN", position=item.position)
        pairs.append((sides[0], sides[-1]))
    add = tuple(_name(item) for item in _items(parts["add"], ",")) if "add" in parts else None
    missing = parts["missing"].text.lower() if "missing" in parts else "null"
    if missing not in _MISSING:
        place = parts["missing"].position
        raise Refusal("bad_argument", f"missing {missing[:80]!r} is not one of {known(_MISSING)}", position=place)
    return Enrichment(table, tuple(pairs), add, missing)


class Enrich:
    """Pages with the columns of ``lookup`` for their keys, cut where that makes them too large.

    Raises ``bad_argument`` where a column is not there, or is already, or types differ; ``missing_key`` for a row
    without a match that may not be; ``page_too_large`` where one row outgrows two pages.
    """

    name = "enrich"
    stateless = True
    # Where the rows are, and the key as one text where there are several; then a piece, and once more what is left of it
    # where few were found; and the piece before it.
    grows = 5.0

    def __init__(self, asked: Enrichment, lookup: Lookup, *, page_bytes: int) -> None:
        self._asked = asked
        self._lookup = lookup
        self._page_bytes = page_bytes
        self._keys = [lookup.column(right) for _, right in asked.on]
        self._index = lookup.index(self._keys)
        self._added = lookup.table.select(added_columns(asked, lookup))
        self._fixed_bytes = sum(_fixed_bytes(field.type) for field in self._added.schema)
        lengths: pa.Array | None = None
        for column in self._added.columns:
            if _is_text(column.type):
                length = pc.fill_null(pc.binary_length(column), 0).cast(pa.int32())
                lengths = length if lengths is None else pc.add(lengths, length)
        self._lengths = lengths
        # The lengths of what is added stay; index and table are paid for by whoever loaded them.
        self.holds = 0 if lengths is None else int(lengths.nbytes)
        self._bound: _Bound | None = None

    def feed(self, page: Page) -> Iterator[Page]:
        """``page``, perhaps in pieces."""
        batch = page.payload
        bound = self._bound
        if bound is None or not bound.fed.equals(batch.schema):
            bound = self._bound = self._bind(batch.schema)
        key = key_of([batch.column(index) for index in bound.left])
        found = self._index.find(key, dropping=self._asked.missing == "drop", lengths=self._lengths)
        if found.missing and self._asked.missing == "fail":
            self._fail(batch, bound, found)
        if page.nbytes + found.length_sum + found.count * self._fixed_bytes <= 2 * self._page_bytes:
            yield self._enriched(page, batch, bound, found, page.first, page.rejects)
            return
        if found.kept is not None:
            columns = take_rows(_those(batch, found.kept), found.count, _texts_bytes(batch))
            batch, found = (
                pa.RecordBatch.from_arrays(columns, schema=batch.schema),
                replace(found, kept=None, missing=0),
            )
        first, rejects = page.first, page.rejects
        for start, piece in self._pieces(batch, found):
            yield self._enriched(page, batch.slice(start, piece.count), bound, piece, first, rejects)
            first, rejects = False, ()

    def flush(self) -> Iterator[Page]:
        """Nothing is kept."""
        return iter(())

    def _enriched(
        self, page: Page, batch: pa.RecordBatch, bound: _Bound, found: Found, first: bool, rejects: tuple[Reject, ...]
    ) -> Page:
        may_miss = found.missing > 0 and found.kept is None
        wanted = [Taken(column, found.rows, may_miss) for column in self._added.columns]
        if found.kept is None:
            columns = [*batch.columns, *take_rows(wanted, found.count, found.length_sum)]
        else:
            columns = take_rows(
                [*_those(batch, found.kept), *wanted], found.count, _texts_bytes(batch) + found.length_sum
            )
        made = pa.RecordBatch.from_arrays(columns, schema=bound.made)
        nbytes = occupied_bytes(made, 2 * self._page_bytes)
        return Page(made, nbytes, made.num_rows, page.byte, page.line, first, rejects)

    def _bind(self, schema: pa.Schema) -> _Bound:
        left = []
        for (name, _), key in zip(self._asked.on, self._keys, strict=True):
            index = field_called(folded(name), schema)
            if index is None:
                raise Refusal("bad_argument", f"enrich: there is no column {name!r}; columns are {known(schema.names)}")
            one, other = schema.field(index).type, self._lookup.table.schema.field(key).type
            if not is_key(one) or key_type(one) != key_type(other):
                detail = f"enrich: {name!r} is {one}, and {key!r} of {self._lookup.name} is {other}"
                raise Refusal("bad_argument", f"{detail}: derive a column of the same type first")
            left.append(index)
        taken = {folded(name) for name in schema.names}
        for name in self._added.schema.names:
            if folded(name) in taken:
                raise Refusal(
                    "bad_argument", f"enrich: a column {name!r} is there already: say what to add, or rename it"
                )
            taken.add(folded(name))
        made = pa.schema([*schema, *(field.with_nullable(True) for field in self._added.schema)])
        return _Bound(schema, left, made)

    def _fail(self, batch: pa.RecordBatch, bound: _Bound, found: Found) -> None:
        rows = pa.Array.from_buffers(pa.int32(), found.count, [None, found.rows])
        row = batch.slice(pc.index(rows, -1).as_py(), 1)
        values = ", ".join(str(row.column(index)[0].as_py())[:80] for index in bound.left)
        text = bytes(rows_text(row)).decode(errors="replace")[:300].rstrip()
        raise Refusal(
            "missing_key",
            f"enrich: {self._lookup.name} has no {', '.join(self._keys)} {values!r}, and missing is fail; the row is {text}",
            column=str(batch.schema.field(bound.left[0]).name),
        )

    def _pieces(self, batch: pa.RecordBatch, found: Found) -> Iterator[tuple[int, Found]]:
        """Rows of ``batch`` that take no more than two pages with what is added, with where they start; at least one."""
        most_bytes = 2 * self._page_bytes
        waiting = [(0, found.count)]
        while waiting:
            start, count = waiting.pop()
            piece = found.part(start, count, self._lengths)
            nbytes = batch.slice(start, count).nbytes + piece.length_sum + count * self._fixed_bytes
            if nbytes <= most_bytes or count <= 1:
                if nbytes > most_bytes and count and nbytes > 2 * batch.nbytes:
                    raise Refusal(
                        "page_too_large",
                        f"enrich: one row becomes {as_size(nbytes)}, the most is {as_size(most_bytes)}",
                    )
                yield start, piece
            else:
                half = count // 2
                waiting += [(start + half, count - half), (start, half)]


@dataclass(frozen=True, slots=True)
class _Bound:
    """What is done with pages of the schema ``fed``, which become those of ``made``; ``left`` has the places of the keys."""

    fed: pa.Schema
    left: list[int]
    made: pa.Schema


def added_columns(asked: Enrichment, lookup: Lookup) -> list[str]:
    """The columns of ``lookup`` that are added. Raises ``bad_argument``."""
    if asked.add is not None:
        return [lookup.column(name) for name in asked.add]
    keys = {lookup.column(right) for _, right in asked.on}
    return [name for name in lookup.table.schema.names if name not in keys]


def _those(batch: pa.RecordBatch, rows: pa.Buffer) -> list[Taken]:
    return [Taken(column, rows, may_miss=False) for column in batch.columns]


def _texts_bytes(batch: pa.RecordBatch) -> int:
    return sum(map(text_span_bytes, batch.columns))


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_binary(type_) or pa.types.is_large_string(type_))


def _fixed_bytes(type_: pa.DataType) -> float:
    if _is_text(type_):
        return 4.125
    try:
        return float(type_.bit_width) / 8 + 0.125
    except ValueError:
        raise Refusal("bad_lookup", f"a lookup table has plain columns, and not such as {type_}") from None


def _items(part: Part, separator: str) -> list[Part]:
    """What stands between separators, outside of quotes."""
    items, start, quoted = [], 0, False
    for index, letter in enumerate(part.text + separator):
        if letter == '"':
            quoted = not quoted
        elif index == len(part.text) or (letter == separator and not quoted):
            text = part.text[start:index]
            if not text.strip():
                raise Refusal("bad_argument", f"a column is missing at {separator!r}", position=part.position + start)
            items.append(Part(text.strip(), part.position + start + len(text) - len(text.lstrip())))
            start = index + 1
    return items


def _name(part: Part) -> str:
    """A column's name, which may be in double quotes."""
    if part.text.startswith('"') and part.text.endswith('"') and len(part.text) > 2:
        return part.text[1:-1].replace('""', '"')
    if '"' in part.text or " " in part.text:
        raise Refusal(
            "bad_argument", f"{part.text[:80]!r} is no column: write it in double quotes", position=part.position
        )
    return part.text
