"""The engine: one task group per run, one channel per edge, worker threads for the stages, a summary at the end.

It knows no stage, no store and no HTTP. Waiting points downstream only, so no cycle of waits can form inside a run. A
channel is closed only by someone who finished well; failure travels as cancellation of the task group, and then the
sink is aborted.
"""

from app.pipeline.flow import Flow
from app.pipeline.options import FlowOptions
from app.pipeline.statistics import FlowStatistics, StageClock

__all__ = ["Flow", "FlowOptions", "FlowStatistics", "StageClock"]
