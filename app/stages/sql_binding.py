"""Puts clauses together into one query that fits the columns of the input, and tells what DuckDB has against it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from app.core.errors import Refusal
from app.framing.needs import folded
from app.stages.sql_functions import VALUE_NAMES
from app.stages.sql_parser import VERBS, character, walk
from app.stages.sql_text import Clause, suggest
from app.stages.sql_types import plain_type, quoted

_MOST_COLUMNS_TOLD = 20
_LONGEST_REASON = 300
_AROUND = "FROM ("
_DESCRIBE = "DESCRIBE "
# DuckDB's kinds of errors that come from values.
_COMPUTATIONS = frozenset(("Conversion", "Out of Range", "Invalid Input", "Mismatch Type", "Not implemented"))
# Advice to change settings, which are locked.
_ADVICE = re.compile(r",? (or|Use|use|You can) [^.]*\bSET\b.*| in FROM clause|!$", re.DOTALL)


@dataclass(frozen=True)
class Bound:
    """A query over ``input``, and for each clause the byte at which its text stands in it."""

    sql: str
    clauses: tuple[Clause, ...] = ()
    offsets: tuple[int, ...] = ()

    def failure(self, error: Exception, rows: int) -> Refusal:
        """What went wrong while it ran, with ``rows`` rows of its input read."""
        told = _told(error)
        steps = "/".join(dict.fromkeys(clause.kind for clause in self.clauses))
        if told.kind == "Out of Memory":
            return Refusal("page_too_large", f"{steps}: the values of one page need more memory than a page may take")
        if told.kind not in _COMPUTATIONS:
            return Refusal("stage_failed", f"{steps}: {told.reason}")
        hint = "; try_cast gives NULL instead" if told.kind == "Conversion" else ""
        detail = f"{told.reason}{hint} (among the first {rows:,} rows that came to this step)"
        for clause, offset in zip(self.clauses, self.offsets, strict=True):
            if told.byte is not None and 0 <= told.byte - offset <= len(clause.text.encode()):
                position = character(clause.text, told.byte - offset)
                return Refusal("bad_computation", f"{clause.kind}: {detail}", position=position)
        return Refusal("bad_computation", f"{steps}: {detail}")

    def followed_by(self, tail: str) -> Bound:
        """This query as the rows that ``tail`` is about."""
        if not self.clauses:
            return Bound(f"FROM input{tail}")
        offsets = tuple(len(_AROUND) + byte for byte in self.offsets)
        return Bound(f"{_AROUND}{self.sql}) AS input{tail}", self.clauses, offsets)

    def extended(self, clause: Clause) -> Bound:
        """This query with ``clause`` behind it."""
        head, tail = VERBS[clause.kind]
        inner = self.followed_by(head)
        offsets = (*inner.offsets, len(inner.sql.encode()))
        return Bound(inner.sql + clause.text + tail, (*self.clauses, clause), offsets)


def bind(connection: duckdb.DuckDBPyConnection, clauses: Sequence[Clause], columns: Sequence[str]) -> Bound:
    """The query, once each clause fits the ``columns`` that come to it; the relation ``input`` is not read yet.

    Raises ``bad_sql`` with the position in the text of the clause.
    """
    bound = Bound("input")
    for clause in clauses:
        bound = bound.extended(clause)
        try:
            _check_names(clause, columns)
            columns = _described(connection, bound, columns)
            _check_distinct(clause, columns)
        except Refusal as refusal:
            refusal.detail = f"{clause.kind}: {refusal.detail}"
            raise
    casts = [
        f"CAST({quoted(name)} AS {plain}) AS {quoted(name)}"
        for name, plain in zip(columns, map(plain_type, connection.sql(bound.sql).types), strict=True)
        if plain is not None
    ]
    return bound.followed_by(f" SELECT * REPLACE ({', '.join(casts)})") if casts else bound


def _described(connection: duckdb.DuckDBPyConnection, bound: Bound, columns: Sequence[str]) -> list[str]:
    """The names of the columns that ``bound`` gives."""
    try:
        return [str(row[0]) for row in connection.execute(_DESCRIBE + bound.sql).fetchall()]
    except duckdb.Error as error:
        told = _told(error)
        clause = bound.clauses[-1]
        byte = 0 if told.byte is None else told.byte - len(_DESCRIBE) - bound.offsets[-1]
        if told.missing is not None:
            raise _missing(clause, byte, told.missing, columns) from None
        # Such as "missing ): (" for a regular expression.
        raise clause.refusal(byte, told.reason if told.byte is not None else f"it cannot run: {told.reason}") from None


def _check_names(clause: Clause, columns: Sequence[str]) -> None:
    """Refuse names that are no columns and that DuckDB would not miss."""
    known = {folded(name) for name in columns} | {folded(node["alias"]) for node in clause.expressions}
    for node in walk(clause.expressions):
        names = [str(entry["key"]["column"]) for entry in node.get("rename_list", ())]
        if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1:
            names = [name for name in node["column_names"] if name.lower() in VALUE_NAMES]
        for name in names:
            if folded(name) not in known:
                raise _missing(clause, clause.byte_of(node), name, columns)


def _check_distinct(clause: Clause, columns: Sequence[str]) -> None:
    seen: set[bytes] = set()
    for name in columns:
        if folded(name) in seen:
            entries = [
                node
                for node in clause.expressions
                if folded(node["alias"] or (node.get("column_names") or [""])[-1]) == folded(name)
            ]
            detail = f"a column called {name!r} is there already (case is ignored); give another name with AS"
            clause.refuse(detail, entries[-1] if entries else None)
        seen.add(folded(name))


def _missing(clause: Clause, byte: int, name: str, columns: Sequence[str]) -> Refusal:
    told = ", ".join(columns[:_MOST_COLUMNS_TOLD])
    more = f" and {len(columns) - _MOST_COLUMNS_TOLD} more" if len(columns) > _MOST_COLUMNS_TOLD else ""
    return clause.refusal(byte, f"there is no column {name!r}{suggest(name, columns)}; columns are {told}{more}")


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
