"""Phrases, taken apart and put together."""

from __future__ import annotations

import pytest

from app.core.errors import Refusal
from app.stages.phrase import Part, join_phrase, split_phrase

WORDS = ("select", "every", "on", "by")


def test_words_count_outside_of_quotes_and_parentheses() -> None:
    phrase = 'sum(x + by) AS "on", \'every\' as "a "" by"  EVERY 10s on ts by a, b'
    parts = split_phrase(phrase, WORDS)
    assert {word: part.text for word, part in parts.items()} == {
        "select": 'sum(x + by) AS "on", \'every\' as "a "" by"',
        "every": "10s",
        "on": "ts",
        "by": "a, b",
    }
    assert all(phrase[part.position :].startswith(part.text) for part in parts.values())


def test_a_head_alone() -> None:
    assert split_phrase(" count(*) as n ", ("select", "by")) == {"select": Part("count(*) as n", 1)}


@pytest.mark.parametrize(
    ("phrase", "said", "position"),
    [
        ("by a", "begins with select", 0),
        ("", "begins with select", 0),
        ("x by", "nothing behind 'by'", 2),
        ("x by a by b", "twice", 7),
    ],
)
def test_what_is_wrong_is_said_with_its_place(phrase: str, said: str, position: int) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        split_phrase(phrase, ("select", "by"))
    assert (caught.value.code, caught.value.position) == ("bad_argument", position)


def test_joined_and_split_again() -> None:
    given = {"by": "a, b", "select": "sum(x) as x", "on": "ts"}
    phrase = join_phrase(given, WORDS)
    assert phrase == "sum(x) as x on ts by a, b"
    assert {word: part.text for word, part in split_phrase(phrase, WORDS).items()} == given
    with pytest.raises(Refusal, match="every, on, by"):
        join_phrase({"select": "x", "where": "y"}, WORDS)
