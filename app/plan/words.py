"""The words of a URL become a plan. What a word names is looked up here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from app.core.errors import Refusal, known
from app.framing import COMPRESSIONS, find_format
from app.framing.dialect import READING_WORDS, check_reading
from app.framing.schema import parse_types
from app.plan.plan import ON_ERROR, OnError, Plan, PlannedStep
from app.stages import STEPS, find_step

WORDS = (
    *("from", "to", "pipeline", *READING_WORDS, "types", "compression"),
    *("on_error", "max_errors", "deliver", "sink", "overwrite"),
)
"""What may stand beside steps, in a URL as in a document."""


def plan_of_query(items: Sequence[tuple[str, str]]) -> Plan:
    """The plan that URL parameters spell: steps in the order written, the other words anywhere, once each."""
    words: dict[str, str] = {}
    steps: list[PlannedStep] = []
    for name, value in items:
        if name in WORDS:
            if name in words:
                raise Refusal("bad_pipeline", f"the parameter {name!r} stands there twice")
            words[name] = value
        elif name in STEPS:
            steps.append(_planned(name, value))
        else:
            raise Refusal(
                "unknown_parameter",
                f"{name[:80]!r} is neither a parameter ({known(WORDS)}) nor a step ({known(STEPS)})",
            )
    return _plan(words, steps)


def _plan(words: Mapping[str, str], steps: Sequence[PlannedStep]) -> Plan:
    source = find_format(words["from"]) if words.get("from") else None
    target = find_format(words["to"]) if words.get("to") else None
    on_error = words.get("on_error", "fail")
    if on_error not in ON_ERROR:
        raise Refusal("bad_argument", f"on_error={on_error[:80]!r} is not one of {known(ON_ERROR)}")
    if words.get("compression", "none") not in COMPRESSIONS:
        raise Refusal("bad_argument", f"compression={words['compression'][:80]!r} is not one of {known(COMPRESSIONS)}")
    if words.get("deliver", "stream") not in ("stream", "whole"):
        raise Refusal("bad_argument", f"deliver={words['deliver'][:80]!r} is not one of stream, whole")
    if words.get("overwrite", "true") not in ("true", "false"):
        raise Refusal("bad_argument", f"overwrite={words['overwrite'][:80]!r} is not one of true, false")
    if words.get("sink") and words.get("deliver") == "whole":
        raise Refusal("bad_pipeline", "deliver=whole and sink= are two places for the result: say one of them")
    reading = {word: words[word] for word in READING_WORDS if word in words}
    check_reading(reading)
    return Plan(
        steps=tuple(steps),
        source=source,
        target=target,
        types=parse_types(words["types"]) if words.get("types") else {},
        reading=reading,
        compression=words.get("compression"),
        on_error=cast("OnError", on_error),
        max_errors=_max_errors(words["max_errors"]) if "max_errors" in words else None,
        whole=words.get("deliver") == "whole",
        pipeline=words.get("pipeline") or None,
        sink=words.get("sink") or None,
        overwrite=words.get("overwrite") != "false",
    )


def _planned(name: str, argument: str) -> PlannedStep:
    step = find_step(name)
    try:
        step.check(argument)
    except Refusal as refusal:
        refusal.detail = f"{name}: {refusal.detail}"
        raise
    return PlannedStep(step, argument)


def _max_errors(text: str) -> int | float:
    """A count, or a share of all rows as a float below 1."""
    number = text.removesuffix("%").strip()
    try:
        if text.endswith("%") and 0 <= (share := float(number)) <= 100:
            return share / 100
        if number.isdecimal():
            return int(number)
    except ValueError:
        pass
    raise Refusal("bad_argument", f"max_errors={text[:80]!r} is neither a number of rows nor a percentage")
