from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.errors import Refusal
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile


def test_bytes_are_counted_and_given_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=100)
    file = spool.open()
    file.append(b"hello ")
    file.append(memoryview(b"world"))
    assert (file.read_at(0, 100), file.read_at(6, 3), file.read_at(11, 5)) == (b"hello world", b"wor", b"")
    assert (spool.statistics().used_bytes, spool.statistics().open_files) == (11, 1)
    file.close()
    file.close()
    assert (spool.statistics().used_bytes, spool.statistics().open_files) == (0, 0)
    spool.close()
    assert not list(tmp_path.iterdir())


def test_files_have_no_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=100)
    file = spool.open()
    file.append(b"x")
    assert [path.name for path in spool.directory.iterdir()] == ["owner.lock"]
    assert Path(file.path).read_bytes() == b"x"
    file.close()
    spool.close()


def test_the_limit_is_told_and_nothing_of_the_piece_is_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=10)
    file = spool.open()
    file.append(b"12345678")
    with pytest.raises(Refusal, match="SPOOL_LIMIT") as refused:
        file.append(b"123")
    assert refused.value.code == "spool_full"
    file.append(b"12")
    assert file.read_at(0, 99) == b"1234567812"
    file.close()
    spool.close()


@pytest.mark.parametrize(
    ("number", "code", "detail"),
    [
        (28, "spool_full", "SPOOL_DIR is full"),
        (24, "spool_failed", "SPOOL_DIR: Too many open files"),
        (5, "spool_failed", "SPOOL_DIR: Input/output error"),
    ],
)
def test_what_the_disk_says_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str, detail: str
) -> None:
    spool = Spool(tmp_path, limit_bytes=1000)
    file = spool.open()

    def broken(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        with pytest.raises(Refusal, match=detail) as refused:
            file.append(b"x")
        assert refused.value.code == code
        assert spool.statistics().used_bytes == 0
        patch.setattr(os, "open", broken)
        with pytest.raises(Refusal, match=detail) as refused:
            spool.open()
        assert refused.value.code == code
    file.close()
    statistics = spool.statistics()
    assert (statistics.used_bytes, statistics.open_files) == (0, 0)
    spool.close()


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000)
    shutil.rmtree(spool.directory)
    with pytest.raises(Refusal, match="No such file or directory") as refused:
        spool.open()
    assert refused.value.code == "spool_failed"
    spool.close()


def test_what_a_killed_process_left_is_cleared_and_a_living_ones_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from app.stores.spool import Spool; s = Spool(pathlib.Path(sys.argv[1]), limit_bytes=9);"
        "(s.directory / 'left').write_text('x'); print(s.directory, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdin is not None
    place = Path(other.stdout.readline().strip())
    Spool(tmp_path, limit_bytes=9).close()
    assert (place / "left").exists()
    other.kill()
    other.wait(10)
    other.stdin.close()
    other.stdout.close()
    Spool(tmp_path, limit_bytes=9).close()
    assert not place.exists()


def test_processes_that_start_at_once_do_not_clear_each_other(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from app.stores.spool import take_place;"
        "places = [take_place(pathlib.Path(sys.argv[1]))[0] for _ in range(40)]; print(all(p.exists() for p in places))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=30)[0].strip() for process in several] == ["True"] * 4
    Spool(tmp_path, limit_bytes=9).close()
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_over_and_give_only_what_is_new(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000, recycle_bytes=500)
    file = spool.open()
    file.append(b"secret" * 10)
    file.close()
    assert (spool.statistics().used_bytes, spool.statistics().recycled_bytes) == (0, 60)
    again = spool.open()
    assert spool.statistics().recycled_bytes == 0
    again.append(b"new")
    assert (again.read_at(0, 1000), again.read_at(3, 10)) == (b"new", b"")
    again.trim()
    assert Path(again.path).read_bytes() == b"new"
    again.close()
    spool.close()


def test_what_waits_to_be_written_over_makes_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=100, recycle_bytes=100)
    first, second = spool.open(), spool.open()
    first.append(bytes(60))
    second.append(bytes(40))
    first.close()
    second.close()
    assert spool.statistics().recycled_bytes == 100
    third = spool.open()
    third.append(bytes(90))
    assert spool.statistics().recycled_bytes <= 10
    third.close()
    spool.close()


def test_a_full_disk_takes_from_what_waits_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, limit_bytes=1000, recycle_bytes=1000)
    small, large = spool.open(), spool.open()
    small.append(b"x")
    large.append(bytes(50))
    small.close()
    large.close()
    file = spool.open()
    pwrite, left = os.pwrite, [1]

    def full_once(fd: int, data: memoryview, offset: int) -> int:
        if left and left.pop():
            raise OSError(28, "No space left on device")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full_once)
    file.append(b"abc")
    assert (file.read_at(0, 9), spool.statistics().recycled_bytes) == (b"abc", 0)
    file.close()
    spool.close()


def test_a_file_that_is_held_outlives_its_closing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000, recycle_bytes=1000)
    file = spool.open()
    file.append(b"hello")
    with file.held() as fd:
        file.close()
        assert spool.open().read_at(0, 5) == b""
        assert (os.pread(fd, 5, 0), file.read_at(0, 5)) == (b"hello", b"hello")
        assert spool.statistics().used_bytes == 5
    assert spool.statistics().used_bytes == 0
    with pytest.raises(Refusal, match="no longer kept"):
        file.read_at(0, 1)
    spool.close()


@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("pread", lambda file, path: file.read_at(0, 1)),
        ("ftruncate", lambda file, path: file.trim()),
        ("fsync", lambda file, path: file.link(path)),
        ("link", lambda file, path: file.link(path)),
    ],
)
def test_a_disk_that_fails_later_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: Callable[[SpoolFile, Path], object]
) -> None:
    spool = Spool(tmp_path / "spool", limit_bytes=1000, recycle_bytes=500)
    used = spool.open()
    used.append(b"longer than what follows")
    used.close()
    file = spool.open()
    file.append(b"kept")

    def broken(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(Refusal, match="SPOOL_DIR: Input/output error") as refused:
            use(file, tmp_path / "name")
    assert refused.value.code == "spool_failed"
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    assert file.read_at(0, 9) == b"kept"
    file.close()
    spool.close()
    assert spool.statistics().used_bytes == 0


def test_a_file_that_got_a_name_outlives_its_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit_bytes=1000, recycle_bytes=500)
    file = spool.open()
    file.append(b"kept")
    file.link(tmp_path / "name")
    file.close()
    other = spool.open()  # not the same file again
    other.append(b"other")
    other.close()
    spool.close()
    assert (tmp_path / "name").read_bytes() == b"kept"
    assert spool.statistics().used_bytes == 0


def test_a_file_system_that_links_nothing_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise FileNotFoundError

    spool = Spool(tmp_path / "spool", limit_bytes=10 << 20)
    file = spool.open()
    file.append(bytes(range(256)) * 20_000)
    monkeypatch.setattr(os, "link", no_link)
    file.link(tmp_path / "name")
    file.close()
    spool.close()
    assert (tmp_path / "name").read_bytes() == bytes(range(256)) * 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name", "spool"]


def test_a_copy_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise FileNotFoundError

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path / "spool", limit_bytes=1000)
    file = spool.open()
    file.append(b"x")
    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "sendfile", full)
    with pytest.raises(Refusal, match="SPOOL_DIR is full"):
        file.link(tmp_path / "name")
    file.close()
    spool.close()
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
