"""Steps of one's own, on threads and in processes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.stages.user import UserStage, UserStep, step
from app.stages.user_process import UserProcess
from tests.conformance.check_stage import check_stage, line_cuts, run_stages, table_cuts
from tests.user_steps import install

PAGE = 1 << 16
TABLE = pa.table({"n": [1, 2, 3], "t": ["a", "b", None]})
FUNCTIONS = """
import os, time
import pyarrow as pa
from app.stages.user import step

@step(process=True)
def double(batch):
    return batch.set_column(0, "n", pa.array([2 * n for n in batch["n"].to_pylist()], pa.int64()))

@step(process=True, takes="lines", argument=True)
def suffix(argument):
    if argument == "bad":
        raise ValueError("not that one")
    return lambda lines: lines.replace(b"\\n", argument.encode() + b"\\n")

@step(process=True)
def halves(batch):
    yield batch.slice(0, batch.num_rows // 2)
    yield batch.slice(batch.num_rows // 2)

@step(process=True)
def fails(batch):
    raise KeyError("no such thing")

@step(process=True)
def dies(batch):
    os._exit(7)

@step(process=True, timeout_s=0.5)
def hangs(batch):
    time.sleep(60)

@step(process=True)
def hungry(batch):
    return pa.record_batch({"x": [bytes(1 << 30)[:1]]})

@step(process=True)
def huge(batch):
    return pa.record_batch({"x": ["x" * (1 << 20)]})

@step(process=True)
def wrong(batch):
    return {"a": 1}

@step(process=True)
def chatty(batch):
    print("on standard output")
    return batch
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, UserStep]]:
    folder = tmp_path_factory.mktemp("steps")
    names = ["double", "suffix", "halves", "fails", "dies", "hangs", "hungry", "huge", "wrong", "chatty"]
    install(folder, "functions", FUNCTIONS, {name: name for name in names})
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{folder}:{Path(__file__).parents[2]}:{before}"
    space: dict[str, Any] = {}
    exec(FUNCTIONS, space)
    yield {name: space[name] for name in names}
    os.environ["PYTHONPATH"] = before


def pages(table: pa.Table, rows: int) -> Iterator[Page]:
    for index, batch in enumerate(table.combine_chunks().to_batches(rows)):
        yield Page(batch, batch.nbytes, batch.num_rows, first=index == 0)


def process(installed: dict[str, UserStep], name: str, argument: str = "") -> UserProcess:
    return UserProcess(name, installed[name], argument, page_bytes=PAGE)


def table_of(found: Iterator[Page]) -> pa.Table:
    return pa.Table.from_batches([page.payload for page in found])


def children() -> list[str]:
    """Processes of ours in which steps run."""
    found = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            if b"app.stages.user_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_rows_on_threads_however_they_are_cut() -> None:
    @step(takes="rows", stateless=True)
    def more(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.append_column("m", pc.add(batch["n"], 1))

    @step(takes="rows")
    def odd(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for index in range(batch.num_rows):
            if batch["n"][index].as_py() % 2:
                yield batch.slice(index, 1)
        yield batch.slice(0, 0)

    def stages() -> list[Stage]:
        return [UserStage("more", more, "", page_bytes=PAGE), UserStage("odd", odd, "", page_bytes=PAGE)]

    check_stage(stages, table_cuts(TABLE))
    found = table_of(run_stages(stages(), pages(TABLE, 2)))
    assert found.to_pylist() == [{"n": 1, "t": "a", "m": 2}, {"n": 3, "t": None, "m": 4}]


def test_lines_and_arguments_on_threads() -> None:
    @step(takes="lines", argument=True, stateless=True)
    def only(word: str) -> Any:
        return lambda lines: b"".join(line for line in lines.splitlines(keepends=True) if word.encode() in line)

    check_stage(lambda: [UserStage("only", only, "b", page_bytes=PAGE)], line_cuts(b"abc\ndef\nb\n"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda batch: {}, "gave a dict; a step gives a pyarrow.RecordBatch, several, or None"),
        (lambda batch: [batch, 7], "gave a int"),
        (lambda batch: None, "an empty batch tells its columns"),
        (lambda batch: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda batch: (1 / 0 for _ in "a"), "ZeroDivisionError"),
        (lambda batch: batch.rename_columns(["a", "b" if batch["n"][0].as_py() == 1 else "c"]), "other columns"),
    ],
)
def test_what_a_step_must_not_give(made: Any, said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        list(run_stages([UserStage("mine", UserStep(made), "", page_bytes=PAGE)], pages(TABLE, 1)))
    assert caught.value.code == "stage_failed"


def test_results_are_cut_into_pages() -> None:
    def grown(batch: pa.RecordBatch) -> pa.Table:
        return pa.table({"x": ["x" * 1000] * 1000})

    found = list(run_stages([UserStage("grown", UserStep(grown), "", page_bytes=PAGE)], pages(TABLE, 3)))
    assert sum(page.rows for page in found) == 1000
    assert max(page.nbytes for page in found) <= 2 * PAGE

    def wide(batch: pa.RecordBatch) -> pa.Table:
        return pa.table({"x": ["x" * 3 * PAGE]})

    with pytest.raises(Refusal, match="gave one row of"):
        list(run_stages([UserStage("wide", UserStep(wide), "", page_bytes=PAGE)], pages(TABLE, 3)))


def test_what_cannot_be_declared() -> None:
    for words in ({"process": True, "stateless": True}, {"timeout_s": 0}, {"process": True, "memory_bytes": 1}):
        with pytest.raises(ValueError, match=r"leave stateless out|more|96 MiB"):
            step(**words)


def test_rows_in_a_process(installed: dict[str, UserStep]) -> None:
    for rows in (1, 2, 3):
        found = list(process(installed, "double").run(pages(TABLE, rows)))
        assert table_of(iter(found)).to_pylist() == [{"n": 2, "t": "a"}, {"n": 4, "t": "b"}, {"n": 6, "t": None}]
        assert [page.first for page in found] == [True] + [False] * (len(found) - 1)
    assert table_of(process(installed, "halves").run(pages(TABLE, 2))).equals(TABLE)
    assert table_of(process(installed, "chatty").run(pages(TABLE, 2))).equals(TABLE)
    assert not children()


def test_lines_in_a_process(installed: dict[str, UserStep]) -> None:
    given = iter([Page(b"a\nb\n", 4, 2, first=True), Page(memoryview(b"c\n"), 2, 1)])
    assert b"".join(page.payload for page in process(installed, "suffix", "!").run(given)) == b"a!\nb!\nc!\n"
    with pytest.raises(Refusal, match="not that one") as caught:
        process(installed, "suffix", "bad")
    assert caught.value.code == "bad_argument"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "KeyError: 'no such thing'"),
        ("dies", "ended by itself, with status 7"),
        ("hangs", "longer than its time limit of 0.5 s"),
        ("hungry", "MemoryError"),
        ("huge", "more than the step has room for"),
        ("wrong", "it gave a str|it gave a dict"),
    ],
)
def test_a_process_that_goes_wrong_is_ended(installed: dict[str, UserStep], name: str, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(Refusal, match=said) as caught:
        list(process(installed, name).run(pages(TABLE, 3)))
    assert caught.value.code == "stage_failed"
    assert time.monotonic() - started < 20
    assert not children()


def test_a_run_that_is_over_leaves_no_process(installed: dict[str, UserStep]) -> None:
    hanging = UserProcess("hangs", installed["hangs"], "", page_bytes=PAGE)
    hanging._user = UserStep(**{**{f: getattr(installed["hangs"], f) for f in UserStep.__slots__}, "timeout_s": 60.0})
    failed: list[BaseException] = []

    def carry() -> None:
        try:
            list(hanging.run(pages(TABLE, 3)))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=carry)
    thread.start()
    time.sleep(1.5)
    hanging.interrupt()
    thread.join(5)
    assert not thread.is_alive()
    assert failed
    assert not children()

    left = process(installed, "double").run(pages(TABLE, 1))
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert not children()
