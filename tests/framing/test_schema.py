"""The user's words for types."""

from __future__ import annotations

import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.framing.schema import parse_types


def test_words_for_types() -> None:
    assert parse_types('a:int, "b,""c":decimal(12,2),d : DECIMAL(5) ,e:timestamptz') == {
        "a": pa.int32(),
        'b,"c': pa.decimal128(12, 2),
        "d": pa.decimal128(5, 0),
        "e": pa.timestamp("us", "UTC"),
    }


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 0, "example"),
        ("a", 0, "column:type"),
        ("a:int,b", 6, "column:type"),
        ("a:int,a:int", 6, "twice"),
        ("a:number", 2, "bigint"),
        ("a:int(3)", 6, "precision"),
        ("a:decimal(39)", 10, "38"),
        ("a:decimal(3,4)", 10, "38"),
    ],
)
def test_what_is_no_type_is_told_with_its_place(text: str, position: int, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_types(text)
    assert (caught.value.code, caught.value.position) == ("bad_argument", position)
    assert says in caught.value.detail
