"""Arguments that are phrases: a head, and behind it words that each open a part: ``count(*) as n by a, b``.

Words count outside of quotes and parentheses only, in any case. A column that is called like a word is written in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.errors import Refusal, known

_TOKEN = re.compile(r"'(?:[^']|'')*'?|\"(?:[^\"]|\"\")*\"?|[\[({]|[\])}]|\w+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of an argument: its text without space around it, and the character at which it begins."""

    text: str
    position: int


def split_phrase(argument: str, words: Sequence[str]) -> dict[str, Part]:
    """The parts of ``argument`` by their words; the first of ``words`` names the head, which no word opens.

    Every part that is there has a text. Raises ``bad_argument`` with the position: the head is missing, a word stands
    there twice or has nothing behind it.
    """
    head, *openers = words
    found: list[tuple[str, int, int]] = [(head, 0, 0)]
    depth = 0
    for match in _TOKEN.finditer(argument):
        token = match[0]
        if token in ("(", "[", "{"):
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        elif depth == 0 and token.lower() in openers:
            found.append((token.lower(), match.start(), match.end()))
    parts: dict[str, Part] = {}
    ends = [start for _, start, _ in found[1:]] + [len(argument)]
    for (word, place, start), end in zip(found, ends, strict=True):
        text = argument[start:end]
        if word in parts:
            raise Refusal("bad_argument", f"the word {word!r} stands there twice (a column: in quotes)", position=place)
        if not text.strip():
            what = (
                f"there is nothing behind {word!r}" if word != head else f"it begins with {head}, and that is missing"
            )
            raise Refusal("bad_argument", what, position=place)
        parts[word] = Part(text.strip(), start + len(text) - len(text.lstrip()))
    return parts


def join_phrase(given: Mapping[str, str], words: Sequence[str]) -> str:
    """The phrase whose parts are ``given``; what ``split_phrase`` undoes. Raises ``bad_argument`` for other words."""
    head, *openers = words
    strange = [word for word in given if word not in words]
    if strange or head not in given:
        raise Refusal("bad_argument", f"its argument is a text, or an object with {head} and perhaps {known(openers)}")
    return " ".join([given[head], *(f"{word} {given[word]}" for word in openers if word in given)])
