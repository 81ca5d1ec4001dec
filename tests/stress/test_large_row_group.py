"""A Parquet file whose only row group is larger than the memory passes through, and every row is right."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.server import serving

MIB = 1 << 20
BUDGET_MIB = 128
ALLOWED_MIB = 64
"""As `make bench-memory` has it."""
ROWS, REPEAT = 5_000_000, 10_000
"""Values but the ``id`` are the same every ``REPEAT`` rows, so that they are made once."""

GROUPED = (
    "SELECT qty, count(*) AS n, sum(id)::BIGINT AS ids, max(length(text)) AS longest FROM input"
    " GROUP BY qty ORDER BY qty NULLS LAST"
)
ANSWERS = {
    "from=parquet&to=csv": (
        b"id,qty,text\n",
        "SELECT * FROM input",
        "FORMAT csv, HEADER false, FORCE_QUOTE (text)",
    ),
    "from=parquet&where=qty%3E40+or+qty+is+null&to=ndjson": (
        b"",
        "SELECT * FROM input WHERE qty > 40 OR qty IS NULL",
        "FORMAT json",
    ),
    f"from=parquet&sql={quote(GROUPED)}&to=csv": (
        b"qty,n,ids,longest\n",
        GROUPED,
        "FORMAT csv, HEADER false",
    ),
}
"""By query: what the answer begins with, and how DuckDB makes the rest."""


@pytest.fixture
def one_row_group(tmp_path: Path) -> Iterator[Path]:
    """About 1 GiB in one row group, without dictionaries; a quarter of that on disk."""
    path, draw = tmp_path / "input.parquet", random.Random(1)
    words = [f"word{number}" for number in range(500)]
    text = pa.array([" ".join(draw.choices(words, k=26)) for _ in range(REPEAT)])
    quantity = pa.array([None if row % 13 == 0 else row % 50 for row in range(REPEAT)], pa.int32())
    table = pa.table(
        {
            "id": pa.chunked_array([pa.array(range(ROWS), pa.int64())]),
            "qty": pa.chunked_array([quantity] * (ROWS // REPEAT)),
            "text": pa.chunked_array([text] * (ROWS // REPEAT)),
        }
    )
    pq.write_table(table, path, row_group_size=ROWS, use_dictionary=False, compression="zstd")
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_row_group_larger_than_memory_passes_within_it(tmp_path: Path, one_row_group: Path) -> None:
    metadata = pq.ParquetFile(one_row_group).metadata
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).total_byte_size > 1024 * MIB
    for number, (query, (head, select, form)) in enumerate(ANSWERS.items()):
        # A server for each: its peak is of one run.
        with serving(tmp_path / f"spool{number}", fresh=True, memory_budget=f"{BUDGET_MIB}MiB") as server:
            idle_mib = server.memory_kib() / 1024
            answer = digest_of("curl", "-sSf", "-T", str(one_row_group), f"{server.transform}?{query}")
            peak_mib = server.memory_kib() / 1024
            (record,) = server.runs()
            server.assert_at_rest()
        assert record["rows_in"] == ROWS
        script = "SET enable_progress_bar = false;"  # it is written to the same place
        script += f"CREATE VIEW input AS FROM '{one_row_group}'; COPY ({select}) TO '/dev/stdout' ({form})"
        expected = digest_of(sys.executable, "-c", f"import duckdb; duckdb.execute({script!r})", head=head)
        assert answer == expected, query
        print(f"{query}: peak {peak_mib:.0f} MiB, idle {idle_mib:.0f} MiB")
        assert peak_mib <= BUDGET_MIB + idle_mib + ALLOWED_MIB, query


def digest_of(*command: str, head: bytes = b"") -> tuple[str, int]:
    """The SHA-256 of ``head`` and of what a command writes, and how many bytes that is."""
    digest, nbytes = hashlib.sha256(head), len(head)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(MIB):
            digest.update(piece)
            nbytes += len(piece)
    assert process.returncode == 0
    return digest.hexdigest(), nbytes
