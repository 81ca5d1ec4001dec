"""The table of metrics, and the collector that reads what the other rooms' ``statistics()`` say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app.core.budget import BudgetStatistics


@dataclass(frozen=True, slots=True)
class Described:
    """One metric: its full name, kind, labels and meaning."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)

METRICS: tuple[Described, ...] = (
    Described("weir_memory_budget_bytes", "gauge", (), "Bytes that runs may hold at their worst"),
    Described("weir_memory_reserved_bytes", "gauge", (), "Bytes reserved by admitted runs"),
    Described("weir_memory_demand_bytes", "gauge", (), "Bytes that runs in the queue wait for"),
    Described("weir_admission_wait_seconds", "histogram", (), "Time runs waited for the budget", _SECONDS),
    Described("weir_runs_total", "counter", ("mode", "outcome"), "Runs that ended"),
    Described("weir_runs_in_flight", "gauge", ("mode",), "Runs that are accepted or running"),
    Described("weir_run_seconds", "histogram", ("mode",), "Time from acceptance to verdict", _SECONDS),
    Described("weir_first_byte_seconds", "histogram", (), "Time from acceptance to the first result byte", _SECONDS),
    Described("weir_input_bytes_total", "counter", ("format",), "Bytes taken in by runs that ended"),
    Described("weir_output_bytes_total", "counter", ("format", "sink"), "Bytes given out by runs that ended"),
    Described("weir_rows_total", "counter", ("result",), "Rows read, written and rejected by runs that ended"),
    Described("weir_stage_seconds_total", "counter", ("stage", "state"), "Stage time by state: busy, blocked, idle"),
    Described("weir_channel_bytes", "gauge", ("edge",), "Bytes held on the edges of running flows"),
    Described("weir_spool_bytes", "gauge", (), "Bytes on the disk spool"),
    Described("weir_spool_limit_bytes", "gauge", (), "Bytes the disk spool may take"),
    Described("weir_spool_recycled_bytes", "gauge", (), "Bytes of spool files that wait to be written over"),
    Described("weir_kept_files", "gauge", (), "Files that runs left on the spool: results, rejects, bodies that wait"),
    Described("weir_kept_bytes", "gauge", (), "Their bytes, of those on the spool"),
    Described("weir_spool_files", "gauge", (), "Open files of the disk spool"),
    Described("weir_spool_overflows_total", "counter", (), "Results that went to disk as their client did not read"),
    Described("weir_s3_parts_in_flight", "gauge", (), "Parts that are being sent to stores"),
    Described("weir_s3_part_seconds", "histogram", (), "Time that sending a part took, well or not", _SECONDS),
    Described("weir_s3_retries_total", "counter", ("reason",), "Calls to stores that were made again"),
    Described("weir_s3_aborts_total", "counter", ("result",), "Uploads that were aborted, or could not be"),
    Described("weir_s3_open_uploads", "gauge", (), "Writes to stores that are under way or still to be aborted"),
    Described("weir_rejected_total", "counter", ("code",), "Rejected rows by code"),
    Described("weir_event_loop_lag_seconds", "histogram", (), "How late the event loop runs what is due", _LAG),
    Described("weir_pages_leased_bytes", "gauge", (), "Bytes of receive pages that are in use"),
    Described("weir_pages_free_bytes", "gauge", (), "Bytes of receive pages that are kept for the next body"),
    Described("weir_arrow_allocated_bytes", "gauge", (), "Bytes that Arrow's memory pool has handed out"),
)
"""Every metric of ours. Labels are bounded words: never a run's id, a path, or anything a user wrote."""


class SpoolFigures(Protocol):
    """What the collector reads of the spool."""

    @property
    def used_bytes(self) -> int:
        """Bytes on disk."""
        ...

    @property
    def limit_bytes(self) -> int:
        """Bytes it may take."""
        ...

    @property
    def open_files(self) -> int:
        """Files that are open."""
        ...

    @property
    def recycled_bytes(self) -> int:
        """Bytes of files that wait to be written over."""
        ...

    @property
    def overflows(self) -> int:
        """Results that overflowed so far."""
        ...

    @property
    def kept_files(self) -> int:
        """Files that runs left."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Their bytes, of the used ones."""
        ...


class PageFigures(Protocol):
    """What the collector reads of the pool of pages."""

    @property
    def leased_bytes(self) -> int:
        """Bytes of pages that somebody refers to."""
        ...

    @property
    def free_bytes(self) -> int:
        """Bytes of pages that wait to be used again."""
        ...


@dataclass(frozen=True, slots=True)
class Readings:
    """Where the gauges come from: plain functions that look, and change nothing."""

    budget: Callable[[], BudgetStatistics]
    spool: Callable[[], SpoolFigures]
    edges: Callable[[], dict[str, int]]
    in_flight: Callable[[], dict[str, int]]
    parts_in_flight: Callable[[], int]
    open_uploads: Callable[[], int]
    pages: Callable[[], PageFigures]
    arrow_allocated_bytes: Callable[[], int]


class Metrics:
    """The registry of one server. Counters and histograms are fed at a run's end; gauges are read when asked for."""

    def __init__(self, readings: Readings) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._histograms = {
            d.name: Histogram(d.name, d.help, d.labels, buckets=d.buckets, registry=self.registry)
            for d in METRICS
            if d.kind == "histogram"
        }
        self._counters = {
            d.name: Counter(d.name, d.help, d.labels, registry=self.registry)
            for d in METRICS
            if d.kind == "counter" and d.name != "weir_spool_overflows_total"
        }
        self.registry.register(_Gauges(readings))

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter of the table."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value into a histogram of the table."""
        histogram = self._histograms[name]
        (histogram.labels(**labels) if labels else histogram).observe(value)


class _Gauges(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        budget, spool, pages = self._readings.budget(), self._readings.spool(), self._readings.pages()
        plain = {
            "weir_memory_budget_bytes": budget.limit_bytes,
            "weir_memory_reserved_bytes": budget.reserved_bytes,
            "weir_memory_demand_bytes": budget.demand_bytes,
            "weir_spool_bytes": spool.used_bytes,
            "weir_spool_limit_bytes": spool.limit_bytes,
            "weir_spool_files": spool.open_files,
            "weir_spool_recycled_bytes": spool.recycled_bytes,
            "weir_kept_files": spool.kept_files,
            "weir_kept_bytes": spool.kept_bytes,
            "weir_s3_parts_in_flight": self._readings.parts_in_flight(),
            "weir_s3_open_uploads": self._readings.open_uploads(),
            "weir_pages_leased_bytes": pages.leased_bytes,
            "weir_pages_free_bytes": pages.free_bytes,
            "weir_arrow_allocated_bytes": self._readings.arrow_allocated_bytes(),
        }
        labelled = {
            "weir_channel_bytes": self._readings.edges(),
            "weir_runs_in_flight": self._readings.in_flight(),
        }
        for described in METRICS:
            if described.name in plain:
                yield GaugeMetricFamily(described.name, described.help, value=plain[described.name])
            elif described.name in labelled:
                family = GaugeMetricFamily(described.name, described.help, labels=described.labels)
                for label, value in labelled[described.name].items():
                    family.add_metric([label], value)
                yield family
        overflows = Metric("weir_spool_overflows", "Results that went to disk as their client did not read", "counter")
        overflows.add_sample("weir_spool_overflows_total", {}, spool.overflows)
        yield overflows
