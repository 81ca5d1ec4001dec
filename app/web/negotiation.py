"""What the headers of a request say about formats and codings (RFC 9110, sections 8 and 12)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from email.message import Message
from urllib.parse import unquote

from app.core.errors import Refusal, known
from app.plan import (
    CODEC_ALIASES,
    CONTENT_CODINGS,
    FORMATS,
    Format,
    Plan,
    check_reading,
    format_of_file_name,
    format_of_media_type,
)

_UNTOLD = ("", "application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data")
"""Content types that say nothing about a file; curl sends the third unasked with --data-binary."""


def media_type(header: str) -> str:
    """A media type without its parameters."""
    return header.partition(";")[0].strip().lower()


def file_name_of(content_disposition: str) -> str:
    """The file name in a Content-Disposition header (RFC 6266), or nothing."""
    message = Message()
    message["content-disposition"] = content_disposition
    return message.get_filename() or ""


def with_source(plan: Plan, *, content_type: str, file_name: str) -> Plan:
    """``plan`` with the input's format from the headers, where the pipeline does not tell; it may stay unknown. So with
    how its text is written, by the parameters ``charset`` and, of CSV, ``header`` (RFC 4180, RFC 7111)."""
    plan = _with_format(plan, content_type, file_name)
    told = format_of_media_type(media_type(content_type))
    if plan.source is None or told is None or (told is not plan.source and told.name != "lines"):
        return plan
    said = {word: value for word, value in _parameters(content_type).items() if word in plan.source.words}
    return replace(plan, reading={**said, **plan.reading})


def _parameters(content_type: str) -> dict[str, str]:
    """The parameters of a media type that tell how text is written, as our words."""
    message = Message()
    message["content-type"] = content_type
    words: dict[str, str] = {}
    charset, header = message.get_param("charset"), message.get_param("header")
    if isinstance(charset, str) and charset:
        words["encoding"] = charset
    if isinstance(header, str):
        if header.lower() not in ("present", "absent"):
            raise Refusal("unsupported_type", f"Content-Type: header={header[:80]!r} is not one of present, absent")
        words["header"] = "false" if header.lower() == "absent" else "true"
    try:
        check_reading(words)
    except Refusal as refusal:
        raise Refusal("unsupported_type", f"Content-Type: {refusal.detail}") from None
    return words


def _with_format(plan: Plan, content_type: str, file_name: str) -> Plan:
    if plan.source is not None:
        return plan
    told = media_type(content_type)
    if told not in _UNTOLD:
        source = format_of_media_type(told)
        if source is None:
            types = [name for format in FORMATS.values() for name in format.media_types]
            raise Refusal("unsupported_type", f"Content-Type {told[:80]!r} is not known; known are {known(types)}")
        return replace(plan, source=source)
    return replace(plan, source=format_of_file_name(unquote(file_name)))


def with_target(plan: Plan, *, accept: str) -> Plan:
    """``plan`` with the output's format: asked for, else what ``Accept`` prefers, else unknown: the input's."""
    if plan.target is not None:
        return plan
    wanted = [(kind, weight) for kind, weight in _weighted(accept) if weight > 0]
    for kind, _ in wanted:
        named = format_of_media_type(kind)
        if named is not None and named.write is not None and kind != "application/octet-stream":
            return replace(plan, target=named)
        if kind in ("*/*", "application/*", "text/*", "application/octet-stream"):
            break
    else:
        if wanted:
            types = [name for format in FORMATS.values() for name in format.media_types]
            raise Refusal("not_acceptable", f"none of {accept[:80]!r} can be made; known are {known(types)}")
    return plan


def ends_its_body_early(user_agent: str, content_length: str) -> bool:
    """Whether the client stops sending once the answer begins, and so needs it to begin when all was sent.

    aiohttp does, 3.14 at least: it closes the file it sends when the head of the answer comes. A body from an
    async generator, which has no length, it sends to the end.
    """
    return "aiohttp/" in user_agent and bool(content_length)


def content_codings(header: str) -> Sequence[str]:
    """The codings of a body, in the order in which they are to be undone. ``unsupported_type`` for one not known."""
    written = [coding.strip().lower() for coding in header.split(",") if coding.strip()]
    codings = [CODEC_ALIASES.get(coding, coding) for coding in written]
    for coding in codings:
        if coding not in (*CONTENT_CODINGS, "identity"):
            raise Refusal(
                "unsupported_type", f"Content-Encoding {coding[:80]!r} is not known; known are {known(CONTENT_CODINGS)}"
            )
    return [coding for coding in reversed(codings) if coding != "identity"]


def accepted_coding(header: str, format: Format) -> str | None:
    """The coding to put on a result: the client's favourite that we have, for text formats only."""
    if not format.text or format.name == "bytes":
        return None
    best: str | None = None
    best_weight = 0.0
    for coding, weight in _weighted(header):
        if coding in CONTENT_CODINGS and weight > best_weight:
            best, best_weight = coding, weight
    identity = next((weight for coding, weight in _weighted(header) if coding == "identity"), 0.0)
    return best if best_weight >= identity else None


def preferred(header: str) -> set[str]:
    """The preferences that a ``Prefer`` header names (RFC 7240), without their values."""
    return {element.partition(";")[0].partition("=")[0].strip().lower() for element in header.split(",")} - {""}


def wants_sha256(header: str) -> bool:
    """Whether ``Want-Repr-Digest`` (RFC 9530) asks for a SHA-256."""
    return any(
        name.strip().lower() == "sha-256" and weight.strip() not in ("", "0")
        for name, _, weight in (element.partition("=") for element in header.split(","))
    )


def _weighted(header: str) -> Iterable[tuple[str, float]]:
    """Elements of a list header with their ``q`` weights, the heaviest first; equals in the order written."""
    elements: list[tuple[str, float]] = []
    for element in header.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if name:
            elements.append((name, weight))
    return sorted(elements, key=lambda element: -element[1])
