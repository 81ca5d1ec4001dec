"""Answers that are not the result itself: a receipt for what is in a store, and a promise for what is still to come."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from app.runs.record import Run


def receipt_response(run: Run) -> Response:
    """201: the result is in a store."""
    assert run.sink is not None
    receipt = {
        "run_id": run.id,
        "url": run.sink,
        "bytes": run.output_bytes,
        "rows": run.rows_out,
        "rows_rejected": run.rows_rejected,
        "parts": run.parts,
        "etag": run.etag,
        "crc32": run.crc32,
        "digest": run.digest,
    }
    return JSONResponse(receipt, 201, headers={"Location": run.sink, "Weir-Run-Id": run.id})


def accepted_response(run: Run, *, preferred: bool = True) -> Response:
    """202: the run goes on without its client (RFC 7240, where that was ``preferred``)."""
    headers = {"Location": f"/v1/runs/{run.id}", "Weir-Run-Id": run.id}
    if preferred:
        headers["Preference-Applied"] = "respond-async"
    return JSONResponse(run.document(), 202, headers=headers)
