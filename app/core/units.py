"""Sizes and times as operators write them: ``256MiB``, ``1.5 GB``, ``30s``, ``5 min``."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SIZES = {"": 1, "b": 1} | {
    prefix + suffix: factor**power
    for factor, suffixes in ((1000, ("", "b")), (1024, ("i", "ib")))
    for suffix in suffixes
    for power, prefix in enumerate("kmgt", start=1)
}
_TIMES = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def parse_size(text: str) -> int:
    """Bytes from ``512``, ``64KiB``, ``1.5GB``. Raises ``ValueError`` that names the known units."""
    return int(_quantity(text, _SIZES, "a size such as 256MiB or 1.5GB"))


def parse_seconds(text: str) -> float:
    """Seconds from ``30``, ``250ms``, ``5min``, ``1h``. Raises ``ValueError`` that names the known units."""
    return _quantity(text, _TIMES, "a time such as 30s, 250ms, 5min or 1h")


def as_size(nbytes: int) -> str:
    """``nbytes`` for people: in the largest binary unit that leaves a number of at least 1."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _quantity(text: str, units: Mapping[str, float], wanted: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not {wanted}")
    return float(match[1]) * units[match[2].lower()]
