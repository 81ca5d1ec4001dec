"""How a CSV file is written, where it is not as RFC 4180 has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.core.errors import Refusal

WORDS = ("header", "delimiter", "quote", "null")
"""What users may say of it."""
_NAMED = {"tab": b"\t", "\\t": b"\t", "space": b" ", "comma": b",", "semicolon": b";", "pipe": b"|"}


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """``delimiter`` is the format's own where it is empty; ``quote`` is one byte; without a ``header`` columns are called
    column0, column1, …; a field without quotes that is one of ``nulls`` is null."""

    delimiter: bytes = b""
    quote: bytes = b'"'
    header: bool = True
    nulls: tuple[str, ...] = ("",)


PLAIN = CsvDialect()


def parse_dialect(words: Mapping[str, str]) -> CsvDialect:
    """What ``words`` say. Raises ``bad_argument``."""
    header = words.get("header", "true")
    if header not in ("true", "false"):
        raise Refusal("bad_argument", f"header={header[:80]!r} is not one of true, false")
    delimiter = _byte("delimiter", words["delimiter"]) if "delimiter" in words else b""
    quote = _byte("quote", words["quote"]) if "quote" in words else PLAIN.quote
    if delimiter == quote or (not delimiter and quote in b",\t"):
        raise Refusal("bad_argument", f"delimiter and quote are both {quote.decode()!r}")
    nulls = tuple(words["null"].split(",")) if "null" in words else PLAIN.nulls
    return CsvDialect(delimiter, quote, header == "true", nulls)


def _byte(word: str, text: str) -> bytes:
    byte = _NAMED.get(text.lower(), text.encode())
    if len(byte) != 1 or byte in b"\r\n\0" or byte >= b"\x80":
        raise Refusal(
            "bad_argument", f"{word}={text[:80]!r} is not one ASCII character (or tab, space, semicolon, pipe)"
        )
    return byte
