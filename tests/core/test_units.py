from __future__ import annotations

import pytest

from app.core.units import as_size, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("512", 512), ("256MiB", 256 << 20), ("1.5 GB", 1_500_000_000), ("64Ki", 65536), ("2k", 2000), ("1TiB", 1 << 40)],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("250ms", 0.25), ("5min", 300), ("1h", 3600), ("2 d", 172800)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "MiB", "12 parsecs", "-1", "1,5GB"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_size(text)
    with pytest.raises(ValueError, match="is not a"):
        parse_seconds(text)


def test_sizes_for_people() -> None:
    assert [as_size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40)] == ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 TiB"]
