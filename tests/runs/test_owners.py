"""Who is alive: told by a lock on this host and by a beat elsewhere, and what becomes of the runs of who is not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.runs import owners as owners_module
from app.runs.database import Database, owners
from app.runs.owners import BEAT_S, DEAD_AFTER_S, Owner
from app.stores.spool import Spool
from tests.runs.process import Process, new_run


class Server:
    """A process: its place in a spool, and its name in the list."""

    def __init__(self, directory: Path, url: str) -> None:
        self.database = Database(url)
        self.spool = Spool(directory, limit_bytes=1000)
        self.owner = Owner(self.database, self.spool.directory)
        self.dead = False

    def alive(self) -> set[str]:
        """Everybody on the list."""
        with self.database.reading() as connection:
            return set(connection.scalars(select(owners.c.id)))

    def die(self) -> None:
        """As by kill -9: the lock goes, the name stays."""
        if not self.dead:
            self.dead = True
            self.spool.close()
            self.database.close()


def silent_for(server: Server | Process, seconds: float) -> None:
    """As if its last beat were that old."""
    with server.database.writing() as connection:
        old = update(owners).where(owners.c.id == server.owner.id).values(seen_at=time.time() - seconds)
        connection.execute(old)


@contextmanager
def servers(url: str, *directories: Path) -> Iterator[list[Server]]:
    """They have beaten once."""
    made = [Server(directory, url) for directory in directories]
    try:
        for each in made:
            each.owner.beat()
        yield made
    finally:
        for each in made:
            each.die()


def test_each_has_a_name_of_its_own(tmp_path: Path, url: str) -> None:
    with servers(url, tmp_path / "a", tmp_path / "a", tmp_path / "b") as (one, other, third):
        assert one.alive() == {one.owner.id, other.owner.id, third.owner.id}
        for _ in range(2):
            other.owner.leave()
            assert one.alive() == {one.owner.id, third.owner.id}
        other.owner.beat()
        other.owner.beat()
        assert len(one.alive()) == 3


def test_who_is_near_is_dead_as_soon_as_its_lock_is_gone(tmp_path: Path, url: str) -> None:
    with servers(url, tmp_path, tmp_path) as (one, other):
        one.owner.bury()
        assert len(one.alive()) == 2
        other.die()
        one.owner.bury()
        assert one.alive() == {one.owner.id}


def test_who_is_killed_is_found_out_by_a_look_and_not_before(tmp_path: Path, url: str) -> None:
    """A real process, and a real kill."""
    script = (
        "import sys, pathlib; from tests.runs.test_owners import Server;"
        "server = Server(pathlib.Path(sys.argv[1]), sys.argv[2]); server.owner.beat();"
        "print(server.owner.id, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path), url]
    with servers(url, tmp_path) as (here,):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            here.owner.bury()
            assert here.alive() == {here.owner.id, name}
            process.kill()
            process.wait(10)
        assert here.alive() == {here.owner.id, name}
        here.owner.bury()
        assert here.alive() == {here.owner.id}


@pytest.mark.parametrize("where", ["another host", "another spool"])
def test_who_is_far_is_dead_only_once_it_was_silent_for_long(tmp_path: Path, url: str, where: str) -> None:
    """Its lock cannot be seen from here, whether it has it or not."""
    far_directory = tmp_path / ("a" if where == "another host" else "b")
    with servers(url, tmp_path / "a", far_directory) as (one, far):
        if where == "another host":
            with far.database.writing() as connection:
                connection.execute(update(owners).where(owners.c.id == far.owner.id).values(host="another"))
        for seconds in (0.0, BEAT_S, DEAD_AFTER_S - 5, -DEAD_AFTER_S):  # a clock may also be ahead of ours
            silent_for(far, seconds)
            one.owner.bury()
            assert far.owner.id in one.alive(), seconds
        silent_for(far, DEAD_AFTER_S + 1)
        one.owner.bury()
        assert one.alive() == {one.owner.id}


def test_who_is_near_and_stands_still_is_dead_too(tmp_path: Path, url: str) -> None:
    """It has its lock, and nobody else would end what it has."""
    with servers(url, tmp_path, tmp_path) as (one, other):
        silent_for(other, DEAD_AFTER_S + 1)
        one.owner.bury()
        assert one.alive() == {one.owner.id}
        other.owner.beat()  # it goes on
        one.owner.bury()
        assert len(one.alive()) == 2


def test_nobody_buries_himself(tmp_path: Path, url: str) -> None:
    with servers(url, tmp_path) as (one,):
        silent_for(one, 10 * DEAD_AFTER_S)
        one.owner.bury()
        assert one.alive() == {one.owner.id}


def test_who_beats_at_the_last_moment_lives(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the list and the burial."""
    with servers(url, tmp_path / "a", tmp_path / "b") as (one, late):
        silent_for(late, DEAD_AFTER_S + 1)

        class Clock:
            @staticmethod
            def time() -> float:  # asked for by ``bury`` behind its look, and by ``beat``
                monkeypatch.setattr(owners_module, "time", time)
                late.owner.beat()
                return time.time()

        monkeypatch.setattr(owners_module, "time", Clock)
        one.owner.bury()
        assert one.alive() == {one.owner.id, late.owner.id}


def test_many_bury_and_beat_at_once(tmp_path: Path, url: str) -> None:
    with servers(url, *[tmp_path] * 12) as everybody, ThreadPoolExecutor(4) as threads:
        dead, living = everybody[:4], everybody[4:]
        for each in dead:
            each.die()

        def work(server: Server) -> None:
            for _ in range(3):
                server.owner.beat()
                server.owner.bury()

        assert list(threads.map(work, living)) == [None] * 8
        assert living[0].alive() == {each.owner.id for each in living}


async def test_a_run_is_its_owners_until_his_lease_is_over_and_then_one_heirs(tmp_path: Path, url: str) -> None:
    """On another host: what he had is taken over after his silence, once, and he does not get it back."""
    first, *heirs = [Process(tmp_path / name, url) for name in "abc"]
    entries = [first.book.add(new_run(f"{number:02}"), "{}") for number in range(6)]
    for entry in entries:
        await first.book.save(entry)
    for seconds in (0.0, DEAD_AFTER_S - 5):
        silent_for(first, seconds)
        for heir in heirs:
            heir.owner.bury()
            assert await heir.book.adopt() == []
    silent_for(first, DEAD_AFTER_S + 1)
    taken = []
    for heir in heirs:
        heir.owner.bury()
        taken.append(await heir.book.adopt())
    assert [len(found) for found in taken] == [6, 0]
    assert [entry.run.id for entry in taken[0]] == [entry.run.id for entry in entries]
    first.owner.beat()  # it had only stood still
    first.owner.bury()
    assert await first.book.adopt() == []
    stopped: list[str] = []
    for entry in entries:
        entry.look = lambda run=entry.run: run
        entry.stop = lambda name=entry.run.id: stopped.append(name)
    await first.book.refresh()
    await first.book.close()
    assert sorted(stopped) == [entry.run.id for entry in entries]
    for entry in entries:
        await first.fail(entry, "interrupted")
    for entry in taken[0]:
        await heirs[0].succeed(entry)
    assert {run.state for run in await heirs[1].book.newest(9)} == {"succeeded"}
    for each in (first, *heirs):
        await each.close()
