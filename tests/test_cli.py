"""``weir run`` and ``weir version``: files, pipes, exit status, and nothing partial left."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.forked import run_forked
from tests.object_store.server import ObjectStoreServer

CSV = "a,s\n1,x\n2,y\n3,\n"
WEIR = [sys.executable, "-m", "app.cli"]


def weir(tmp_path: Path, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run_forked(*arguments, data=data, env=os.environ | {"WEIR_SPOOL_DIR": str(tmp_path / "spool")}, cwd=tmp_path)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(CSV)
    return path


def test_version(tmp_path: Path) -> None:
    assert weir(tmp_path, "version").stdout.startswith(b"weir ")


def test_a_file_to_a_file_by_their_names(tmp_path: Path, csv: Path) -> None:
    command = [*WEIR, "run", str(csv), "out.parquet", "--where", "a>1", "--derive", "a*2 as b"]
    environment = os.environ | {"WEIR_SPOOL_DIR": str(tmp_path / "spool")}
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"a": 2, "s": "y", "b": 4},
        {"a": 3, "s": None, "b": 6},
    ]
    assert (tmp_path / "out.parquet").stat().st_mode & 0o777 == 0o666 & ~umask()
    assert not list((tmp_path / "spool").iterdir())


def test_a_parquet_file_is_read_where_it_is(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(100), "s": ["x"] * 100}), tmp_path / "in.parquet", row_group_size=10)
    arguments = ["--from", "parquet", "--to", "csv", "--where", "a>=98", "--select", "a"]
    assert weir(tmp_path, "run", "in.parquet", "-", *arguments).stdout.split() == [b"a", b"98", b"99"]
    through_a_pipe = weir(tmp_path, "run", "-", "-", *arguments, data=(tmp_path / "in.parquet").read_bytes())
    assert through_a_pipe.stdout.split() == [b"a", b"98", b"99"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_pipes_and_the_order_of_steps(tmp_path: Path) -> None:
    assert weir(tmp_path, "run", "-", "-", "--upper", "--replace", "/A/b/", data=b"abc\n").stdout == b"bBC\n"
    assert weir(tmp_path, "run", "-", "-", "--replace", "/A/b/", "--upper", data=b"abc\n").stdout == b"ABC\n"


def test_rows_from_a_pipe_are_recognised(tmp_path: Path) -> None:
    done = weir(tmp_path, "run", "-", "-", "--where", "a=2", "--to", "ndjson", data=CSV.encode())
    assert json.loads(done.stdout) == {"a": 2, "s": "y"}


def test_a_pipeline_document(tmp_path: Path, csv: Path) -> None:
    (tmp_path / "clean.yaml").write_text("from: csv\nto: ndjson\nsteps:\n- where: a > 1\n- limit: 1\n")
    assert json.loads(weir(tmp_path, "run", "-p", "clean.yaml", str(csv), "-").stdout) == {"a": 2, "s": "y"}


def test_failure_is_told_and_leaves_nothing_partial(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a\n" + "1\n" * 300_000 + "x\n")
    (tmp_path / "out.csv").write_text("old")
    done = weir(tmp_path, "run", "bad.csv", "out.csv", "--types", "a:bigint", "--where", "a=1")
    assert done.returncode == 1
    assert b"bad_value" in done.stderr
    assert b"300002" in done.stderr
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "out.csv", "spool"]


def test_quarantine_goes_to_a_file(tmp_path: Path) -> None:
    arguments = ["--from", "csv", "--types", "a:bigint", "--select", "a", "--on-error", "quarantine"]
    done = weir(tmp_path, "run", "-", "-", *arguments, "--rejects", "bad.ndjson", data=b"a\n1\nx\n2\n")
    assert (done.returncode, done.stdout.split()) == (0, [b"a", b"1", b"2"])
    assert json.loads((tmp_path / "bad.ndjson").read_text())["line"] == 3
    refused = weir(tmp_path, "run", "-", "-", *arguments, data=b"a\n1\n")
    assert (refused.returncode, b"--rejects" in refused.stderr) == (1, True)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = weir(tmp_path, "run", "nope.csv", "out.csv")
    assert (done.returncode, b"nope.csv: No such file" in done.stderr) == (1, True)


def test_a_reader_that_leaves_ends_the_run(tmp_path: Path, csv: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"line\n" * 4_000_000)
    command = f"{' '.join(WEIR)} run {big} - --upper | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == [b"LINE", b"1"]


def test_a_progress_bar_on_a_terminal_only(tmp_path: Path, csv: Path) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    subprocess.run([*WEIR, "run", str(csv), "out.csv", "--upper"], stderr=follower, check=True, cwd=tmp_path)
    os.close(follower)
    assert b"in.csv" in os.read(leader, 10_000)
    os.close(leader)


def test_every_setting_is_documented() -> None:
    from app.settings import Settings

    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for name in Settings.model_fields:
        assert f"`{name.upper()}`" in readme or f"`{name.upper()}," in readme or f"{name.upper()}`" in readme, name


def test_objects_stand_where_files_may(
    tmp_path: Path, csv: Path, swift: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in swift.environment().items():
        monkeypatch.setenv(name, value)
    bucket = swift.fresh_bucket()
    options = ["--s3-endpoint-url", swift.endpoint_url, "--s3-addressing", "path"]
    assert weir(tmp_path, "run", str(csv), f"s3://{bucket}/in.csv", *options).returncode == 0
    done = weir(
        tmp_path, "run", f"s3://{bucket}/in.csv", f"s3://{bucket}/", "--where", "a>1", "--to", "parquet", *options
    )
    assert (done.returncode, done.stderr) == (0, b"")
    keys = {found["Key"] for found in swift.client().list_objects_v2(Bucket=bucket)["Contents"]} - {"in.csv"}
    assert [key[-8:] for key in keys] == [".parquet"]
    printed = weir(tmp_path, "run", f"s3://{bucket}/{keys.pop()}", "-", "--to", "csv", *options)
    assert printed.stdout.decode() == 'a,s\n2,"y"\n3,\n'
    bad = weir(
        tmp_path, "run", f"s3://{bucket}/in.csv", f"s3://{bucket}/bad", "--where", "b>1", "--to", "csv", *options
    )
    assert bad.returncode == 1
    assert b"there is no column 'b'" in bad.stderr
    missing = weir(tmp_path, "run", f"s3://{bucket}/nothing.csv", "-", *options)
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert b"not_found" in missing.stderr
    assert swift.open_uploads(bucket) == []
    assert "bad" not in {found["Key"] for found in swift.client().list_objects_v2(Bucket=bucket)["Contents"]}


def test_a_directory_may_have_a_name(tmp_path: Path, csv: Path) -> None:
    out = tmp_path / "out"
    assert weir(tmp_path, "run", str(csv), "store:out/a/b.csv", "--stores", f"out={out}").returncode == 0
    assert (out / "a" / "b.csv").read_text() == CSV
    again = weir(tmp_path, "run", str(csv), "store:out/a/b.csv", "--overwrite", "false", "--stores", f"out={out}")
    assert again.returncode == 1
    assert b"precondition_failed" in again.stderr
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["b.csv"]
    outside = weir(tmp_path, "run", str(csv), "store:out/../c.csv", "--stores", f"out={out}")
    assert outside.returncode == 1
    assert not (tmp_path / "c.csv").exists()
