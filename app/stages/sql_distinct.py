"""Takes the DISTINCT of a SELECT over a whole input out of a query, and leaves it to ``Distinct``."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from app.stages.sql_clause import Clause
from app.stages.sql_query import parse_query
from app.stages.sql_words import words_of


def without_distinct(clause: Clause) -> Clause | None:
    """``clause`` without its DISTINCT; None where that is not the only thing that all of the input is needed for, or where
    it is about other columns than those that are selected."""
    if clause.kind != "sql" or clause.tree is None:
        return None
    modifiers = clause.tree["modifiers"]
    if [one["type"] for one in modifiers] != ["DISTINCT_MODIFIER"] or modifiers[0]["distinct_on_targets"]:
        return None
    words = words_of(clause.text)
    pairs = pairwise(words)
    places = [after for word, after in pairs if not word.depth and word.is_word("select") and after.is_word("distinct")]
    if len(places) != 1:
        return None
    # Blanks in its place, so that all else stands where it stood.
    text = clause.text.encode()
    blank = b" " * (places[0].end - places[0].byte)
    rows = parse_query((text[: places[0].byte] + blank + text[places[0].end :]).decode())
    return None if rows.is_whole else replace(rows, text=clause.text)
