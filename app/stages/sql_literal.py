"""Literals of SQL as what columns are compared and computed with, where that is exact."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa
import pyarrow.types as pt

from app.stages.sql_parser import Node, literal

_MOST_DIGITS = 15
"""A decimal of so many digits becomes the nearest float by one division, as in DuckDB."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal, or one that is cast to a time: what it is called in the tree, and its text."""

    kind: str
    text: str


def constant(node: Node) -> Constant | None:
    """``node`` as a number, a text, or a text that is cast to a time."""
    text = literal(node)
    if text is not None:
        kind = str(node["literal"]["kind"])
        return Constant(kind, text) if kind in ("INTEGER", "NUMERIC", "STRING", "BOOLEAN") else None
    if node["class"] != "CAST" or node["try_cast"] or not is_text(node["child"]):
        return None
    kind = str(node["type_expr"]["type_name"]).upper()
    return Constant(kind, literal(node["child"]) or "") if kind in ("DATE", "TIMESTAMP") else None


def is_text(node: Node) -> bool:
    """``node`` is a text in quotes."""
    return literal(node) is not None and node["literal"]["kind"] == "STRING"


def pattern(node: Node) -> tuple[str, str] | None:
    """The kernel of Arrow, and its argument, that finds a pattern of LIKE without a wildcard but a percent sign at an end."""
    if not is_text(node):
        return None
    text = literal(node) or ""
    inner = text.strip("%")
    if not inner or "%" in inner or "_" in inner or "\\" in inner or len(text) - len(inner) > 2:
        return None
    if text == f"%{inner}%":
        return "match_substring", inner
    if text == f"{inner}%":
        return "starts_with", inner
    return ("ends_with", inner) if text == f"%{inner}" else None


def scalar(constant: Constant, type_: pa.DataType) -> pa.Scalar | None:
    """``constant`` as what it is compared as with a column of ``type_``; None unless that is exact."""
    kind, text = constant.kind, constant.text
    if pt.is_float64(type_) and kind in ("INTEGER", "NUMERIC"):
        digits = text.strip("-").replace(".", "").lstrip("0")
        return pa.scalar(float(text), type_) if "e" in text.lower() or len(digits) <= _MOST_DIGITS else None
    if pt.is_signed_integer(type_) and kind == "INTEGER":
        return pa.scalar(int(text), type_) if abs(int(text)) < 2 ** (type_.bit_width - 1) else None
    if pt.is_string(type_) and kind == "STRING":
        return pa.scalar(text, type_)
    if pt.is_boolean(type_) and kind == "BOOLEAN":
        return pa.scalar(text == "true", type_)
    try:
        if pt.is_decimal128(type_) and kind in ("INTEGER", "NUMERIC") and "e" not in text.lower():
            return pa.scalar(Decimal(text)).cast(type_)
        if pt.is_date32(type_) and kind in ("DATE", "STRING") and _DATE.fullmatch(text):
            return pa.scalar(datetime.date.fromisoformat(text), type_)
        is_time = _DATE.fullmatch(text) or _TIME.fullmatch(text)
        if is_time and pt.is_timestamp(type_) and type_.tz is None and kind in ("DATE", "TIMESTAMP", "STRING"):
            return pa.scalar(datetime.datetime.fromisoformat(text), pa.timestamp("us")).cast(type_)
    except (ValueError, pa.ArrowException):
        pass
    return None
