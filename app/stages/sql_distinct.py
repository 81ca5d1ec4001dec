"""Takes the DISTINCT of a SELECT over a whole input out of a query, and leaves it to ``Distinct``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.framing.needs import folded
from app.stages.sql_clause import Clause
from app.stages.sql_ordering import Ordering, is_plain_star, ordering
from app.stages.sql_parser import Node, literal
from app.stages.sql_query import parse_query
from app.stages.sql_text import parse
from app.stages.sql_words import Word, words_of

_INPUT = b"FROM input"


@dataclass(frozen=True, slots=True)
class Apart:
    """What a query with DISTINCT is made of: all of ``rows``, which may be sorted first; of these the first ones of
    ``distinct``; and these in the order of ``behind``, if there is one."""

    rows: Clause | Ordering
    distinct: Clause
    behind: Ordering | None = None


def apart(clause: Clause) -> Apart | None:
    """The parts of ``clause``; None where DISTINCT and an ORDER BY are not the only things that all of the input is needed
    for, or where they are about other columns than those that are selected."""
    if clause.kind != "sql" or clause.tree is None:
        return None
    first, *others = clause.tree["modifiers"] or [{"type": ""}]
    kinds = [one["type"].removesuffix("_MODIFIER") for one in others]
    words = words_of(clause.text)
    selects = [i for i in range(len(words) - 1) if not words[i].depth and words[i].is_word("select")]
    if first["type"] != "DISTINCT_MODIFIER" or kinds not in ([], ["ORDER"], ["ORDER", "LIMIT"]):
        return None
    if len(selects) != 1 or not words[selects[0] + 1].is_word("distinct"):
        return None
    words = words[selects[0] + 1 :]
    if first["distinct_on_targets"]:
        return _by_some(clause, words, first["distinct_on_targets"]) if "LIMIT" not in kinds else None
    return _by_all(clause, words, others[0]["orders"] if others else [])


def _by_all(clause: Clause, words: Sequence[Word], orders: Sequence[Node]) -> Apart | None:
    """It is the rows that remain that are sorted."""
    text, rest = _blanked(clause.text.encode(), words[0].byte, words[0].end), b""
    if orders:
        keys = [one["expression"] for one in orders]
        ends = [word.byte for word in words if word.is_word("order") and not word.depth]
        if not ends or not _are_selected(clause, [key for key in keys if not str(literal(key)).isdecimal()]):
            return None
        text, rest = text[: ends[-1]], _INPUT + b" " * (ends[-1] - len(_INPUT)) + text[ends[-1] :]
    rows, behind = _query(clause, text), _query(clause, rest) if rest else None
    if isinstance(rows, Ordering) or rows.is_whole or isinstance(behind, Clause):
        return None
    return Apart(rows, parse("distinct", ""), behind)


def _by_some(clause: Clause, words: Sequence[Word], targets: Sequence[Node]) -> Apart | None:
    """The first row of each is that in the order of ORDER BY."""
    if not _are_selected(clause, targets):
        return None
    text = clause.text.encode()
    start, stop = (next(word.byte for word in words if not word.depth and word.text[0] == end) for end in "()")
    names = _blanked(text[:stop], 0, start + 1).decode()
    rows = _query(clause, _blanked(text, words[0].byte, stop + 1))
    if isinstance(rows, Clause) and rows.is_whole:
        return None
    return Apart(rows, parse("distinct", names).shown(clause.text))


def _are_selected(clause: Clause, nodes: Sequence[Node]) -> bool:
    """They are columns by the names that they have in what comes out."""
    assert clause.tree is not None
    entries = clause.tree["select_list"]
    if any(node["class"] != "COLUMN_REF" or len(node["column_names"]) != 1 for node in nodes):
        return False
    named = {folded(entry["alias"] or entry.get("column_names", [""])[-1]) for entry in entries}
    return any(map(is_plain_star, entries)) or all(folded(node["column_names"][0]) in named for node in nodes)


def _query(clause: Clause, text: bytes) -> Clause | Ordering:
    """What ``text`` is, in which all stands where it stands in ``clause``."""
    query = parse_query(text.decode())
    found = ordering(query, even_few=True)
    return query.shown(clause.text) if found is None else replace(found, rows=found.rows.shown(clause.text))


def _blanked(text: bytes, start: int, stop: int) -> bytes:
    return text[:start] + b" " * (stop - start) + text[stop:]
