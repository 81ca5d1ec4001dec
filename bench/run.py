"""The wire beside nginx, Go, Node, stock Starlette and two C processes; the tables beside DuckDB, Polars, DataFusion, Node
and Go: ``python -m bench.run``.

All servers run all the while and take turns, round by round; every answer is checked before it is timed, and every byte
of the wire's answers while it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import report
from bench.client import Failed, Sample
from bench.compiler import Absent
from bench.kinds import KINDS, OURS
from bench.report import Result
from bench.servers import Server, running
from bench.tables import first
from bench.tables import targets as table_targets
from bench.tables import works as tables
from bench.tables.references import REFERENCES
from bench.wire import crowd, liveness
from bench.wire import targets as wire_targets
from bench.wire import works as wire
from bench.work import Work

_EXTRAS = ("healthz", "slow-clients", "first-window")


def main() -> int:
    asked = _arguments()
    rows = wire.wire(asked.mib)
    sizes = (asked.scale, asked.records, asked.events)
    works: list[Work] = [row for row in rows if row.name in asked.only]
    works += tables.tables(asked.only, *sizes)
    sections: list[tuple[Work, list[Result]]] = []
    well = True
    with ExitStack() as stack:
        servers = {name: _start(name, stack) for name in asked.servers if _is_needed(name, works, asked.only)}
        for work in works:
            results = _compare(work, servers, asked.rounds)
            if asked.memory:
                _measure_memory(work, results)
            work.finish()
            sections.append((work, results))
            well &= not any(result.is_bad for result in results if result.key in OURS)
            print(report.table(work, results, asked.rounds), flush=True)
        if "healthz" in asked.only:
            text, all_well = liveness.table([row for row in rows if row.name in asked.only] or rows, servers)
            well &= all_well
            print(text, flush=True)
        for row in rows:
            row.finish()
    if "slow-clients" in asked.only:
        text, all_well = crowd.table(next(row for row in rows if row.name == "upper"), asked.servers)
        well &= all_well
        print(text, flush=True)
    if "first-window" in asked.only:
        text, all_well = first.table(tables.tables(first.WORKS, *sizes))
        well &= all_well
        print(text, flush=True)
    if on_wire := {work.name: results for work, results in sections if work.name in wire.NAMES}:
        print(wire_targets.table(on_wire))
    if of_tables := [section for section in sections if section[0].name in tables.NAMES]:
        print(table_targets.table(of_tables))
    print(report.machine_line())
    if asked.json:
        Path(asked.json).write_text(report.document(sections, asked.rounds))
    return 0 if well else 1


def _compare(work: Work, servers: dict[str, Server | str], rounds: int) -> list[Result]:
    """One result for every server and reference: a word where it cannot be timed, else a sample for each round."""
    results: list[Result] = []
    turns: list[tuple[Result, Callable[[], Sample]]] = []
    for key, server in servers.items():
        if not work.offered_by(key):
            continue
        result = Result(key, KINDS[key].name)
        results.append(result)
        if isinstance(server, str):
            result.verdict = server
        elif _is_right(result, partial(work.is_right, key, server)):
            turns.append((result, partial(_take, work, key, server)))
    for key in work.references:
        result = Result(key, REFERENCES[key].name)
        results.append(result)
        if _is_right(result, partial(_is_reference_right, work, key)):
            turns.append((result, partial(work.refer, key)))
    for turn in range(rounds):
        first = turn % max(1, len(turns))
        for result, take in turns[first:] + turns[:first]:
            if not result.is_bad:
                try:
                    result.samples.append(take())
                except (Failed, Absent) as failure:
                    result.verdict = f"FAILED: {failure}"
    return results


def _is_right(result: Result, check: Callable[[], bool]) -> bool:
    try:
        result.verdict = "right" if check() else "WRONG"
    except Failed as failure:
        result.verdict = f"FAILED: {failure}"
    except Absent as absent:
        result.verdict = f"absent: {absent}"
    return result.verdict == "right"


def _is_reference_right(work: Work, key: str) -> bool:
    work.refer(key)
    return work.is_reference_right(key)


def _take(work: Work, key: str, server: Server) -> Sample:
    before = server.cpu_seconds()
    seconds = work.take(key, server)
    return Sample(seconds, server.cpu_seconds() - before)


def _measure_memory(work: Work, results: Sequence[Result]) -> None:
    """Peak resident memory of each server, in a process of its own that does one transfer and nothing else."""
    for result in results:
        if result.key not in KINDS or result.is_bad or not result.samples:
            continue
        try:
            with running(KINDS[result.key]) as server:
                server.wait_quiet()
                result.idle_bytes = server.peak_bytes()
                work.prepare(result.key, server)
                work.take(result.key, server)
                result.peak_bytes = server.peak_bytes()
        except (Failed, RuntimeError) as failure:
            result.verdict = f"FAILED in a fresh process: {failure}"


def _is_needed(name: str, works: Sequence[Work], only: Sequence[str]) -> bool:
    return any(work.offered_by(name) for work in works) or ("healthz" in only and name in liveness.CONTENDERS)


def _start(name: str, stack: ExitStack) -> Server | str:
    """The server, or the word that stands in the table in its place."""
    try:
        return stack.enter_context(running(KINDS[name]))
    except Absent as absent:
        return f"absent: {absent}"
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return "FAILED: did not start"


def _arguments() -> argparse.Namespace:
    names = (*wire.NAMES, *_EXTRAS, *tables.NAMES)
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=2048, help="what passes through the wire, in each transfer")
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale of lineitem")
    parser.add_argument("--records", type=int, default=5_000_000, help="of the pipeline")
    parser.add_argument("--events", type=int, default=10_000_000, help="of the windows")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="WORK", help=" ".join(names))
    parser.add_argument(
        "--servers", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME", help=" ".join(KINDS)
    )
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the peak memory of each, one process per figure",
    )
    parser.add_argument("--json", metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="one round on small inputs: proves that all of it works")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.mib, asked.scale, asked.records, asked.events = 1, 16, 0.01, 50_000, 100_000
    return asked


if __name__ == "__main__":
    sys.exit(main())
