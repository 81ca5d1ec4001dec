"""Errors are values with a stable code; only ``web/errors`` knows which HTTP status a code becomes."""

from __future__ import annotations

CODES: dict[str, str] = {
    # the pipeline as it was asked for
    "bad_pipeline": "The pipeline cannot be built",
    "unknown_parameter": "Unknown parameter",
    "unknown_step": "Unknown step",
    "unknown_format": "Unknown format",
    "bad_argument": "A step's argument cannot be read",
    "bad_sql": "The SQL expression cannot be used",
    "bad_lookup": "A lookup table cannot be used",
    "unsupported_type": "Unsupported content type or encoding",
    "not_acceptable": "No format that is asked for can be made",
    # the data
    "empty_input": "The input holds no record",
    "ragged_row": "A row has the wrong number of columns",
    "bad_value": "A value does not fit its column",
    "bad_encoding": "Text is not valid UTF-8",
    "bad_json": "A line is not one JSON object",
    "unexpected_field": "A field was not in the first page",
    "late_row": "A row came after its windows were given",
    "record_too_long": "A record is longer than MAX_LINE",
    "too_many_rejects": "More rejected rows than max_errors allows",
    "truncated_input": "The input ends too early",
    "corrupt_input": "The input cannot be decoded",
    "missing_key": "A key is not in the lookup table",
    "bad_computation": "An expression failed on the data",
    # limits
    "object_too_large": "The result is larger than the parts of one object can be",
    "body_too_large": "The body is larger than MAX_BODY",
    "expansion_too_large": "The data expands more than MAX_EXPANSION allows",
    "state_too_large": "A step has to remember more than there is memory for",
    "page_too_large": "One indivisible piece of the input is larger than the memory that was admitted for it",
    "never_fits": "The run can never fit into MEMORY_BUDGET",
    "budget_full": "The memory budget is taken",
    "spool_full": "The disk spool is full",
    "spool_failed": "The disk spool cannot be used",
    "too_slow": "The client sent nothing for too long",
    "stalled": "The client neither reads nor leaves",
    "bad_framing": "The body is not framed as HTTP says",
    # the run
    "client_gone": "The client left",
    "cancelled": "The run was cancelled",
    "shutting_down": "The server is shutting down",
    "stage_failed": "A stage failed",
    "sink_failed": "The result could not be written",
    "source_failed": "The input could not be read",
    "server_failed": "The server failed",
    "state_failed": "The state of runs could not be read or written",
    "interrupted": "The server ended before the run did",
    "key_reused": "The Idempotency-Key was used for another request",
    # resources
    "forbidden": "This is not allowed",
    "store_failed": "The object store failed",
    "object_changed": "The object changed while it was read",
    "not_found": "There is no such resource",
    "gone": "The resource is no longer kept",
    "conflict": "The resource is not in a state that allows this",
    "precondition_failed": "The resource is not the one that the request is about",
    "range_not_satisfiable": "The resource has no such bytes",
}
"""Every code with its title. A code is a metric label and the key to the HTTP status: bounded, never renamed."""


class Refusal(Exception):
    """Something the user can act on: a stable ``code``, and a ``detail`` that says where and what to do.

    ``line``, ``byte`` and ``column`` locate bad data; ``position`` is an offset in characters into the user's own
    expression; ``retry_after_s`` tells when to come again.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        line: int | None = None,
        byte: int | None = None,
        column: str | None = None,
        position: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        if code not in CODES:
            raise ValueError(f"{code!r} is not in app.core.errors.CODES")
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.line = line
        self.byte = byte
        self.column = column
        self.position = position
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def known(names: object) -> str:
    """The names of a catalogue as one phrase for an error text, in its own order."""
    return ", ".join(str(name) for name in names)  # type: ignore[attr-defined]
