"""What is counted and logged at the end of every run."""

from __future__ import annotations

import logging
from collections.abc import Callable

from app.metrics import Metrics
from app.runs.record import Run

log = logging.getLogger("weir")

_SINKS = {"stream": "response", "whole": "response", "sink": "store", "async": "store"}


def observer(metrics: Metrics) -> Callable[[Run], None]:
    """What is counted and logged at the end of every run."""

    def observe(run: Run) -> None:
        code = run.error.code if run.error is not None else None
        metrics.count("weir_runs_total", mode=run.mode, outcome=run.state)
        metrics.observe("weir_run_seconds", run.elapsed_s, mode=run.mode)
        if run.admission_wait_s is not None:
            metrics.observe("weir_admission_wait_seconds", run.admission_wait_s)
        if run.first_byte_s is not None:
            metrics.observe("weir_first_byte_seconds", run.first_byte_s)
        metrics.count("weir_input_bytes_total", run.input_bytes, format=run.source)
        metrics.count("weir_output_bytes_total", run.output_bytes, format=run.target, sink=_SINKS[run.mode])
        rows = {"read": run.rows_in or 0, "written": run.rows_out or 0, "rejected": run.rows_rejected}
        for result, count in rows.items():
            metrics.count("weir_rows_total", count, result=result)
        for reject, count in run.rejected.items():
            metrics.count("weir_rejected_total", count, code=reject)
        for stage in run.stages:
            for state, seconds in (("busy", stage.busy_s), ("blocked", stage.blocked_s), ("idle", stage.idle_s)):
                metrics.count("weir_stage_seconds_total", max(0.0, seconds), stage=stage.name, state=state)
        level = logging.INFO if run.state == "succeeded" else logging.WARNING
        log.log(
            level,
            "run %s %s%s: %d bytes in, %d out, %.2f s",
            run.id,
            run.state,
            f" ({code})" if code else "",
            run.input_bytes,
            run.output_bytes,
            run.elapsed_s,
        )

    return observe
