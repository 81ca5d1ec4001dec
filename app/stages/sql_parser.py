"""DuckDB's own parser, as a function from text to tree: nothing is bound, nothing runs."""

from __future__ import annotations

import atexit
import json
import re
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import duckdb

from app.core.errors import Refusal

VERBS: dict[str, tuple[str, str]] = {
    "where": (" WHERE (\n", "\n)"),
    "select": (" SELECT\n", "\n"),
    "derive": (" SELECT *,\n", "\n"),
    "aggregate": (" SELECT\n", "\n"),
    "distinct": (" SELECT\n", "\n"),
}
"""What stands before and behind the text of a clause, after ``FROM input``. A ``sql`` step is a query by itself."""

Node = Mapping[str, Any]
"""An expression in DuckDB's tree: ``class``, ``type``, ``query_location`` in bytes, and fields of its own."""

_MOST_CHARACTERS = 8000
# An opening parenthesis that is never closed costs the parser the square of their number: 0.1 s for 400 of them.
_MOST_PARENTHESES = 400
_DEEPEST = 100
_SHORT_CHARACTERS, _KEPT_TEXTS = 1000, 32
"""What the parser says takes up to some hundred bytes for each character; short texts are asked for again and again."""
_CASE_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\b(case|when|end)\b", re.IGNORECASE | re.DOTALL)

_connection: duckdb.DuckDBPyConnection | None = None
_opening = threading.Lock()


def open_parser() -> duckdb.DuckDBPyConnection:
    """The connection that parses, shared by the process. It opens with the first call: 35 MiB, once a process."""
    global _connection
    with _opening:
        if _connection is None:
            _connection = duckdb.connect(
                ":memory:",
                config={
                    "memory_limit": "32MiB",
                    "max_expression_depth": str(_DEEPEST),
                    "threads": "1",
                    "async_threads": "0",
                    "enable_external_access": "false",
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "python_enable_replacements": "false",
                    "lock_configuration": "true",
                },
            )
            atexit.register(_connection.close)
        return _connection


def parse_tree(kind: str, text: str) -> Node:
    """The tree of ``FROM input WHERE text`` or ``FROM input SELECT text``, or of the query ``text`` ("sql"), of exactly
    one statement.

    Raises ``bad_sql`` with the position in ``text``.
    """
    _check_raw(text)
    return _tree(kind, text, before(kind) + text + "\n")


def check_enclosed(kind: str, text: str) -> None:
    """Raise ``bad_sql`` unless ``text`` can stand within parentheses, as it does in a query: a semicolon cannot."""
    head, tail = VERBS.get(kind, ("\n", "\n"))
    start = "" if kind == "sql" else "FROM input"
    _tree(kind, text, f"FROM ({start}{head}{text}{tail}) AS input")


def before(kind: str) -> str:
    """What stands before the text of a clause in the statement that ``parse_tree`` parses."""
    return "" if kind == "sql" else "FROM input" + VERBS[kind][0].replace("(", "")


def walk(tree: object) -> Iterator[Node]:
    """All expressions in ``tree``, whatever field they stand in, each before those within it."""
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if "class" in here:
                yield here
            waiting += list(here.values())[::-1]
        elif isinstance(here, list | tuple):
            waiting += here[::-1]


def literal(node: Node) -> str | None:
    """The text of a literal; None for any other expression."""
    return str(node["literal"]["text"]) if node["class"] == "CONSTANT" else None


def character(text: str, byte: int) -> int:
    """The offset in characters of an offset in bytes, within ``text``."""
    octets = text.encode()
    return len(octets[: max(0, min(byte, len(octets)))].decode(errors="ignore"))


def _check_raw(text: str) -> None:
    """Refuse what the parser should not see: it would not be wrong, but take too long or too much memory."""

    def refuse(detail: str, position: int = 0) -> NoReturn:
        raise Refusal("bad_sql", detail, position=position)

    if not text.strip():
        refuse("the expression is empty")
    if len(text) > _MOST_CHARACTERS:
        refuse(f"the expression has {len(text)} characters, at most {_MOST_CHARACTERS} are read", _MOST_CHARACTERS)
    if text.count("(") > _MOST_PARENTHESES:
        refuse(f"the expression has more than {_MOST_PARENTHESES} opening parentheses")
    for position, letter in enumerate(text):
        if letter == "\0" or "\ud800" <= letter <= "\udfff":
            refuse(f"the expression has a character that is not text (U+{ord(letter):04X})", position)
    # The tree repeats what stands between CASE and WHEN for each WHEN: nested, it outgrows any memory.
    when_seen: list[bool] = []
    for match in _CASE_WORDS.finditer(text):
        word = (match[1] or "").lower()
        if word == "case":
            if False in when_seen:
                refuse("a CASE cannot stand between the CASE and the WHEN of another one", match.start())
            when_seen.append(False)
        elif word and when_seen:
            when_seen.pop()
            if word == "when":
                when_seen.append(True)


def _tree(kind: str, text: str, sql: str) -> Node:
    try:
        tree = json.loads(_kept_json(sql) if len(sql) <= _SHORT_CHARACTERS else _json(sql))
    except (duckdb.Error, RecursionError, ValueError):
        raise Refusal("bad_sql", "the expression is too large or nested too deeply", position=0) from None
    if not tree["error"] and len(tree["statements"]) == 1:
        node: Node = tree["statements"][0]["node"]
        return node
    what = {"where": "one condition", "sql": "one SELECT"}.get(kind, "a list of columns and expressions")
    reason = str(tree.get("error_message", "there is more than one statement")).partition("\n")[0]
    byte = int(tree.get("position") or 0) - len(sql[: sql.index(text)].encode())
    if "depth limit" in reason:
        raise Refusal("bad_sql", f"the expression is nested more than {_DEEPEST} levels deep", position=0)
    if byte < 0:
        raise Refusal("bad_sql", f"it must be {what}, and nothing else", position=max(0, text.find(";")))
    # In a query string + is read as a space, so where one was meant none is left.
    hint = " (in a URL, + is a space: write %2B)" if " " in text and "+" not in text else ""
    raise Refusal("bad_sql", f"{reason}; it must be {what}{hint}", position=character(text, byte))


@lru_cache(maxsize=_KEPT_TEXTS)
def _kept_json(sql: str) -> str:
    """The text is kept and not its tree, which is made anew each time: who has one moves its places."""
    return _json(sql)


def _json(sql: str) -> str:
    with open_parser().cursor() as cursor:
        (found,) = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("",)
    return str(found)
