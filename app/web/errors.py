"""The one place that knows the HTTP status of an error: refusals as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from app.core.errors import CODES, Refusal

STATUS: dict[str, int] = {
    **dict.fromkeys(
        (
            "bad_pipeline",
            "unknown_parameter",
            "unknown_step",
            "unknown_format",
            "bad_argument",
            "bad_sql",
            "bad_lookup",
            "bad_framing",
        ),
        400,
    ),
    "forbidden": 403,
    "not_found": 404,
    "not_acceptable": 406,
    "too_slow": 408,
    **dict.fromkeys(("conflict", "object_changed"), 409),
    "gone": 410,
    "precondition_failed": 412,
    "range_not_satisfiable": 416,
    **dict.fromkeys(
        (
            "body_too_large",
            "expansion_too_large",
            "page_too_large",
            "state_too_large",
            "never_fits",
            "object_too_large",
        ),
        413,
    ),
    "unsupported_type": 415,
    **dict.fromkeys(
        (
            "empty_input",
            "ragged_row",
            "bad_value",
            "bad_encoding",
            "bad_json",
            "unexpected_field",
            "late_row",
            "record_too_long",
            "too_many_rejects",
            "truncated_input",
            "corrupt_input",
            "bad_computation",
            "missing_key",
            "key_reused",
        ),
        422,
    ),
    **dict.fromkeys(("stage_failed", "sink_failed", "source_failed", "server_failed"), 500),
    "store_failed": 502,
    **dict.fromkeys(
        (
            "interrupted",
            "state_failed",
            "spool_failed",
            "budget_full",
            "shutting_down",
            "client_gone",
            "cancelled",
            "stalled",
        ),
        503,
    ),
    "spool_full": 507,
}


def problem(refusal: Refusal, *, run_id: str | None = None, instance: str | None = None) -> Response:
    """The answer to a request that was refused."""
    status = STATUS[refusal.code]
    document: dict[str, Any] = {
        "type": f"urn:weir:error:{refusal.code}",
        "title": CODES[refusal.code],
        "status": status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    optional = {
        "run_id": run_id,
        "instance": instance,
        "line": refusal.line,
        "byte": refusal.byte,
        "column": refusal.column,
        "position": refusal.position,
    }
    document |= {key: value for key, value in optional.items() if value is not None}
    headers = {"Weir-Run-Id": run_id} if run_id else {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(int(refusal.retry_after_s))
    return Response(orjson.dumps(document), status, headers, "application/problem+json")


def problem_of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to what the router itself refuses (404, 405)."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_")
    document = {"type": f"urn:weir:error:{code}", "title": phrase, "status": status, "detail": detail, "code": code}
    return Response(orjson.dumps(document), status, headers, media_type="application/problem+json")
