"""Steps that are installed beside Weir, over HTTP and on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import Server, serving
from tests.user_steps import EXAMPLE, install

SALES = b"item,price,qty\nRed Pen,1.2,3\nBlue Ink!,4.5,7\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("steps")
    names = ("with_total", "mask", "shout", "slug")
    install(folder, "example_steps", EXAMPLE / "src" / "example_steps", {name: name for name in names})
    install(folder, "broken_steps", "raise ImportError('libfoo is missing')", {"broken": "step"})
    install(folder, "rude_steps", "def where(batch): return batch", {"where": "where"})
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{folder}:{Path(__file__).parents[2]}:{before}"
    yield folder
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def server(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("spool"), fresh=True, memory_budget="1GiB") as running:
        yield running


def post(server: Server, query: str, body: bytes = SALES) -> httpx.Response:
    return httpx.post(f"{server.transform}?{query}", content=body, timeout=30)


def test_the_example_is_what_its_project_says() -> None:
    text = (EXAMPLE / "pyproject.toml").read_text()
    for name in ("with_total", "mask", "shout", "slug"):
        assert f'{name} = "example_steps:{name}"' in text


def test_rows_lines_arguments_and_processes(server: Server) -> None:
    answer = post(server, "from=csv&with_total&where=total>4&slug&mask=item&to=json")
    assert answer.json() == [{"item": "*********", "price": 4.5, "qty": 7, "total": 31.5, "slug": "blue-ink"}]
    assert post(server, "from=lines&shout", b"a\nb\n").content == b"a!\nb!\n"
    assert post(server, "from=csv&shout&upper", b"a\nb\n").content == b"A!\nB!\n"
    (run,) = [run for run in server.runs() if "slug" in run["pipeline"]]
    assert [stage["name"] for stage in run["stages"] if stage["name"] in ("with_total", "slug", "mask")] == [
        "with_total",
        "slug",
        "mask",
    ]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("from=csv&mask&to=json", 400, "mask: ValueError: say which column"),
        ("from=csv&with_total=7&to=json", 400, "takes no argument"),
        ("from=csv&mask=nope&to=json", 500, "mask: KeyError"),
        ("from=csv&broken&to=json", 400, "cannot be loaded: libfoo is missing"),
        ("from=csv&where=qty>3&to=csv", 200, "Blue Ink!"),
    ],
)
def test_what_goes_wrong_is_said(server: Server, query: str, status: int, said: str) -> None:
    answer = post(server, query)
    assert answer.status_code == status
    assert said in answer.text


def test_without_a_server(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(SALES)
    command = [sys.executable, "-m", "app.cli", "run", str(tmp_path / "in.csv"), str(tmp_path / "out.ndjson")]
    command += ["--with-total", "--mask", "item", "--memory-budget", "1GiB", "--spool-dir", str(tmp_path / "spool")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out.ndjson").read_text().splitlines()[
        0
    ] == '{"item":"*******","price":1.2,"qty":3,"total":3.5999999999999996}'
