"""The rows: which input, what is asked of it, who answers, and how the answers are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

from bench import client, inputs
from bench.client import Sample
from bench.inputs import Input
from bench.servers import Server
from bench.tables import answers
from bench.tables.questions import STEPS, TRUTH
from bench.tables.references import refer

_LOCAL = ("duckdb", "polars", "datafusion")
_PIPED = ("duckdb-pipe", "polars-pipe")
_SCRIPT = {"node": "/filter?quantity_lt=24", "go": "/filter?quantity_lt=24"}
_LINE = ("l_orderkey", "l_linenumber")
_WINDOW = ("window_start", "key")


@dataclass(frozen=True, slots=True)
class Row:
    """``question`` about ``source``, answered as ``target``, which is a format and may be followed by a compression.

    ``key``: the columns that tell the answer's rows apart. By these the answers of the ``unordered`` are sorted before
    they are compared; those of all others must come in the order of what is expected. ``scripts``: where other servers
    offer it. ``lookups``: tables that the question names beside the input.
    """

    name: str
    title: str
    source: str
    question: str
    target: str
    references: tuple[str, ...] = (*_LOCAL, *_PIPED)
    key: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    lookups: tuple[str, ...] = ()


ROWS = (
    Row(
        "filter-csv",
        "CSV, filter and select, to CSV",
        "lineitem.csv",
        "filter",
        "csv",
        key=("l_orderkey", "revenue", "l_shipmode"),
        unordered=("datafusion",),
        scripts=_SCRIPT,
    ),
    Row(
        "filter-ndjson",
        "CSV, filter and select, to NDJSON",
        "lineitem.csv",
        "filter",
        "ndjson",
        key=("l_orderkey", "revenue", "l_shipmode"),
        unordered=("datafusion",),
    ),
    Row(
        "filter-parquet",
        "CSV, filter and select, to Parquet",
        "lineitem.csv",
        "filter",
        "parquet",
        key=("l_orderkey", "revenue", "l_shipmode"),
        unordered=("datafusion",),
    ),
    Row(
        "parquet",
        "CSV to Parquet",
        "lineitem.csv",
        "convert",
        "parquet",
        key=_LINE,
        unordered=("datafusion",),
    ),
    Row(
        "parquet-zstd",
        "CSV to Parquet, zstd",
        "lineitem.csv",
        "convert",
        "parquet zstd",
        key=_LINE,
        unordered=("datafusion",),
    ),
    Row(
        "ndjson-parquet",
        "NDJSON to Parquet",
        "lineitem.ndjson",
        "convert",
        "parquet",
        key=_LINE,
        unordered=("datafusion",),
    ),
    Row("q1-csv", "TPC-H Q1 over CSV", "lineitem.csv", "q1", "ndjson"),
    Row("q6-csv", "TPC-H Q6 over CSV", "lineitem.csv", "q6", "ndjson"),
    Row("q1-ndjson", "TPC-H Q1 over NDJSON", "lineitem.ndjson", "q1", "ndjson"),
    Row("q6-ndjson", "TPC-H Q6 over NDJSON", "lineitem.ndjson", "q6", "ndjson"),
    Row("q1-parquet", "TPC-H Q1 over Parquet", "lineitem.parquet", "q1", "ndjson", references=_LOCAL),
    Row("q6-parquet", "TPC-H Q6 over Parquet", "lineitem.parquet", "q6", "ndjson", references=_LOCAL),
    Row(
        "pipeline",
        "NDJSON parsed, filtered, enriched from 100,000 keys, aggregated",
        "sales.ndjson",
        "pipeline",
        "ndjson",
        references=("duckdb", "polars", "node-script", *_PIPED),
        key=("country",),
        unordered=("duckdb", "polars", "node-script", *_PIPED),
        lookups=("customers",),
    ),
    Row(
        "tumbling",
        "Windows of 10 s, by 1,000 keys",
        "events.csv",
        "tumbling",
        "csv",
        references=("duckdb", "duckdb-pipe"),
        key=_WINDOW,
        unordered=("duckdb", "duckdb-pipe"),
    ),
    Row(
        "sliding",
        "Windows of 60 s, one each 10 s, by 1,000 keys",
        "events.csv",
        "sliding",
        "csv",
        references=("duckdb", "duckdb-pipe"),
        key=_WINDOW,
        unordered=("duckdb", "duckdb-pipe"),
    ),
)
NAMES = tuple(row.name for row in ROWS)


def weir_path(row: Row, target: str) -> str:
    """Where Weir answers it."""
    format_name, _, compression = target.partition(" ")
    asked = {"from": row.source.rpartition(".")[2], **STEPS[row.question], "to": format_name}
    if compression:
        asked["compression"] = compression
    return f"/v1/transform?{urlencode(asked, quote_via=quote)}"


@dataclass(frozen=True, slots=True)
class TableWork:
    """A row with its input at hand; the answers are written to files, as users would. See ``work.Work``."""

    row: Row
    source: Input
    lookups: Mapping[str, Path]
    wanted: Path

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def title(self) -> str:
        return self.row.title

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    @property
    def rows(self) -> int:
        return self.source.rows or 0

    @property
    def references(self) -> Sequence[str]:
        return self.row.references

    @property
    def output(self) -> Path:
        """What is written over and over; pages of a new file cost more than those of one that is there."""
        return inputs.cache_folder() / f"{self.name}.{self.row.target.partition(' ')[0]}"

    def offered_by(self, key: str) -> bool:
        return key == "weir" or key in self.row.scripts

    def prepare(self, key: str, server: Server) -> None:
        pass

    def is_right(self, key: str, server: Server) -> bool:
        self.take(key, server)
        return self._is_right(key)

    def take(self, key: str, server: Server) -> float:
        path = self.row.scripts[key] if key in self.row.scripts else weir_path(self.row, self.row.target)
        return client.send(server.url + path, self.source, self.output)

    def finish(self) -> None:
        """The next work writes to a file of its own."""
        self.output.unlink(missing_ok=True)

    def refer(self, key: str) -> Sample:
        self.output.touch()
        return refer(key, self.row.question, self.source, self.row.target, self.output, self.lookups)

    def is_reference_right(self, key: str) -> bool:
        return self._is_right(key)

    def _is_right(self, key: str) -> bool:
        sort_by = self.row.key if key in self.row.unordered else ()
        return answers.is_right(self.output, self.row.target.partition(" ")[0], self.wanted, sort_by)


def tables(only: Sequence[str], scale: float, records: int, events: int) -> list[TableWork]:
    """The rows that are asked for, their inputs and answers made: TPC-H lineitem, sales for the pipeline, and events."""
    made: dict[str, Callable[[str], Input]] = {
        "lineitem": lambda format_name: inputs.lineitem(scale, format_name),
        "sales": lambda _: inputs.sales(records),
        "events": lambda _: inputs.events(events),
    }
    works = []
    for row in ROWS:
        if row.name in only:
            name, _, format_name = row.source.partition(".")
            source = made[name](format_name)
            lookups = {name: inputs.lookup(name) for name in row.lookups}
            # The order of a question that has none is that of Weir's groups: by their keys.
            key = row.key if {*row.unordered} >= {*row.references} else ()
            works.append(TableWork(row, source, lookups, answers.expected(source, TRUTH[row.question], key, lookups)))
    return works
