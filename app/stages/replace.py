"""Text in lines, replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size
from app.stages.grep import check_regex
from app.stages.lines import join, split

_MOST_GROWTH = 8
"""How much longer a page may become. More is refused: it could not be held."""


class Replace:
    """In each line, replaces all that an RE2 expression matches; ``\\1`` to ``\\9`` in the text stand for its groups.

    Raises ``bad_argument`` for an expression or a text that RE2 does not take, and ``page_too_large`` when a page
    becomes more than eight times as long.
    """

    name = "replace"
    holds = 0
    grows = 2.0 + 2 * _MOST_GROWTH
    """The lines as an array, the results, and these joined."""
    stateless = True

    def __init__(self, regex: str, text: str) -> None:
        self._regex = regex
        self._text = text
        check_regex(regex)
        try:
            self._replaced(pa.array([""]))
        except pa.ArrowInvalid as error:
            raise Refusal("bad_argument", f"the replacement {text[:80]!r} cannot be used: {error}") from error

    def feed(self, page: Page) -> Iterable[Page]:
        """The page with its lines changed."""
        lines, bare = split(page.payload)
        room = _MOST_GROWTH * max(page.nbytes, 4096) + 4 * len(lines)
        pieces: list[pa.Array] = []
        for piece in _pieces(lines):
            # A piece at a time, so that a page that grows too much is noticed before it is all there.
            pieces.append(self._replaced(piece))
            room -= pieces[-1].nbytes
            if room < 0:
                raise Refusal(
                    "page_too_large",
                    f"the replacement makes the text more than {_MOST_GROWTH} times as long, near line {page.line} of"
                    f" the input; a page of {as_size(page.nbytes)} cannot grow so much",
                )
        payload = join(pa.concat_arrays(pieces), bare_end=bare) if pieces else b""
        yield dataclasses.replace(page, payload=payload, nbytes=len(payload))

    def flush(self) -> Iterable[Page]:
        """Nothing: a page holds whole lines."""
        return ()

    def _replaced(self, lines: pa.Array) -> pa.Array:
        return pc.replace_substring_regex(lines, self._regex, self._text)


def _pieces(lines: pa.Array) -> Iterator[pa.Array]:
    step = max(1, len(lines) // 16)
    for start in range(0, len(lines), step):
        yield lines.slice(start, step)


def parse(argument: str) -> tuple[str, str]:
    """``/regex/text/`` as its two parts. The first character, whatever it is, is the delimiter; a backslash before it
    takes that meaning away. Raises ``bad_argument``."""
    if len(argument) < 3:
        raise Refusal("bad_argument", f"{argument[:80]!r} is not /regex/text/")
    delimiter, parts, part, index = argument[0], [], "", 1
    while index < len(argument):
        letter = argument[index]
        if letter == "\\" and argument[index + 1 : index + 2] == delimiter:
            part += delimiter
            index += 1
        elif letter == "\\" and index + 1 < len(argument):
            part += argument[index : index + 2]
            index += 1
        elif letter == delimiter:
            parts.append(part)
            part = ""
        else:
            part += letter
        index += 1
    if len(parts) != 2 or part or not parts[0]:
        raise Refusal(
            "bad_argument",
            f"{argument[:80]!r} is not {delimiter}regex{delimiter}text{delimiter}"
            " (a backslash before the delimiter makes it a plain character)",
        )
    return parts[0], parts[1]


def join_replace(given: Mapping[str, str]) -> str:
    """``regex`` and ``text`` as the argument that ``parse`` takes apart. Raises ``bad_argument``."""
    if set(given) != {"regex", "text"}:
        raise Refusal("bad_argument", "its argument is a text, or an object with regex, text")
    quoted = (given[word].replace("\\", "\\\\").replace("/", "\\/") for word in ("regex", "text"))
    return "/" + "".join(f"{word}/" for word in quoted)
