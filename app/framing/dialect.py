"""The words that tell how a text is written: ``header``, ``delimiter``, ``quote``, ``null``, ``encoding``, ``infer``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.core.errors import Refusal, known
from app.framing.charset import find_charset

DIALECT_WORDS = ("header", "delimiter", "quote", "null")
"""What CSV alone has."""
READING_WORDS = (*DIALECT_WORDS, "encoding", "infer")

_NAMED = {"tab": b"\t", r"\t": b"\t"}
_MOST_NULLS = 100


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a CSV file is written. ``delimiter`` and ``quote`` are one ASCII byte each, and differ; a ``quote`` of none at
    all means that nothing is quoted, and lines are records. Without a ``header`` the columns are ``column0``,
    ``column1``, ... ``nulls`` are the unquoted texts that stand for null."""

    delimiter: bytes = b","
    quote: bytes = b'"'
    header: bool = True
    nulls: tuple[str, ...] = ("",)


def check_reading(words: Mapping[str, str]) -> None:
    """Raise ``bad_argument`` for the first of ``READING_WORDS`` whose value cannot be read."""
    csv_dialect(words, delimiter=b",")
    find_charset(words.get("encoding", ""))
    if words.get("infer", "first") not in ("first", "full"):
        raise Refusal("bad_argument", f"infer={words['infer'][:80]!r} is not one of first, full")


def check_words_fit(words: Mapping[str, str], name: str, takes: tuple[str, ...]) -> None:
    """Raise ``bad_pipeline`` if ``words`` has one that the format ``name`` does not take."""
    for word in words:
        if word not in takes:
            hint = "; say from=lines if it is text" if name == "bytes" and word == "encoding" else ""
            does = f"{name} takes {known(takes or ['no such word'])}"
            raise Refusal("bad_pipeline", f"{word}= does not apply to input in {name}: {does}{hint}")


def csv_dialect(words: Mapping[str, str], *, delimiter: bytes) -> CsvDialect:
    """The dialect that ``words`` spell, for a format whose usual ``delimiter`` this is. Raises ``bad_argument``."""
    if "delimiter" in words:
        delimiter = _character("delimiter", words["delimiter"])
    quote = b'"'
    if "quote" in words:
        quote = b"" if words["quote"] == "none" else _character("quote", words["quote"])
    if delimiter == quote:
        raise Refusal("bad_argument", f"delimiter and quote are both {quote.decode()!r}: one of them has to be another")
    header = words.get("header", "true")
    if header not in ("true", "false"):
        raise Refusal("bad_argument", f"header={header[:80]!r} is not one of true, false")
    nulls = tuple(dict.fromkeys(words.get("null", "").split(",")))
    if len(nulls) > _MOST_NULLS:
        raise Refusal("bad_argument", f"null= has {len(nulls)} spellings, and may have {_MOST_NULLS}")
    return CsvDialect(delimiter, quote, header == "true", nulls)


def _character(word: str, text: str) -> bytes:
    if word == "delimiter" and text in _NAMED:
        return _NAMED[text]
    if len(text) != 1 or not text.isascii() or text in "\r\n\0":
        also = r", \t or tab" if word == "delimiter" else " or none"
        raise Refusal("bad_argument", f"{word}={text[:80]!r} is not one ASCII character{also}, nor may it end a line")
    return text.encode()
