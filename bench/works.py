"""What is compared: each work, where each server offers it, and how its answer is checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from bench import client, inputs
from bench.inputs import Input

_FILTER = f"where={quote(inputs.FILTER_WHERE)}&select={quote(inputs.FILTER_SELECT)}"
_SCRIPT = {"node": "/filter?quantity_lt=24", "go": "/filter?quantity_lt=24"}
_EVERY_PEER = ("starlette", "starlette-send", "node", "go")


@dataclass(frozen=True, slots=True)
class Work:
    """One work. A server that ``paths`` lacks does not offer it.

    Bytes are right if their SHA-256 is ``digest``; a table is right if it has the ``figures``, and is written to
    ``output`` as users would. ``reference`` holds the words for ``peers/tables.py``.
    """

    name: str
    title: str
    source: Input
    paths: dict[str, str]
    digest: str = ""
    output: Path = Path("/dev/null")
    reference: tuple[str, str] | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def check(self, url: str) -> bool:
        """Send the file, untimed, and tell whether the answer is right."""
        if self.reference is None:
            return client.digest(url, self.source) == self.digest
        client.send(url, self.source, self.output)
        return self.check_output()

    def check_output(self) -> bool:
        """Tell whether the table that was written last is right."""
        assert self.reference is not None
        found = inputs.table_figures(self.output, self.reference[1], filtered=self.reference[0] == "filter")
        return not inputs.differences(found, self.figures)


def wire(mib: int) -> list[Work]:
    """Bytes in, bytes out."""
    text = inputs.text(mib)
    plain = inputs.digest(text.path, None)
    return [
        Work(
            "sink",
            "Upload, answered by its size",
            text,
            dict.fromkeys(_EVERY_PEER, "/sink"),
            digest=hashlib.sha256(f"{text.nbytes}\n".encode()).hexdigest(),
        ),
        Work(
            "echo",
            "Echo while it uploads",
            text,
            {"weir": "/v1/transform", **dict.fromkeys(_EVERY_PEER, "/echo")},
            digest=plain,
        ),
        Work(
            "upper",
            "ASCII upper case while it uploads",
            text,
            {"weir": "/v1/transform?upper", **dict.fromkeys(_EVERY_PEER, "/upper")},
            digest=inputs.digest(text.path, bytes.upper),
        ),
    ]


def tables(scale: float) -> list[Work]:
    """TPC-H lineitem in CSV; a third of its rows out, or all of it in another format."""
    lineitem = inputs.lineitem(scale)
    filtered = inputs.expected_figures(lineitem.path, filtered=True)
    whole = inputs.expected_figures(lineitem.path, filtered=False)
    output = inputs.cache_folder()
    return [
        Work(
            "filter-csv",
            "CSV, filter and select, to CSV",
            lineitem,
            {"weir": f"/v1/transform?from=csv&{_FILTER}&to=csv", **_SCRIPT},
            output=output / "filtered.csv",
            reference=("filter", "csv"),
            figures=filtered,
        ),
        Work(
            "filter-parquet",
            "CSV, filter and select, to Parquet",
            lineitem,
            {"weir": f"/v1/transform?from=csv&{_FILTER}&to=parquet"},
            output=output / "filtered.parquet",
            reference=("filter", "parquet"),
            figures=filtered,
        ),
        Work(
            "parquet",
            "CSV to Parquet",
            lineitem,
            {"weir": "/v1/transform?from=csv&to=parquet"},
            output=output / "whole.parquet",
            reference=("convert", "parquet"),
            figures=whole,
        ),
    ]


WIRE_NAMES = ("sink", "echo", "upper")
TABLE_NAMES = ("filter-csv", "filter-parquet", "parquet")
