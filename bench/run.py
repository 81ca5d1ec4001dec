"""The wire and the tables beside stock Starlette, Node and Go, and beside DuckDB and Polars: ``python -m bench.run``.

All servers run all the while and take turns, round by round; every answer is checked before it is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench import client, report, works
from bench.client import Failed, Sample
from bench.report import Result
from bench.servers import KINDS, Absent, Server, running
from bench.works import Work

REFERENCES = {"duckdb": "DuckDB, local file", "polars": "Polars, local file"}


def main() -> int:
    asked = _arguments()
    sections: list[tuple[Work, list[Result]]] = []
    with ExitStack() as stack:
        servers = {name: _start(name, stack) for name in asked.servers}
        for work in _works(asked):
            results = _compare(work, servers, asked.rounds)
            if asked.memory:
                _measure_memory(work, results)
            sections.append((work, results))
            print(report.table(work, results, asked.rounds), flush=True)
    print(report.machine_line())
    if asked.json:
        Path(asked.json).write_text(report.document(sections, asked.rounds))
    ours = [result for _, results in sections for result in results if result.key == "weir"]
    return 1 if any(result.is_bad for result in ours) else 0


def _compare(work: Work, servers: dict[str, Server | str], rounds: int) -> list[Result]:
    """One result for every server and reference: a word where it cannot be timed, else a sample for each round."""
    results: list[Result] = []
    turns: list[tuple[Result, Callable[[], Sample]]] = []
    for key, server in servers.items():
        result = Result(key, KINDS[key].name)
        results.append(result)
        if isinstance(server, str):
            result.verdict = server
        elif key not in work.paths:
            result.verdict = "not offered"
        elif _is_right(result, partial(work.check, server.url + work.paths[key])):
            turns.append((result, partial(_take, work, server, work.paths[key])))
    for engine, label in REFERENCES.items() if work.reference else ():
        result = Result(engine, label)
        results.append(result)
        take = partial(_refer, work, engine)
        if find_spec(engine) is None:
            result.verdict = f"absent: {engine} is not installed"
        elif _is_right(result, lambda take=take: bool(take()) and work.check_output()):
            turns.append((result, take))
    for turn in range(rounds):
        first = turn % max(1, len(turns))
        for result, take in turns[first:] + turns[:first]:
            if not result.is_bad:
                try:
                    result.samples.append(take())
                except Failed as failure:
                    result.verdict = f"FAILED: {failure}"
    return results


def _is_right(result: Result, check: Callable[[], bool]) -> bool:
    try:
        result.verdict = "right" if check() else "WRONG"
    except Failed as failure:
        result.verdict = f"FAILED: {failure}"
    return result.verdict == "right"


def _take(work: Work, server: Server, path: str) -> Sample:
    before = server.cpu_seconds()
    seconds = client.send(server.url + path, work.source, work.output)
    return Sample(seconds, server.cpu_seconds() - before)


def _refer(work: Work, engine: str) -> Sample:
    assert work.reference is not None
    return client.refer(engine, *work.reference, work.source, work.output)


def _measure_memory(work: Work, results: Sequence[Result]) -> None:
    """Peak resident memory of each server, in a process of its own that does nothing else."""
    for result in results:
        if result.key in work.paths and not result.is_bad and result.samples:
            with running(KINDS[result.key]) as server:
                client.send(server.url + work.paths[result.key], work.source, work.output)
                result.peak_bytes = server.peak_bytes()


def _start(name: str, stack: ExitStack) -> Server | str:
    """The server, or the word that stands in the table in its place."""
    try:
        return stack.enter_context(running(KINDS[name]))
    except Absent as absent:
        return f"absent: {absent}"
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return "FAILED: did not start"


def _works(asked: argparse.Namespace) -> list[Work]:
    made: list[Work] = []
    if set(asked.only) & set(works.WIRE_NAMES):
        made += works.wire(asked.mib)
    if set(asked.only) & set(works.TABLE_NAMES):
        made += works.tables(asked.scale)
    return [work for work in made if work.name in asked.only]


def _arguments() -> argparse.Namespace:
    names = (*works.WIRE_NAMES, *works.TABLE_NAMES)
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024, help="size of the text for the wire")
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale of lineitem")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="WORK", help=" ".join(names))
    parser.add_argument(
        "--servers", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME", help=" ".join(KINDS)
    )
    parser.add_argument("--memory", action="store_true", help="also the peak memory of each, one process per figure")
    parser.add_argument("--json", metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="one round on small inputs: proves that all of it works")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.mib, asked.scale = 1, 16, 0.01
    return asked


if __name__ == "__main__":
    sys.exit(main())
