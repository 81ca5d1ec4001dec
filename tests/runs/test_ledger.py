"""The ledger of writes to stores: noted before they begin, forgotten once they are over, and found by whoever comes when
their process is gone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.errors import Refusal
from app.core.page import Page
from app.runs.database import Database, runs, writes
from app.runs.ledger import Ledger, Write, end_write
from app.runs.owners import Owner
from app.sinks.multipart import MultipartSink
from app.stores.catalogue import Located
from app.stores.directory import DirectoryStore
from app.stores.memory import MemoryStore
from app.stores.objects import ObjectInfo, Piece, SentPart, Transient, Writing
from app.stores.part_sizes import PartSizes
from app.stores.retried import Patience, Retried
from app.stores.spool import Spool
from tests.runs.process import Process, new_run, process

STAGES = ("opened", "begun", "noted", "sent", "completing", "made", "closed")
DATA = b"0123456789" * 100


class Writer:
    """What a process has that writes to stores."""

    def __init__(self, directory: Path, url: str) -> None:
        self.database = Database(url)
        self.spool = Spool(directory, limit_bytes=1000)
        self.owner = Owner(self.database, self.spool.directory)
        self.owner.beat()
        self.ledger = Ledger(self.database, self.owner.id)

    def rows(self) -> dict[int, Any]:
        """All entries, whoever's."""
        with self.database.reading() as connection:
            return {row.id: row for row in connection.execute(select(writes))}

    def end_all(self, store: MemoryStore | DirectoryStore) -> None:
        for write in self.ledger.abandoned():
            key = write.url.partition("/")[2] if isinstance(store, DirectoryStore) else write.url.partition(":")[2]
            if end_write(write, store, key, self.ledger.uploads_of_others):
                self.ledger.close(write.entry)

    def close(self) -> None:
        self.owner.leave()
        self.database.close()
        self.spool.close()


@contextmanager
def writers(directory: Path, url: str, count: int = 2) -> Iterator[list[Writer]]:
    made = [Writer(directory, url) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def writing(token: str) -> Writing:
    return Writing(token, "text/plain")


def write_until(stage: str, ledger: Ledger, store: MemoryStore | DirectoryStore, token: str) -> int:
    """A write to the key ``stage`` that comes to that point and no further; the number of its entry."""
    entry = ledger.open(store.url(stage), token)
    if stage == "opened":
        return entry
    upload_id = store.begin(stage, writing(token))
    if stage == "begun":
        return entry
    ledger.begun(entry, upload_id)
    if stage == "noted":
        return entry
    part = store.put_part(stage, upload_id, 1, 0, [DATA], zlib.crc32(DATA))
    if stage == "sent":
        return entry
    ledger.completing(entry, len(DATA), "ab" * 32)
    if stage == "completing":
        return entry
    store.complete(stage, upload_id, [part], writing(token))
    if stage == "closed":
        ledger.close(entry)
    return entry


def write_and_be_killed(directory: str, url: str) -> None:
    """In a process of its own: a write to every stage, and the end."""
    writer = Writer(Path(directory) / "spool", url)
    store = DirectoryStore(Path(directory) / "out", "out")
    for stage in STAGES:
        write_until(stage, writer.ledger, store, f"{stage}.1")
    os.kill(os.getpid(), 9)


def test_a_process_that_is_killed_leaves_what_it_takes_to_end_its_writes(tmp_path: Path, url: str) -> None:
    (tmp_path / "out").mkdir()
    script = "import sys; from tests.runs.test_ledger import write_and_be_killed; write_and_be_killed(*sys.argv[1:])"
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path), url], check=False)
    assert killed.returncode == -9
    store = DirectoryStore(tmp_path / "out", "out")
    assert {upload.key for upload in store.uploads("")} == {"begun", "noted", "sent", "completing"}
    with writers(tmp_path / "spool", url, 1) as (next_one,):
        assert next_one.ledger.abandoned() == []  # its owner is on the list still
        next_one.owner.bury()
        found = {write.url.removeprefix("store:out/"): write for write in next_one.ledger.abandoned()}
        assert set(found) == set(STAGES) - {"closed"}
        assert next_one.ledger.open_writes == 6
        for stage, write in found.items():
            assert (write.token, write.left) == (f"{stage}.1", False)
            assert (write.upload_id is not None) == (stage in STAGES[2:]), stage
            assert (write.nbytes, write.digest) == ((1000, "ab" * 32) if stage in STAGES[4:] else (None, None)), stage
            assert next_one.ledger.of_run(stage, 1) == write
        next_one.end_all(store)
        assert (next_one.ledger.abandoned(), next_one.ledger.open_writes, next_one.rows()) == ([], 0, {})
    assert store.uploads("") == []
    objects = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert objects == {"made": DATA, "closed": DATA}


class Watched(MemoryStore):
    """Tells ``watch`` of each call that may leave something behind, before it is made."""

    def __init__(self, watch: Callable[[str], None]) -> None:
        super().__init__()
        self.watch = watch

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        self.watch("put")
        return super().put(key, pieces, crc32, writing)

    def begin(self, key: str, writing: Writing) -> str:
        self.watch("begin")
        return super().begin(key, writing)

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        self.watch("put_part")
        return super().put_part(key, upload_id, number, offset, pieces, crc32)

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        self.watch("complete")
        return super().complete(key, upload_id, parts, writing)

    def abort(self, key: str, upload_id: str) -> None:
        self.watch("abort")
        super().abort(key, upload_id)


def sink_to(store: MemoryStore, ledger: Ledger, executor: ThreadPoolExecutor) -> MultipartSink:
    return MultipartSink(
        Located(store, "k"),
        writing("token"),
        sizes=PartSizes(400, 400, 10, 4000),
        in_flight=2,
        page_bytes=1000,
        hashed=False,
        executor=executor,
        ledger=ledger,
        stop=threading.Event(),
        on_abort=lambda _: None,
    )


async def fill(sink: MultipartSink, nbytes: int) -> None:
    await sink.write(Page(DATA[:nbytes], nbytes))
    await sink.commit()


@pytest.mark.parametrize("nbytes", [100, 1000])
@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_a_write_is_noted_before_it_begins_and_forgotten_when_it_is_over(
    tmp_path: Path, url: str, nbytes: int, end: str
) -> None:
    """As another process sees it at each call to the store."""
    with writers(tmp_path, url) as (one, other), ThreadPoolExecutor(4) as threads:
        seen: list[tuple[str, bool, bool]] = []

        def look(call: str) -> None:
            (row,) = other.rows().values()
            assert (row.url, row.token, row.owner) == ("memory:k", "token", one.owner.id)
            seen.append((call, row.upload_id is not None, row.nbytes == nbytes))

        store = Watched(look)
        sink = sink_to(store, one.ledger, threads)
        assert other.rows() == {}
        if end == "commit":
            await fill(sink, nbytes)
        else:
            await sink.write(Page(DATA[:nbytes], nbytes))
            await sink.abort()
        parts = [("begin", False, False), ("put_part", True, False), ("put_part", True, False)]
        if nbytes == 100:
            assert seen == ([("put", False, True)] if end == "commit" else [])
        elif end == "commit":
            assert seen == [*parts, ("put_part", True, False), ("complete", True, True)]
        else:
            assert (seen[0], seen[-1]) == (parts[0], ("abort", True, False))
        assert (one.ledger.open_writes, store.uploads("")) == (0, [])
        if end == "commit":  # nothing is open, and who comes finds that the object is whole
            (row,) = other.rows().values()
            assert row.nbytes == nbytes
            await sink.abort()  # there will be no record
        assert other.rows() == {}


async def test_the_record_of_a_run_that_has_succeeded_takes_its_entries_with_it(tmp_path: Path, url: str) -> None:
    """In one transaction: whoever comes finds the one or the other. What others wrote for it stays."""
    async with process(tmp_path / "a", url) as one, process(tmp_path / "b", url) as other:
        ledger, others = Ledger(one.database, one.owner.id), Ledger(other.database, other.owner.id)
        entries = {name: ledger.open("memory:k", name) for name in ("done.1", "lost.1", "other.1", "left.1", "cli")}
        entries["done.0"] = others.open("memory:k", "done.0")
        ledger.leave(entries["left.1"])
        for name in ("done", "failed", "left"):
            run = one.book.add(new_run(name, "sink"))
            await one.book.save(run)
            await (one.fail(run) if name == "failed" else one.succeed(run))
            with other.database.reading() as connection:
                left = set(connection.scalars(select(writes.c.id)))
            assert left == set(entries.values()) - {entries["done.1"]}
        lost = one.book.add(new_run("lost", "sink"))  # by who was taken for dead
        await one.book.save(lost)
        with other.database.writing() as connection:
            connection.execute(update(runs).where(runs.c.id == "lost").values(owner=other.owner.id))
        await one.succeed(lost)
        with other.database.reading() as connection:
            assert entries["lost.1"] in set(connection.scalars(select(writes.c.id)))
        gone = one.book.add(new_run("other", "sink"))
        await one.book.save(gone)
        gone.forgotten = True
        await one.succeed(gone)
        with other.database.reading() as connection:
            assert entries["other.1"] not in set(connection.scalars(select(writes.c.id)))


async def test_what_may_have_made_the_object_of_a_run_waits_for_who_takes_the_run_up(tmp_path: Path, url: str) -> None:
    """Another server ends what was left: it must not take away what the run is settled by."""
    dead = Process(tmp_path / "a", url)
    run = dead.book.add(new_run("run", "sink"))
    await dead.book.save(run)
    ledger = Ledger(dead.database, dead.owner.id)
    made, begun = (ledger.open("memory:k", token) for token in ("run.1", "run.2"))
    ledger.completing(made, 1000, None)
    dead.owner.leave()
    await dead.die()
    async with process(tmp_path / "b", url) as heir, process(tmp_path / "c", url) as third:
        (taken,) = await heir.book.adopt()
        others = Ledger(third.database, third.owner.id)
        assert [write.entry for write in others.abandoned()] == [begun]
        assert others.of_run("run", 1) is not None
        await heir.fail(taken)
        assert {write.entry for write in others.abandoned()} == {made, begun}


@pytest.mark.parametrize(("nbytes", "at"), [(100, "nothing"), (1000, "begin"), (1000, "put_part")])
async def test_who_was_taken_for_dead_does_not_go_on_with_a_write_that_was_ended(
    tmp_path: Path, url: str, nbytes: int, at: str
) -> None:
    """Nobody would know of it any more."""
    with writers(tmp_path, url) as (slow, other), ThreadPoolExecutor(4) as threads:

        def end(call: str) -> None:
            if call == at:
                end_of_the_slow()

        def end_of_the_slow() -> None:
            slow.owner.leave()  # as if it had not beaten for long
            other.end_all(store)

        store = Watched(end)
        sink = sink_to(store, slow.ledger, threads)
        if at == "nothing":  # between its note and its only call
            note = slow.ledger.open

            def late(url: str, token: str) -> int:
                entry = note(url, token)
                end_of_the_slow()
                return entry

            slow.ledger.open = late  # type: ignore[method-assign]
        with pytest.raises(Refusal) as refused:
            await fill(sink, nbytes)
        await sink.abort()
        assert refused.value.code in ("interrupted", "store_failed")  # the store may be the first to say so
        assert (store.uploads(""), other.rows(), slow.ledger.open_writes) == ([], {}, 0)
        with pytest.raises(Refusal, match="not_found"):
            store.head("k")


def test_what_a_living_process_writes_is_nobody_elses(tmp_path: Path, url: str) -> None:
    with writers(tmp_path, url) as (one, other):
        store = MemoryStore()
        entries = [write_until(stage, one.ledger, store, stage) for stage in STAGES]
        for each in (one, other):
            assert each.ledger.abandoned() == []
        assert (one.ledger.open_writes, other.ledger.open_writes) == (6, 0)
        one.ledger.leave(entries[2])  # it could not be aborted
        for each in (one, other):
            (write,) = each.ledger.abandoned()
            assert (write.entry, write.left) == (entries[2], True)
        assert (one.ledger.open_writes, other.ledger.open_writes) == (6, 1)
        other.end_all(store)
        assert {upload.key for upload in store.uploads("")} == {"begun", "sent", "completing"}


@pytest.mark.parametrize("made_by", ["ours", "another's"])
def test_a_write_that_had_failed_leaves_no_object_of_its_own(tmp_path: Path, url: str, made_by: str) -> None:
    with writers(tmp_path, url) as (one, other):
        store = MemoryStore()
        entry = write_until("made", one.ledger, store, "ours")
        if made_by != "ours":
            store.put("made", [DATA], zlib.crc32(DATA), writing(made_by))
        one.ledger.leave(entry)
        other.end_all(store)
        if made_by == "ours":
            with pytest.raises(Refusal, match="not_found"):
                store.head("made")
        else:
            assert store.head("made").nbytes == 1000


def test_an_upload_whose_id_was_never_noted_is_told_from_those_of_others(tmp_path: Path, url: str) -> None:
    with writers(tmp_path, url, 3) as (dead, living, heir):
        store = MemoryStore()
        write_until("begun", dead.ledger, store, "dead")
        dead.owner.leave()
        mine = living.ledger.open(store.url("begun"), "living")
        (write,) = heir.ledger.abandoned()
        upload_id = store.begin("begun", writing("living"))
        # Which of the two is the living one's is not known yet.
        assert heir.ledger.uploads_of_others(write) is None
        assert end_write(write, store, "begun", heir.ledger.uploads_of_others) is False
        assert len(store.uploads("")) == 2
        living.ledger.begun(mine, upload_id)
        assert heir.ledger.uploads_of_others(write) == {upload_id}
        assert end_write(write, store, "begun", heir.ledger.uploads_of_others) is True
        assert [upload.upload_id for upload in store.uploads("")] == [upload_id]


class Losing(MemoryStore):
    """Loses its first answer to ``begin``."""

    lost = False

    def begin(self, key: str, writing: Writing) -> str:
        upload_id = super().begin(key, writing)
        if not self.lost:
            self.lost = True
            raise Transient("reset", "the answer was lost")
        return upload_id


@pytest.mark.parametrize("known", ["before", "while it is waited for"])
def test_who_aborts_what_it_began_and_was_not_told_of_leaves_what_another_writes_to_the_same_object(
    tmp_path: Path, url: str, known: str
) -> None:
    with writers(tmp_path, url) as (one, other), ThreadPoolExecutor(1) as threads:
        store, waits, go_on = Losing(), threading.Event(), threading.Event()
        store.lost = True
        others_entry = other.ledger.open(store.url("k"), "other.1")
        others_upload = store.begin("k", writing("other.1"))
        store.lost = False

        def on_retry(reason: str) -> None:
            if reason == "conflict":
                waits.set()
                assert go_on.wait(10)

        retried = Retried(store, Patience(4, 0.0, 0.0), on_retry, threading.Event(), one.ledger.uploads_beside)
        if known == "before":
            other.ledger.begun(others_entry, others_upload)
        one.ledger.open(store.url("k"), "one.1")
        one.ledger.open(store.url("another"), "two.1")
        begun = threads.submit(retried.begin, "k", writing("one.1"))
        if known != "before":
            assert waits.wait(10)
            assert len(store.uploads("k")) == 3
            other.ledger.begun(others_entry, others_upload)
            go_on.set()
        upload_id = begun.result(10)
        assert {upload.upload_id for upload in store.uploads("k")} == {others_upload, upload_id}
        assert not waits.is_set() or known != "before"


def test_an_upload_that_was_begun_long_before_is_not_ours(tmp_path: Path, url: str) -> None:
    with writers(tmp_path, url, 2) as (dead, heir):
        store = MemoryStore()
        somebodys = store.begin("begun", writing("somebody"))
        store._uploads[somebodys].began_at -= 3600
        write_until("begun", dead.ledger, store, "dead")
        dead.owner.leave()
        heir.end_all(store)
        assert ([upload.upload_id for upload in store.uploads("")], heir.rows()) == ([somebodys], {})


def test_the_latest_write_of_a_run_is_found(tmp_path: Path, url: str) -> None:
    with writers(tmp_path, url) as (one, other):
        for attempt in (1, 2, 2, 3):
            entry = one.ledger.open("s3://b/k", f"run.{attempt}")
        for token in ("run.rejects", "other.3", "run.33"):
            one.ledger.open("s3://b/k", token)
        found = other.ledger.of_run("run", 3)
        assert found is not None
        assert (found.entry, found.token) == (entry, "run.3")
        assert (other.ledger.of_run("run", 4), other.ledger.of_run("none", 1)) == (None, None)


def test_a_number_is_never_given_again(tmp_path: Path, url: str) -> None:
    """Who was slow would close somebody else's entry with it."""
    with writers(tmp_path, url) as (one, other):
        numbers = []
        for each in (one, other, one, one):
            numbers.append(each.ledger.open("s3://b/k", "t"))
            each.ledger.close(numbers[-1])
        assert numbers == sorted(set(numbers))
        entry = other.ledger.open("s3://b/k", "t")
        one.ledger.close(numbers[-1])
        assert set(other.rows()) == {entry}


def test_many_end_the_same_writes_at_once_while_new_ones_begin(tmp_path: Path, url: str) -> None:
    with writers(tmp_path, url, 4) as (dead, *heirs), ThreadPoolExecutor(4) as threads:
        store = MemoryStore()
        for number in range(8):
            for stage in STAGES:
                write_until(stage, dead.ledger, store, f"{stage}.{number}")
        dead.owner.leave()
        begun: list[int] = []

        def begin_others() -> None:
            for number in range(30):
                entry = heirs[0].ledger.open(f"memory:{number}", "new")
                heirs[0].ledger.begun(entry, store.begin(str(number), writing("new")))
                begun.append(entry)

        working = [threads.submit(begin_others), *(threads.submit(heir.end_all, store) for heir in heirs)]
        for each in working:
            each.result(30)
        heirs[1].end_all(store)  # what could not be told as long as others began
        assert set(heirs[1].rows()) == set(begun)
        assert {upload.key for upload in store.uploads("")} == {str(number) for number in range(30)}
        assert (heirs[0].ledger.abandoned(), heirs[0].ledger.open_writes) == ([], 30)


def test_whatever_two_processes_do_each_sees_what_is_left(tmp_path: Path, url: str) -> None:
    """Against a model: an entry is somebody's, or abandoned, or gone."""
    choose = random.Random(1)
    with writers(tmp_path, url, 3) as (one, other, watcher):
        model: dict[int, dict[str, Any]] = {}
        alive = {one.owner.id: one, other.owner.id: other}
        for step in range(150):
            writer = choose.choice((one, other))
            mine = [entry for entry, values in model.items() if values["owner"] == writer.owner.id]
            act = choose.choice(("open", "open", "begun", "completing", "close", "leave", "die", "beat"))
            if act == "open":
                entry = writer.ledger.open(f"s3://b/{step}", f"t{step}")
                model[entry] = {"owner": writer.owner.id, "upload_id": None, "nbytes": None, "token": f"t{step}"}
            elif act == "die":
                writer.owner.leave()
                alive.pop(writer.owner.id, None)
            elif act == "beat":
                writer.owner.beat()
                alive[writer.owner.id] = writer
            elif mine:
                entry = choose.choice(mine)
                if act == "begun":
                    writer.ledger.begun(entry, f"u{step}")
                    model[entry]["upload_id"] = f"u{step}"
                elif act == "completing":
                    writer.ledger.completing(entry, 2**40 + step, None)
                    model[entry]["nbytes"] = 2**40 + step
                elif act == "leave":
                    writer.ledger.leave(entry)
                    model[entry]["owner"] = None
                else:
                    writer.ledger.close(entry)
                    del model[entry]
            expected = {entry: values for entry, values in model.items() if values["owner"] not in alive}
            assert {write.entry: described(write) for write in watcher.ledger.abandoned()} == expected
            assert watcher.ledger.open_writes == len(expected)


def described(write: Write) -> dict[str, Any]:
    return {"owner": write.owner, "upload_id": write.upload_id, "nbytes": write.nbytes, "token": write.token}
