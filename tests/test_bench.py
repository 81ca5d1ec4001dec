"""The bench's judge finds what is wrong, and all rows of the tables run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from bench.inputs import Input
from bench.tables.answers import expected, is_right
from bench.tables.works import NAMES, ROWS

ROOT = Path(__file__).parent.parent
TABLE = pa.table({"key": ["a", "b", "c"], "n": [1, 2, None], "total": [0.1, 1e9, None]})


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    path = tmp_path / "wanted.parquet"
    pa.parquet.write_table(TABLE, path)
    return path


@pytest.mark.parametrize(
    ("found", "right", "right_once_sorted"),
    [
        (TABLE, True, True),
        (TABLE.set_column(2, "total", [[0.1, 1e9 + 1e-3, None]]), True, True),
        (TABLE.set_column(2, "total", [[0.1, 1e9 + 2, None]]), False, False),
        (TABLE.set_column(2, "total", [[0.1, 1e9, 0.0]]), False, False),
        (TABLE.set_column(2, "total", [["0.1", "x", None]]), False, False),
        (TABLE.set_column(1, "n", [[1, 3, None]]), False, False),
        (TABLE.set_column(1, "n", [[1, 2, 3]]), False, False),
        (TABLE.set_column(1, "n", [[1.0, 2.25, None]]), False, False),
        (TABLE.take([1, 0, 2]), False, True),
        (TABLE.slice(0, 2), False, False),
        (TABLE.slice(0, 0), False, False),
        (pa.concat_tables([TABLE, TABLE.slice(2)]), False, False),
        (TABLE.select(["key", "n"]), False, False),
        (TABLE.select(["n", "key", "total"]), False, False),
        (TABLE.append_column("more", [[1, 2, 3]]), False, False),
        (TABLE.rename_columns(["key", "n", "sum"]), False, False),
    ],
)
@pytest.mark.parametrize("target", ["csv", "parquet"])
def test_the_judge(
    tmp_path: Path, wanted: Path, target: str, found: pa.Table, right: bool, right_once_sorted: bool
) -> None:
    path = tmp_path / f"found.{target}"
    if target == "csv":
        pa.csv.write_csv(found, path)
    else:
        pa.parquet.write_table(found, path)
    assert is_right(path, target, wanted, ()) is right
    assert is_right(path, target, wanted, ("key",)) is right_once_sorted


def test_the_judge_takes_ndjson(tmp_path: Path, wanted: Path) -> None:
    path = tmp_path / "found.ndjson"
    lines = ['{"key":"a","n":1,"total":0.1}', '{"key":"b","n":2,"total":1e9}', '{"key":"c","n":null,"total":null}']
    path.write_text("\n".join(lines))
    assert is_right(path, "ndjson", wanted, ())
    path.write_text("\n".join(lines).replace('"n":2', '"n":2.5'))
    assert not is_right(path, "ndjson", wanted, ())


def test_an_answer_is_found_anew_with_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_BENCH_DIR", str(tmp_path))
    path = tmp_path / "input.csv"
    source = Input(path, 0, None, f"read_csv('{path}')")
    for n in (1, 2):
        path.write_text(f"n\n{n}\n")
        os.utime(path, (n * 10_000_000_000, n * 10_000_000_000))
        answer = expected(source, "SELECT n FROM input", (), {})
        assert pa.parquet.read_table(answer).to_pylist() == [{"n": n}]


def test_names_are_names() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all({*row.unordered} <= {*row.references} and bool(row.unordered) <= bool(row.key) for row in ROWS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_row_runs_and_is_right(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.run", "--quick", "--only", *NAMES]
    environment = {**os.environ, "WEIR_BENCH_DIR": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WRONG" not in run.stdout
    assert "FAILED" not in run.stdout
