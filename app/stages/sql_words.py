"""The words of a query, for what is to be taken out of its text."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb


@dataclass(frozen=True, slots=True)
class Word:
    """A token: where it begins and ends in bytes, and how many parentheses are open around it."""

    byte: int
    end: int
    text: str
    depth: int
    is_keyword: bool

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these, and no name."""
        return self.is_keyword and self.text.lower() in words


def words_of(text: str) -> list[Word]:
    """All tokens of ``text`` that are no comments."""
    octets, depth = text.encode(), 0
    tokens = duckdb.tokenize(text)
    words: list[Word] = []
    for (byte, kind), (end, _) in zip(tokens, [*tokens[1:], (len(octets), None)], strict=True):
        if kind == duckdb.token_type.comment:
            continue
        part = octets[byte:end].decode(errors="replace").strip()
        # What is between tokens belongs to the one before, a comment excepted.
        depth -= part[:1] in (")", "]", "}")
        is_keyword = kind == duckdb.token_type.keyword
        words.append(Word(byte, byte + len(part.encode()), part, depth, is_keyword))
        depth += part[:1] in ("(", "[", "{")
    return words
