"""Takes the DISTINCT of a SELECT over a whole input out of a query, and leaves it to ``Distinct``; and what is one in other
words, ``QUALIFY row_number() OVER (PARTITION BY …) = 1``."""

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
_NUMBERED = ["row_number", "(", ")", "over", "("]
_WINDOW_PARTS = ("partition", "order", "rows", "range", "groups")


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
    if clause.tree["qualify"] and not clause.tree["modifiers"]:
        return _by_number(clause, clause.tree["qualify"])
    first, *others = clause.tree["modifiers"] or [{"type": ""}]
    kinds = [one["type"].removesuffix("_MODIFIER") for one in others]
    if first["type"] != "DISTINCT_MODIFIER" or kinds not in ([], ["ORDER"], ["ORDER", "LIMIT"]):
        return None
    words = words_of(clause.text)
    selects = [i for i in range(len(words) - 1) if not words[i].depth and words[i].is_word("select")]
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
    text = clause.text.encode()
    start, stop = (next(word.byte for word in words if not word.depth and word.text[0] == end) for end in "()")
    return _firsts(clause, _blanked(text, words[0].byte, stop + 1), targets, start + 1, stop)


def _by_number(clause: Clause, condition: Node) -> Apart | None:
    """As ``DISTINCT ON (…) … ORDER BY …`` has it. Names are those of what is selected from there, so nothing may be called
    otherwise, and numbers are values."""
    assert clause.tree is not None
    entries = clause.tree["select_list"]
    sides = [condition.get("left", condition), condition.get("right", condition)]
    window, one = sorted(sides, key=lambda side: side["class"], reverse=True)
    if condition["type"] != "COMPARE_EQUAL" or window["type"] != "WINDOW_ROW_NUMBER" or literal(one) != "1":
        return None
    if any(order["expression"]["class"] == "CONSTANT" for order in window["orders"]):
        return None
    if not all(is_plain_star(entry) or (entry["class"] == "COLUMN_REF" and not entry["alias"]) for entry in entries):
        return None
    words = words_of(clause.text)
    qualify = max(i for i, word in enumerate(words) if word.is_word("qualify") and not word.depth)
    begin = qualify + (3 if one is sides[0] else 1)
    opening = begin + len(_NUMBERED) - 1
    closing = next((i for i in range(opening + 1, len(words)) if not words[i].depth), opening)
    parts = [word for word in words[opening:closing] if word.depth == 1 and word.is_word(*_WINDOW_PARTS)]
    wanted = ["partition", "order"] if window["orders"] else ["partition"]
    if [word.text.lower() for word in words[begin : opening + 1]] != _NUMBERED:
        return None
    if [word.text.lower() for word in parts] != wanted:
        return None
    stop = parts[1].byte if window["orders"] else words[closing].byte
    rows_text = _blanked(clause.text.encode()[: words[closing].byte], words[qualify].byte, stop)
    return _firsts(clause, rows_text, window["partitions"], words[opening + 2].end, stop)


def _firsts(clause: Clause, rows_text: bytes, targets: Sequence[Node], start: int, stop: int) -> Apart | None:
    """The first ones of what ``rows_text`` gives, by ``targets``, which stand from ``start`` to ``stop`` in the text."""
    if not _are_selected(clause, targets):
        return None
    rows = _query(clause, rows_text)
    if isinstance(rows, Clause) and rows.is_whole:
        return None
    names = _blanked(clause.text.encode()[:stop], 0, start).decode()
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
