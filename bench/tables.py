"""The tables: what is made of TPC-H lineitem, where each server offers it, and how its answer is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from bench import client, inputs
from bench.client import Sample
from bench.inputs import Input
from bench.servers import Server

_FILTER = f"where={quote(inputs.FILTER_WHERE)}&select={quote(inputs.FILTER_SELECT)}"
_SCRIPT = {"node": "/filter?quantity_lt=24", "go": "/filter?quantity_lt=24"}


@dataclass(frozen=True, slots=True)
class TableWork:
    """A table in, a table out, written to ``output`` as users would. It is right if it has the ``figures``.

    ``words`` are those for ``peers/tables.py``: what is done, and the format that it is written in. See ``work.Work``.
    """

    name: str
    title: str
    source: Input
    paths: dict[str, str]
    output: Path
    words: tuple[str, str]
    references: dict[str, str]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    @property
    def rows(self) -> int | None:
        return self.source.rows

    def offered_by(self, key: str) -> bool:
        return key in self.paths

    def prepare(self, key: str, server: Server) -> None:
        pass

    def is_right(self, key: str, server: Server) -> bool:
        self.take(key, server)
        return self.is_reference_right()

    def take(self, key: str, server: Server) -> float:
        return client.send(server.url + self.paths[key], self.source, self.output)

    def finish(self) -> None:
        pass

    def refer(self, engine: str) -> Sample:
        return client.refer(engine, *self.words, self.source, self.output)

    def is_reference_right(self) -> bool:
        found = inputs.table_figures(self.output, self.words[1], filtered=self.words[0] == "filter")
        return not inputs.differences(found, self.figures)


def tables(scale: float) -> list[TableWork]:
    """TPC-H lineitem in CSV; a third of its rows out, or all of it in another format."""
    lineitem = inputs.lineitem(scale)
    filtered = inputs.expected_figures(lineitem.path, filtered=True)
    whole = inputs.expected_figures(lineitem.path, filtered=False)
    output = inputs.cache_folder()
    references = {"duckdb": "DuckDB, local file", "polars": "Polars, local file"}
    return [
        TableWork(
            "filter-csv",
            "CSV, filter and select, to CSV",
            lineitem,
            {"weir": f"/v1/transform?from=csv&{_FILTER}&to=csv", **_SCRIPT},
            output / "filtered.csv",
            ("filter", "csv"),
            references,
            filtered,
        ),
        TableWork(
            "filter-parquet",
            "CSV, filter and select, to Parquet",
            lineitem,
            {"weir": f"/v1/transform?from=csv&{_FILTER}&to=parquet"},
            output / "filtered.parquet",
            ("filter", "parquet"),
            references,
            filtered,
        ),
        TableWork(
            "parquet",
            "CSV to Parquet",
            lineitem,
            {"weir": "/v1/transform?from=csv&to=parquet"},
            output / "whole.parquet",
            ("convert", "parquet"),
            references,
            whole,
        ),
    ]


NAMES = ("filter-csv", "filter-parquet", "parquet")
