"""Takes an ORDER BY over a whole input out of a query: the query gives each row a key then, and ``Sort`` does the rest.

DuckDB too sorts by keys made of bytes (L. Kuiper and H. Mühleisen, "These Rows Are Made for Sorting", ICDE 2023), and has a
function that makes them, ``create_sort_key``; but what it needs in memory grows with the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from app.framing.needs import folded
from app.stages.sql_clause import Clause
from app.stages.sql_parser import Node, literal, walk
from app.stages.sql_query import parse_query
from app.stages.sql_types import KEY, quoted
from app.stages.sql_words import Word, words_of

_HIDDEN = "\ue002"
"""Of columns for a while; see ``KEY``."""
_MOST_FIRST_ROWS = 10_000
"""What is as few as that behind ORDER BY, DuckDB keeps in memory by itself."""


@dataclass(frozen=True, slots=True)
class Ordering:
    """``rows`` gives all rows and behind their columns a key; of those in its order ``skip`` are left out, and all behind
    the next ``count``, if that is a number."""

    rows: Clause
    skip: int
    count: int | None


@dataclass(frozen=True, slots=True)
class _Item:
    """One of what stands behind ORDER BY: its expression, the text of that and its place in bytes, and how it is sorted."""

    node: Node
    byte: int
    text: str
    how: str

    @property
    def is_plain(self) -> bool:
        """No name in it has that of a table before it."""
        return all(len(node["column_names"]) == 1 for node in walk(self.node) if node["class"] == "COLUMN_REF")

    def entry(self, named: Collection[bytes], before: int) -> str | None:
        """The column of the select list that it is by its number, ``before`` others having been put first, or by one of
        the names that are given there; None if it is no such."""
        if self.node["class"] == "CONSTANT":
            return f"#{int(self.text) + before}"
        if self.node["class"] == "COLUMN_REF" and self.is_plain and folded(self.node["column_names"][0]) in named:
            return quoted(self.node["column_names"][0])
        return None


def ordering(clause: Clause, *, even_few: bool = False) -> Ordering | None:
    """``clause`` without its ORDER BY; None where that is not the only thing that all of the input is needed for, where the
    keys are such that DuckDB has to sort by itself, or where a few rows are asked for, unless ``even_few`` is."""
    if clause.kind != "sql" or clause.tree is None or not clause.is_whole:
        return None
    order, *limits = clause.tree["modifiers"] or [{"type": ""}]
    if order["type"] != "ORDER_MODIFIER" or [one["type"] for one in limits] not in ([], ["LIMIT_MODIFIER"]):
        return None
    skip, count = _limit(limits[0]) if limits else (0, None)
    if count is not None and skip + count <= _MOST_FIRST_ROWS and not even_few:
        return None
    text = clause.text.encode()
    words = words_of(clause.text)
    at = next((i for i in range(len(words) - 1, -1, -1) if words[i].is_word("order") and not words[i].depth), None)
    if at is None:
        return None
    items = _items(order["orders"], words[at + 2 :], text)
    without = parse_query(text[: words[at].byte].decode())
    if items is None or without.is_whole:
        return None
    selects = [i for i in range(at) if words[i].is_word("select") and not words[i].depth]
    rows = _with_key(clause, without, items, words[selects[-1]].end if selects else None)
    return None if rows is None else Ordering(rows, skip, count)


def _with_key(clause: Clause, without: Clause, items: Sequence[_Item], select_end: int | None) -> Clause | None:
    """The names of the select list come first behind ORDER BY, then those of what it selects from: so does DuckDB bind
    them."""
    assert clause.tree is not None
    entries = clause.tree["select_list"]
    named = {folded(node["alias"]) for node in entries if node["alias"]}
    is_all = all(is_plain_star(node) for node in entries)
    inner = [item for item in items if item.entry(named, 0) is None and not (is_all and item.is_plain)]
    if inner and select_end is None:
        return None
    hidden = {item.byte: f'"{_HIDDEN}{place}"' for place, item in enumerate(inner)}
    # What stands in the user's text, with its place, and what does not.
    pieces: list[tuple[int, str] | str] = ["FROM (\n"]
    text, start = without.text.encode(), select_end if inner and select_end is not None else 0
    if inner:
        pieces.append((0, text[:start].decode()))
    for item in inner:
        pieces += [" (\n", (item.byte, item.text), f"\n) AS {hidden[item.byte]},"]
    pieces += [(start, text[start:].decode()), "\n) AS input SELECT *"]
    if inner:
        pieces.append(f" EXCLUDE ({', '.join(hidden.values())})")
    pieces.append(", create_sort_key(")
    for item in items:
        entry = item.entry(named, len(inner)) or hidden.get(item.byte)
        pieces += [entry] if entry is not None else ["(\n", (item.byte, item.text), "\n)"]
        pieces.append(f", '{item.how}'" + (", " if item is not items[-1] else ""))
    pieces.append(f') AS "{KEY}"')
    glue = [""]
    for piece in pieces:
        if isinstance(piece, str):
            glue[-1] += piece
        else:
            glue.append("")
    parts = tuple(piece for piece in pieces if not isinstance(piece, str))
    # What a key takes, and what is hidden: so that it is reckoned with.
    *inner_levels, last = without.levels
    grown = replace(last, entries=(*last.entries, *(item.node for item in (*inner, *items))))
    changed = replace(without, levels=(*inner_levels, grown), parts=parts, glue=tuple(glue), inside=without)
    return changed.shown(clause.text)


def is_plain_star(node: Node) -> bool:
    """It gives all columns, by their names."""
    changes = ("relation_name", "exclude_list", "replace_list", "qualified_exclude_list", "rename_list", "expr")
    return bool(node["class"] == "STAR" and not any(node.get(word) for word in changes))


def _limit(modifier: Node) -> tuple[int, int | None]:
    texts = [literal(modifier[word]) if modifier[word] else None for word in ("offset", "limit")]
    skip, count = (int(text) if text is not None and text.isdecimal() else None for text in texts)
    return skip or 0, count


def _items(orders: Sequence[Node], words: Sequence[Word], text: bytes) -> list[_Item] | None:
    """What stands behind ORDER BY; None where it cannot be told for certain, or cannot be a key."""
    end = next((i for i, word in enumerate(words) if not word.depth and word.is_word("limit", "offset")), len(words))
    groups: list[list[Word]] = [[]]
    for word in words[:end]:
        if word.text == "," and not word.depth:
            groups.append([])
        else:
            groups[-1].append(word)
    if len(groups) != len(orders):
        return None
    items = []
    for group, order in zip(groups, orders, strict=True):
        if len(group) > 2 and group[-2].is_word("nulls"):
            group = group[:-2]
        if len(group) > 1 and group[-1].is_word("asc", "desc"):
            group = group[:-1]
        node = order["expression"]
        classes = {part["class"] for part in walk(node)}
        is_number = node["class"] == "CONSTANT" and str(literal(node)).isdecimal()
        if not group or classes & {"STAR", "COLLATE", "SUBQUERY"} or (node["class"] == "CONSTANT" and not is_number):
            return None
        direction = "DESC" if order["type"] == "DESCENDING" else "ASC"
        nulls = "NULLS LAST" if order["null_order"] == "ORDER_DEFAULT" else order["null_order"].replace("_", " ")
        start, stop = group[0].byte, group[-1].end
        items.append(_Item(node, start, text[start:stop].decode(), f"{direction} {nulls}"))
    return items
