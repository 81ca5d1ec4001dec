"""A gigabyte with a bad row in a hundred: each is quarantined once, with its kind and its place."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.framing.test_bad_rows import bad_rows
from tests.server import serving

GIB = 1 << 30
GOOD = 99
"""Good rows before each bad one."""
KINDS = ("ragged short", "ragged long", "int", "date", "UTF-8", "out of a small range", "too long")
USED = " AND ".join(f"{name} IS NOT NULL" for name in "ifdbst")
"""All columns: values of one that no step uses are not looked at."""
FILLER = "text of some length, so that a gigabyte does not have too many rows; " * 12


def table() -> Iterator[tuple[bytes, tuple[int, int, str, str | None] | None]]:
    """The file in pieces; with each that has a bad row, what is to be told of it: line, byte, code, column."""
    bad = bad_rows("csv")
    line, byte = 1, 0
    header = b"i,f,d,b,s,t\n"
    yield header, None
    line, byte = line + 1, byte + len(header)
    good = [f'{n},{n}.5,2020-01-31,false,"{FILLER}\n{n}",7\n'.encode() for n in range(GOOD)]
    block = b"".join(good)
    newlines = block.count(b"\n")
    for _ in range(50):  # more than a page, which sets the types
        yield block, None
        line, byte = line + newlines, byte + len(block)
    for kind in itertools.cycle(KINDS):
        if byte >= GIB:
            return
        text = bad[kind].text if kind != "too long" else bad[kind].text * 60
        place = (line + newlines, byte + len(block), bad[kind].code, bad[kind].column)
        yield block + text + b"\n", place
        line, byte = line + newlines + text.count(b"\n") + 1, byte + len(block) + len(text) + 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_bad_row_of_a_gigabyte_is_told_once(tmp_path: Path) -> None:
    expected: list[tuple[int, int, str, str | None]] = []
    rows = 0

    def body() -> Iterator[bytes]:
        nonlocal rows
        for piece, place in table():
            rows += GOOD * (piece[:1] != b"i")
            if place is not None:
                expected.append(place)
            yield piece

    with serving(
        tmp_path / "spool", fresh=True, memory_budget="64MiB", max_line="64KiB", page_bytes="256KiB"
    ) as server:
        query = f"from=csv&types=t:smallint&on_error=quarantine&where={quote(USED)}&select=i&to=arrow"
        result, headers = tmp_path / "result", tmp_path / "headers"
        command = ["curl", "-sSf", "-T", "-", "-o", str(result), "-D", str(headers), f"{server.transform}?{query}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as curl:
            assert curl.stdin is not None
            for piece in body():
                curl.stdin.write(piece)
            curl.stdin.close()
        assert curl.returncode == 0
        run_id = headers.read_text().lower().split("weir-run-id:")[1].split()[0]
        record = server.run(run_id, wait_s=60)
        assert record["state"] == "succeeded", record["error"]
        assert record["input_bytes"] >= GIB
        assert (record["rows_rejected"], record["rows_in"]) == (len(expected), rows)
        assert result.stat().st_size == record["output_bytes"]
        told = []
        with httpx.stream("GET", f"{server.url}/v1/runs/{record['id']}/rejects", timeout=60) as rejects:
            for text in rejects.iter_lines():
                reject = json.loads(text)
                told.append((reject["line"], reject["byte"], reject["code"], reject["column"]))
        assert told == expected
        assert len(expected) > 9_000
        assert {code for _, _, code, _ in told} == {"ragged_row", "bad_value", "bad_encoding", "record_too_long"}
        server.assert_at_rest()
