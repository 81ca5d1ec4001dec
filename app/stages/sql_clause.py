"""What a step in SQL is once it was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from app.core.errors import Refusal
from app.stages.sql_parser import Node, character, walk


@dataclass(frozen=True)
class Level:
    """One SELECT: the ``entries`` of its list, and ``others``: conditions, keys, orders.

    ``keeps_columns``: the rows go on with all their columns, and the entries beside them. ``tables``: the names that a
    column may have before it, in lower case.
    """

    entries: tuple[Node, ...] = ()
    others: tuple[Node, ...] = ()
    keeps_columns: bool = False
    tables: frozenset[str] = frozenset(["input"])


@dataclass(frozen=True)
class Clause:
    """A checked step: its kind, the user's text, and what each SELECT in it sees, the innermost first.

    ``query_location`` of every node counts bytes of ``text`` in UTF-8. ``parts`` are the pieces of the text, and where
    they begin, in the order in which they stand in the query. ``keys``: so many of the entries are what rows are grouped
    by. ``is_whole``: rows come only once all of the input is in. ``tree`` is the whole query of a ``sql``; ``glue`` is what
    stands before, between and behind the parts of one that was changed, and ``inside`` the query that it was put around.
    """

    kind: str
    text: str
    levels: tuple[Level, ...]
    parts: tuple[tuple[int, str], ...]
    keys: int = 0
    is_whole: bool = False
    tree: Node | None = None
    glue: tuple[str, ...] = ("", "")
    inside: Clause | None = None

    @property
    def entries(self) -> tuple[Node, ...]:
        """The select list of the outermost SELECT."""
        return self.levels[-1].entries

    @property
    def expressions(self) -> Iterator[Node]:
        """Every expression, each before those within it."""
        for level in self.levels:
            yield from walk((*level.entries, *level.others))

    def shown(self, text: str) -> Clause:
        """This one as a part of ``text``, in which all of it stands at the same place in bytes."""
        return replace(self, text=text, inside=self.inside and self.inside.shown(text))

    def refuse(self, detail: str, node: Node | None = None) -> NoReturn:
        """Raise ``bad_sql`` at ``node``, or at the beginning."""
        raise self.refusal(place(node) if node is not None else 0, detail)

    def refusal(self, byte: int, detail: str) -> Refusal:
        """A ``bad_sql`` at an offset into the text in UTF-8."""
        return Refusal("bad_sql", detail, position=character(self.text, byte))


def steps_of(clauses: Iterable[Clause]) -> str:
    """The kinds of ``clauses``, in a word."""
    return "/".join(dict.fromkeys(clause.kind for clause in clauses)) or "sql"


def place(node: Node) -> int:
    """Where ``node`` stands in the text, in bytes of UTF-8."""
    byte = int(node["query_location"])
    return byte if 0 <= byte < 2**62 else 0  # what stands for nothing in the text is placed at 2**64 - 1
