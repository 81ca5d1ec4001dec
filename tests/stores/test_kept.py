"""What is kept of runs: how long it can be read, what room it takes, and what the next process finds of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.stores import kept
from app.stores.catalogue import Stores
from app.stores.kept import KeptBytes, Shelf, SpooledBytes
from app.stores.metered import PartMeter
from app.stores.objects import Writing
from app.stores.retried import Patience
from app.stores.s3 import S3Client, S3Options
from app.stores.spool import Spool

DATA = random.Random(6).randbytes(5000)


class Server:
    """A process that keeps things under ``directory``, and in a store ``out``."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        (directory / "out").mkdir(parents=True, exist_ok=True)
        self.spool = Spool(directory / "spool", limit_bytes=limit_bytes)
        self.stores = Stores(
            S3Client(S3Options()),
            named={"out": str(directory / "out")},
            patience=Patience(1),
            meter=PartMeter(lambda _: None),
            on_retry=lambda _: None,
        )
        self.shelf = Shelf(directory / "kept", self.spool, self.stores)

    def put(self, data: bytes, name: str) -> str:
        file = self.spool.open()
        try:
            file.append(data)
            return self.shelf.put(file, name)
        finally:
            file.close()

    def read(self, place: str) -> bytes:
        with closing(self.shelf.open(place)) as found:
            return b"".join(found.pieces(0, found.nbytes, 700))

    def kept(self) -> tuple[int, int, int]:
        """Files and bytes that are kept, and bytes that are used in all."""
        seen = self.spool.statistics()
        return seen.kept_files, seen.kept_bytes, seen.used_bytes


@contextmanager
def server(directory: Path, limit_bytes: int = 1 << 20) -> Iterator[Server]:
    made = Server(directory, limit_bytes)
    try:
        yield made
    finally:
        made.spool.close()


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.code == code


def check_pieces(opened: KeptBytes, data: bytes) -> None:
    """Any stretch, in pieces of any size."""
    assert opened.nbytes == len(data)
    choose = random.Random(len(data))
    for _ in range(50):
        start = choose.randint(0, len(data))
        nbytes, piece_bytes = choose.randint(0, len(data) - start), choose.randint(1, 2000)
        pieces = list(opened.pieces(start, nbytes, piece_bytes))
        assert b"".join(pieces) == data[start : start + nbytes]
        assert all(0 < len(piece) <= piece_bytes for piece in pieces)


def test_what_is_kept_is_read_in_stretches_wherever_it_is(tmp_path: Path) -> None:
    with server(tmp_path) as here:
        out = here.stores.find("store:out/aa.result", threading.Event())
        out.store.put(out.key, [DATA], zlib.crc32(DATA), Writing("aa", "text/plain"))
        for place in (here.put(DATA, "aa.result"), out.url):
            with closing(here.shelf.open(place)) as opened:
                check_pieces(opened, DATA)
                opened.close()  # twice is once
        file = here.spool.open()
        file.append(DATA)
        with SpooledBytes(file) as held:
            file.close()
            check_pieces(held, DATA)
        assert here.spool.statistics().open_files == 0


def test_what_is_open_stays_though_it_is_dropped(tmp_path: Path) -> None:
    with server(tmp_path) as here:
        place = here.put(DATA, "aa.result")
        with closing(here.shelf.open(place)) as opened:
            here.shelf.drop(place)
            assert b"".join(opened.pieces(0, 5000, 1000)) == DATA
        assert here.shelf.path(place) is None
        with refused("gone"):
            here.shelf.open(place)


def test_what_is_gone_is_told_as_such_wherever_it_was(tmp_path: Path) -> None:
    with server(tmp_path) as here:
        for place in (f"file:{tmp_path}/kept/none", "store:out/none"):
            with refused("gone"):
                here.shelf.open(place)
            here.shelf.drop(place)  # no error
        out = here.stores.find("store:out/aa", threading.Event())
        out.store.put(out.key, [b"x"], zlib.crc32(b"x"), Writing("aa", "text/plain"))
        here.shelf.drop(out.url)
        with refused("gone"):
            here.shelf.open(out.url)
        assert here.shelf.path(out.url) is None
        assert here.kept() == (0, 0, 0)


def test_a_file_that_was_cut_is_not_taken_for_whole(tmp_path: Path) -> None:
    with server(tmp_path) as here:
        place = here.put(DATA, "aa.result")
        with closing(here.shelf.open(place)) as opened:
            os.truncate(tmp_path / "kept" / "aa.result", 1500)
            with refused("source_failed"):
                list(opened.pieces(0, 5000, 1000))


def test_it_takes_of_the_room_until_it_is_dropped(tmp_path: Path) -> None:
    with server(tmp_path, limit_bytes=10_000) as here:
        places = [here.put(DATA, name) for name in ("aa", "bb")]
        assert here.kept() == (2, 10_000, 10_000)
        with refused("spool_full"):
            here.put(b"x", "cc")
        assert here.kept() == (2, 10_000, 10_000)
        for _ in range(2):
            here.shelf.drop(places[0])
        assert here.kept() == (1, 5000, 5000)
        assert here.read(here.put(DATA, "cc")) == DATA


def test_what_an_earlier_attempt_left_gives_way(tmp_path: Path) -> None:
    """Its server went down between the file and its record; the run is done again within the minute."""
    with server(tmp_path) as first:
        place = first.put(b"of the first attempt", "aa.result")
    with server(tmp_path) as second:
        second.shelf.take_stock(set())
        with closing(second.shelf.open(place)) as reading:
            assert second.put(DATA, "aa.result") == place
            assert b"".join(reading.pieces(0, 20, 20)) == b"of the first attempt"
        assert second.read(place) == DATA
        assert second.kept() == (1, 5000, 5000)
        assert os.listdir(tmp_path / "kept") == ["aa.result"]


def test_a_restart_counts_what_is_known_and_drops_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(tmp_path) as first:
        known = {first.put(bytes(size), f"{size}.result") for size in (10, 200)}
        unknown = first.put(bytes(3000), "unknown.result")
    with server(tmp_path) as second:
        second.shelf.take_stock(known)  # a record may be about to be written
        assert second.kept() == (3, 3210, 3210)
    with server(tmp_path) as third:
        monkeypatch.setattr(kept, "_YOUNG_S", 0.0)
        third.shelf.take_stock(known | {"file:/somewhere/else", "s3://bucket/key", ""})
        assert third.kept() == (2, 210, 210)
        assert {third.read(place) for place in known} == {bytes(10), bytes(200)}
        assert third.shelf.path(unknown) is None
        for place in known:
            third.shelf.drop(place)
        assert third.kept() == (0, 0, 0)


def test_a_file_is_young_from_when_it_was_put(tmp_path: Path) -> None:
    """Rejects may be written to for the last time hours before their run ends."""
    with server(tmp_path) as here:
        file = here.spool.open()
        file.append(b"x")
        os.utime(file.path, (0, 0))
        place = here.shelf.put(file, "aa.rejects")
        file.close()
        here.shelf.take_stock(set())
        assert here.read(place) == b"x"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3000), st.booleans()), max_size=12))
def test_the_count_is_what_is_there_whatever_was_done(steps: list[tuple[str, int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory, server(Path(directory), limit_bytes=8000) as here:
        there: dict[str, int] = {}
        for name, nbytes, putting in steps:
            if not putting:
                here.shelf.drop(f"file:{directory}/kept/{name}")
                there.pop(name, None)
            elif sum(there.values()) + nbytes <= 8000:
                here.put(bytes(nbytes), name)
                there[name] = nbytes
            else:  # what is to be replaced counts until the new one is whole
                with refused("spool_full"):
                    here.put(bytes(nbytes), name)
            total = sum(there.values())
            assert here.kept() == (len(there), total, total)
            on_disk = {path.name: path.stat().st_size for path in Path(directory, "kept").iterdir()}
            assert on_disk == there


def test_two_processes_that_drop_the_same_count_it_once(tmp_path: Path) -> None:
    with server(tmp_path) as one, server(tmp_path) as other, ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            place = one.put(b"x" * 100, "aa.result")
            assert list(threads.map(lambda each: each.shelf.drop(place), (one, other))) == [None, None]  # noqa: B023
        assert sum(each.kept()[0] for each in (one, other)) == 0
        assert sum(each.kept()[2] for each in (one, other)) == 0


def test_it_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from tests.stores.test_kept import DATA, Server;"
        "print(Server(pathlib.Path(sys.argv[1]), 1 << 20).put(DATA, 'aa.result'), flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -9
    with server(tmp_path) as here:
        assert here.read(killed.stdout.strip()) == DATA
        assert len(os.listdir(tmp_path / "spool")) == 1
