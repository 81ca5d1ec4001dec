"""The README's lines work as they are pasted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.server import Server, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def paste(lines: str, folder: Path) -> list[str]:
    """Run the lines in bash, each as it is typed; gives what each command with an answer printed."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", lines], cwd=folder, env=environment, capture_output=True, check=True
    )
    return printed.stdout.decode().splitlines()


def test_the_lines_of_the_first_screen(server: Server, tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    requests = BLOCKS[0].replace("localhost:8080", f"{server.host}:{server.port}").replace("curl ", "curl -sSf ")
    printed = paste(requests, tmp_path)
    assert printed[:2] == ['{"item":"pen","price":1.20,"qty":3}', '{"item":"ink","price":4.50,"qty":7}'] or printed[
        :2
    ] == ['{"item":"pen","price":1.2,"qty":3}', '{"item":"ink","price":4.5,"qty":7}']
    assert "item,price,qty,total" in printed
    assert any("CURL -T SALES.CSV" in line for line in printed)
    assert '"state":"succeeded"' in printed[-1]
    assert pq.read_table(tmp_path / "sales.parquet").to_pylist()[1] == {"item": "ink", "qty": 0}


def test_the_lines_without_a_server(tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    first = next(line for line in BLOCKS[0].splitlines() if line.startswith("printf"))
    command = BLOCKS[1].replace(".venv/bin/weir", f"{sys.executable} -m app.cli")
    environment_free = (
        f"export PYTHONPATH={ROOT} WEIR_SPOOL_DIR={tmp_path / 'spool'}\n{first}\nset +o pipefail\n{command}"
    )
    printed = paste(environment_free, tmp_path)
    assert len(printed) == 1
    assert '"item":"pen"' in printed[0]
    assert pq.read_table(tmp_path / "sales.parquet").column_names == ["item", "total"]


def test_the_lines_with_a_store(tmp_path: Path) -> None:
    first = next(line for line in BLOCKS[0].splitlines() if line.startswith("printf"))
    with serving(tmp_path / "spool", stores=f"out={tmp_path / 'out'}") as server:
        requests = BLOCKS[2].replace("localhost:8080", f"{server.host}:{server.port}").replace("curl ", "curl -sSf ")
        answers = [
            json.loads(line) for line in paste(f"{first}\n{requests.replace(chr(10), '; echo' + chr(10))}", tmp_path)
        ]
        assert answers[0]["url"] == "store:out/sales.parquet"
        assert pq.read_table(tmp_path / "out" / "sales.parquet").num_rows == answers[0]["rows"] == 2
        ends = [server.run(answer["id"]) for answer in answers[1:]]
        assert [end["state"] for end in ends] == ["succeeded", "succeeded"]
        assert server.get(f"/v1/runs/{ends[0]['id']}/result") == b'item\n"pen"\n"ink"\n'


def test_targets_that_are_named_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
