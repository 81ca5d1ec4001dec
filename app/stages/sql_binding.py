"""Puts clauses together into one query that fits the columns of the input, and tells what DuckDB has against it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from app.core.errors import Refusal
from app.framing.needs import folded
from app.stages.sql_clause import Clause, place, steps_of
from app.stages.sql_expression import suggest
from app.stages.sql_functions import VALUE_NAMES
from app.stages.sql_parser import VERBS, character
from app.stages.sql_types import KEY, plain_type, quoted

_MOST_COLUMNS_TOLD = 20
_LONGEST_REASON = 300
_DESCRIBE = "DESCRIBE "
# DuckDB's kinds of errors that come from values.
_COMPUTATIONS = frozenset(("Conversion", "Out of Range", "Invalid Input", "Mismatch Type", "Not implemented"))
# Advice to change settings, which are locked.
_ADVICE = re.compile(r",? (or|Use|use|You can) [^.]*\bSET\b.*| in FROM clause|!$", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """Some of a clause's text, and the byte at which it stands in the query."""

    clause: Clause
    byte: int
    text: str
    offset: int


@dataclass(frozen=True)
class Bound:
    """A query over ``input``, and where the texts of clauses stand in it."""

    sql: str
    pieces: tuple[Piece, ...] = ()

    @property
    def steps(self) -> str:
        """The clauses' kinds, in a word."""
        return steps_of(piece.clause for piece in self.pieces)

    def failure(self, error: Exception, where: str) -> Refusal:
        """What went wrong while it ran, in rows that ``where`` tells of."""
        told = _told(error)
        if told.kind == "Out of Memory":
            return self._too_large(told.reason)
        if told.kind not in _COMPUTATIONS:
            return Refusal("stage_failed", f"{self.steps}: {told.reason}")
        hint = "; try_cast gives NULL instead" if told.kind == "Conversion" else ""
        detail = f"{told.reason}{hint} ({where})"
        found = self.place(told.byte)
        if found is not None:
            clause, byte = found
            return Refusal("bad_computation", f"{clause.kind}: {detail}", position=character(clause.text, byte))
        return Refusal("bad_computation", f"{self.steps}: {detail}")

    def place(self, byte: int | None) -> tuple[Clause, int] | None:
        """The clause, and the byte of its text, that stand at a byte of the query."""
        for piece in self.pieces:
            if byte is not None and 0 <= byte - piece.offset <= len(piece.text.encode()):
                return piece.clause, piece.byte + byte - piece.offset
        return None

    def within(self, head: str, tail: str) -> Bound:
        """This query with text around it."""
        shift = len(head.encode())
        pieces = (Piece(p.clause, p.byte, p.text, p.offset + shift) for p in self.pieces)
        return Bound(head + self.sql + tail, tuple(pieces))

    def followed_by(self, tail: str) -> Bound:
        """This query as the rows that ``tail`` is about."""
        return self.within("FROM (", f") AS input{tail}") if self.pieces else Bound(f"FROM input{tail}")

    def with_text(self, clause: Clause, part: int) -> Bound:
        """This query, and behind it the text of a part of ``clause``."""
        byte, text = clause.parts[part]
        return Bound(self.sql + text, (*self.pieces, Piece(clause, byte, text, len(self.sql.encode()))))

    def extended(self, clause: Clause, columns: Sequence[str]) -> Bound:
        """This query with ``clause`` behind it; ``columns`` are those that come to it."""
        if clause.kind == "sql":
            assert not self.pieces, "it reads the table that the input is"
            bound = Bound(clause.glue[0])
            for part, behind in enumerate(clause.glue[1:]):
                bound = bound.with_text(clause, part).within("", behind)
            return bound
        if clause.kind == "aggregate":
            return self._grouped(clause)
        if clause.kind == "distinct":
            return self._keyed(clause, columns)
        head, tail = VERBS[clause.kind]
        return self.followed_by(head).with_text(clause, 0).within("", tail)

    def _grouped(self, clause: Clause) -> Bound:
        """Groups come in the order of their keys: whoever asks twice gets the same answer."""
        head, tail = VERBS["aggregate"]
        bound = self.followed_by(head).with_text(clause, 0)
        if clause.keys:
            keys = [str(number + 1) for number in range(clause.keys)]
            order = ", ".join(f"{key} NULLS LAST" for key in keys)
            bound = bound.within("", "\n, ").with_text(clause, 1)
            tail += f"GROUP BY {', '.join(keys)} ORDER BY {order}"
        return bound.within("", tail)

    def _keyed(self, clause: Clause, columns: Sequence[str]) -> Bound:
        """All rows, and behind their columns the bytes that tell them apart; see ``DistinctKeys``."""
        nodes = [node for node in clause.levels[0].entries if node["class"] == "COLUMN_REF"]
        found = [(".".join(map(quoted, node["column_names"])), place(node)) for node in nodes]
        bound, between = self.followed_by(" SELECT *, create_sort_key("), ""
        for key, byte in found or [(quoted(name), 0) for name in columns]:
            bound = bound.within("", between)
            bound = Bound(bound.sql + key, (*bound.pieces, Piece(clause, byte, key, len(bound.sql.encode()))))
            between = ", 'ASC NULLS LAST', "
        return bound.within("", f", 'ASC NULLS LAST') AS {quoted(KEY)}")

    def _too_large(self, reason: str) -> Refusal:
        if not any(piece.clause.is_whole for piece in self.pieces):
            detail = "the values of one page need more memory than a page may take"
            return Refusal("page_too_large", f"{self.steps}: {detail}")
        if "offload" in reason:
            return Refusal("spool_full", f"{self.steps}: what it has to remember outgrows SPOOL_LIMIT on disk")
        detail = "what it has to remember outgrows QUERY_MEMORY, though it writes to disk what it can"
        return Refusal("state_too_large", f"{self.steps}: {detail}; raise it, or select fewer columns first")


def bind(connection: duckdb.DuckDBPyConnection, clauses: Sequence[Clause], columns: Sequence[str]) -> Bound:
    """The query, once each clause fits the ``columns`` that come to it; the relation ``input`` is not read yet.

    Raises ``bad_sql`` with the position in the text of the clause.
    """
    bound = Bound("input")
    for clause in clauses:
        bound = bound.extended(clause, columns)
        try:
            _check_names(clause, columns)
            if clause.inside is not None:  # around it, DuckDB gives a column that is there twice another name
                inside = Bound("input").extended(clause.inside, columns)
                _check_distinct(clause.inside, _described(connection, inside, columns))
            columns = _described(connection, bound, columns)
            _check_distinct(clause, columns)
        except Refusal as refusal:
            refusal.detail = f"{clause.kind}: {refusal.detail}"
            raise
    return plain(connection, bound)


def plain(connection: duckdb.DuckDBPyConnection, bound: Bound) -> Bound:
    """``bound`` with columns of plain types; see ``plain_type``."""
    relation = connection.sql(bound.sql)
    casts = [
        f"CAST({quoted(name)} AS {type_}) AS {quoted(name)}"
        for name, type_ in zip(relation.columns, map(plain_type, relation.types), strict=True)
        if type_ is not None
    ]
    return bound.followed_by(f" SELECT * REPLACE ({', '.join(casts)})") if casts else bound


def _described(connection: duckdb.DuckDBPyConnection, bound: Bound, columns: Sequence[str]) -> list[str]:
    """The names of the columns that ``bound`` gives."""
    try:
        return [str(row[0]) for row in connection.execute(_DESCRIBE + bound.sql).fetchall()]
    except duckdb.Error as error:
        told = _told(error)
        clause = bound.pieces[-1].clause
        found = bound.place(None if told.byte is None else told.byte - len(_DESCRIBE))
        byte = found[1] if found is not None and found[0] is clause else 0
        if told.missing is not None:
            raise _missing(clause, byte, told.missing, columns) from None
        # Such as "missing ): (" for a regular expression.
        raise clause.refusal(byte, told.reason if told.byte is not None else f"it cannot run: {told.reason}") from None


def _check_names(clause: Clause, columns: Sequence[str]) -> None:
    """Refuse names that are no columns and that DuckDB would not miss."""
    if len(clause.levels) > 1:
        columns = [*columns, *(node["alias"] for level in clause.levels for node in level.entries)]
    known = {folded(name) for name in columns} | {folded(node["alias"]) for node in clause.entries}
    for node in clause.expressions:
        names = [str(entry["key"]["column"]) for entry in node.get("rename_list", ())]
        if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1:
            is_column = clause.kind == "distinct"  # and no value, such as current_date
            names = [name for name in node["column_names"] if is_column or name.lower() in VALUE_NAMES]
        for name in names:
            if folded(name) not in known:
                raise _missing(clause, place(node), name, columns)


def _check_distinct(clause: Clause, columns: Sequence[str]) -> None:
    seen: set[bytes] = set()
    for name in columns:
        if folded(name) in seen:
            entries = [
                node
                for node in clause.entries
                if folded(node["alias"] or (node.get("column_names") or [""])[-1]) == folded(name)
            ]
            detail = f"a column called {name!r} is there already (case is ignored); give another name with AS"
            clause.refuse(detail, entries[-1] if entries else None)
        seen.add(folded(name))


def _missing(clause: Clause, byte: int, name: str, columns: Sequence[str]) -> Refusal:
    told = ", ".join(columns[:_MOST_COLUMNS_TOLD])
    more = f" and {len(columns) - _MOST_COLUMNS_TOLD} more" if len(columns) > _MOST_COLUMNS_TOLD else ""
    return clause.refusal(byte, f"there is no column {name!r}{suggest(name, columns)}; columns are {told}{more}")


def reason_of(error: Exception) -> str:
    """What DuckDB's ``error`` says, without advice and traces."""
    return _told(error).reason


@dataclass(frozen=True)
class _Told:
    """DuckDB's error: its kind, the first line of its text, the place in the query, a column that is not there."""

    kind: str
    reason: str
    byte: int | None
    missing: str | None


def _told(error: Exception) -> _Told:
    text = str(error)
    try:
        # "Binder Error: {...}", once more within the text of pyarrow's error if the reader failed.
        document = json.JSONDecoder().raw_decode(text, text.index("{"))[0]
        message = str(document["exception_message"])
    except (ValueError, KeyError, TypeError):
        document, message = {}, text.partition("Error: ")[2] or text
    reason = _ADVICE.sub("", message.partition("\n")[0])[:_LONGEST_REASON].rstrip(" .!")
    position = document.get("position")
    missing = document.get("name") if document.get("error_subtype") == "COLUMN_NOT_FOUND" else None
    return _Told(str(document.get("exception_type", "")), reason, int(position) if position else None, missing)
