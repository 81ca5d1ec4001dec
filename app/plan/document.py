"""A document becomes the words of the URL that spells the same."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from app.core.errors import Refusal, known
from app.plan.plan import Plan
from app.plan.words import WORDS, plan_of_query
from app.stages import find_step


def plan_of_text(text: str, name: str) -> Plan:
    """The plan in the text of a YAML or JSON document (JSON is YAML); ``name`` is for the refusal."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refusal("bad_pipeline", f"the pipeline {name[:80]} cannot be read: {error}") from error
    return plan_of_document(document)


def plan_of_document(document: object) -> Plan:
    """The plan that a document spells: ``{"from": …, "to": …, "steps": [{"where": "…"}, "upper", …]}``."""
    if isinstance(document, dict) and "pipeline" in document:
        raise Refusal("unknown_parameter", "a pipeline document cannot name another pipeline")
    return plan_of_query(items_of_document(document))


def items_of_document(document: object) -> list[tuple[str, str]]:
    """A document as the URL parameters that spell the same."""
    if not isinstance(document, dict):
        raise Refusal("bad_pipeline", "a pipeline document is an object with from, to and steps")
    items: list[tuple[str, str]] = []
    for key, value in document.items():
        if key == "steps":
            continue
        if key not in WORDS:
            raise Refusal("unknown_parameter", f"{str(key)[:80]!r} is not one of {known(WORDS)}, steps")
        if key in ("overwrite", "header") and isinstance(value, bool):
            value = str(value).lower()
        if key == "null" and isinstance(value, list):
            value = ",".join(_scalar(key, spelling) for spelling in value)
        items.append((key, _types_text(value) if key == "types" else _scalar(key, value)))
    listed = document.get("steps", [])
    if not isinstance(listed, list):
        raise Refusal("bad_pipeline", "steps is a list of {step: argument}")
    steps = [_step_of_document(entry) for entry in listed]
    for name, _ in steps:
        find_step(name)
    return [*items, *steps]


def _step_of_document(entry: object) -> tuple[str, str]:
    if isinstance(entry, str):
        return entry, ""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise Refusal("bad_pipeline", "a step is a name, or an object with one key: {step: argument}")
    ((name, argument),) = entry.items()
    if isinstance(argument, dict):
        return name, _argument_of_words(str(name), argument)
    return name, _scalar(str(name), argument)


def _argument_of_words(name: str, words: Mapping[str, object]) -> str:
    """An argument that is an object, as the phrase it stands for; a list in it is what stands between commas."""
    step = find_step(name)
    if step.of_words is None:
        raise Refusal("bad_argument", f"{name}: its argument is a text")
    texts = {
        str(word): ", ".join(_scalar(name, entry) for entry in value)
        if isinstance(value, list)
        else _scalar(name, value)
        for word, value in words.items()
    }
    try:
        return step.of_words(texts)
    except Refusal as refusal:
        refusal.detail = f"{name}: {refusal.detail}"
        raise


def _scalar(name: str, value: object) -> str:
    if value is None or value is True:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise Refusal("bad_argument", f"{name}: its argument is a text or a number")


def _types_text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{column}:{type_name}" for column, type_name in value.items())
    return _scalar("types", value)
