"""The engines without a server: each reads the local file, or the same bytes from a pipe, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.client import Failed, Sample
from bench.compiler import Absent
from bench.inputs import Input
from bench.kinds import PEERS, ROOT, node_program


@dataclass(frozen=True, slots=True)
class Reference:
    """An engine of ``peers/tables.py``, or Node with its script, and what it is called in the tables."""

    name: str
    engine: str
    is_piped: bool = False


REFERENCES = {
    "duckdb": Reference("DuckDB, local file", "duckdb"),
    "polars": Reference("Polars, local file", "polars"),
    "datafusion": Reference("DataFusion, local file", "datafusion"),
    "node-script": Reference("Node, a script, local file", "node"),
    "duckdb-pipe": Reference("DuckDB, from a pipe", "duckdb", is_piped=True),
    "polars-pipe": Reference("Polars, from a pipe", "polars", is_piped=True),
}


def refer(key: str, question: str, source: Input, target: str, output: Path, lookups: Mapping[str, Path]) -> Sample:
    """Let the reference ``key`` answer the question. Raises ``Absent`` where it is not installed."""
    reference = REFERENCES[key]
    tables = [f"{name}={path}" for name, path in lookups.items()]
    if reference.engine == "node":
        command = [node_program(), PEERS / "node" / f"{question}.mjs", source.path, output, *tables]
    elif find_spec(reference.engine) is None:
        raise Absent(f"{reference.engine} is not installed")
    else:
        words = ["--pipe"] if reference.is_piped else []
        peer = [sys.executable, "-m", "bench.peers.tables", *words, reference.engine]
        command = [*peer, question, source.path, target, output, *tables]
    with ExitStack() as stack:
        feeder = None
        if reference.is_piped:
            feeder = stack.enter_context(subprocess.Popen(["cat", source.path], stdout=subprocess.PIPE))
        stdin = feeder.stdout if feeder else subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if feeder and feeder.stdout:
            feeder.stdout.close()  # the reader alone has it: cat ends when the reader does
        said, complaint = process.communicate()
    if process.returncode:
        raise Failed((complaint.decode(errors="replace").strip().splitlines() or ["no word"])[-1][:200])
    return Sample(**json.loads(said))
