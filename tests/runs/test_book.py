"""The book over a real database: what one process writes another reads, takes over, cancels and forgets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from app.core.errors import Refusal
from app.runs import book as book_module
from app.runs.book import Entry
from app.runs.database import runs
from app.runs.record import FINAL, Restarted, Started, advance
from app.stores import kept
from app.stores.s3 import S3Client, S3Options
from tests.runs.process import Process, new_run, process


async def test_what_one_process_ends_another_finds(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as first, process(tmp_path / "b", url) as second:
        entry = first.book.add(new_run("aa", "whole"))
        await first.book.save(entry)
        assert (await second.book.find("aa")).run.state == "accepted"
        assert first.book.in_flight()["whole"] == 1
        entry.result = first.result(b"hello", "aa.result")
        waiting = asyncio.create_task(second.book.wait("aa", 10))
        await first.succeed(entry)
        found = await waiting
        assert (found.run.state, found.run.digest, found.result) == ("succeeded", "ab" * 32, entry.result)
        assert found.result is not None
        kept = second.shelf.open(found.result.place)
        assert b"".join(kept.pieces(0, 5, 2)) == b"hello"
        kept.close()
        await second.book.forget(found)
        with pytest.raises(Refusal, match="no run"):
            await first.book.find("aa")
        assert first.kept() == []


async def test_whoever_waits_is_told_at_the_end_or_when_his_time_is_over(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as here, process(tmp_path / "b", url) as there:
        entry = here.book.add(new_run("aa"))
        await here.book.save(entry)
        for book in (here.book, there.book):
            assert not (await book.wait("aa", 0.01)).ended.is_set()
        waiting = [asyncio.create_task(book.wait("aa", 60)) for book in (here.book, here.book, there.book)]
        await asyncio.sleep(0)
        here.succeed(entry)
        assert [(await each).run.state for each in waiting] == ["succeeded"] * 3
        with pytest.raises(Refusal, match="no run"):
            await there.book.wait("xx", 60)


async def test_runs_of_a_dead_process_are_taken_over_once(tmp_path: Path, url: str) -> None:
    dead = Process(tmp_path / "spool", url)
    for name in ("aa", "bb"):
        await dead.book.save(dead.book.add(new_run(name), "{}"))
    async with process(tmp_path / "spool", url) as first, process(tmp_path / "spool", url) as second:
        first.owner.bury()
        assert await first.book.adopt() == []  # it holds its lock
        await dead.die()
        for alive in (first, second):
            alive.owner.bury()
        taken = await asyncio.gather(first.book.adopt(), second.book.adopt())
        assert sorted(entry.run.id for found in taken for entry in found) == ["aa", "bb"]
        assert all(entry.asked == "{}" for found in taken for entry in found)
        for mine, found in zip((first, second), taken, strict=True):
            for entry in found:
                assert await mine.book.find(entry.run.id) is entry
                await mine.fail(entry, "interrupted")
        assert {run.state for run in await first.book.newest(9)} == {"failed"}
        assert await first.book.adopt() == []  # what has ended stays with the dead


async def test_many_take_over_a_lot_at_once_and_nothing_twice(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "_SWEPT_AT_A_TIME", 7)
    dead = Process(tmp_path / "dead", url)
    names = [f"{number:02}" for number in range(40)]
    await asyncio.gather(*(dead.book.save(dead.book.add(new_run(name))) for name in names))
    dead.owner.leave()
    await dead.die()
    heirs = [Process(tmp_path / str(number), url) for number in range(4)]

    async def inherit(heir: Process) -> list[str]:
        taken: list[str] = []
        while found := await heir.book.adopt():
            assert len(found) <= 7
            taken += [entry.run.id for entry in found]
            await asyncio.gather(*(heir.fail(entry, "interrupted") for entry in found))
        return taken

    taken = await asyncio.gather(*(inherit(heir) for heir in heirs))
    # One that found nothing may have been late by a moment: what was taken by others meanwhile.
    taken.append(await inherit(heirs[0]))
    assert sorted(name for found in taken for name in found) == names
    for heir in heirs:
        await heir.close()


async def test_a_run_that_was_released_is_the_next_ones(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as first, process(tmp_path / "b", url) as next_one:
        entry = first.book.add(new_run("aa"), "{}")
        await first.book.save(entry)
        first.book.release(entry)
        await first.book.close()
        assert await next_one.book.adopt() == []  # its owner is still there
        first.owner.leave()
        taken = await next_one.book.adopt()
        assert [(found.run.id, found.asked, found.run.state) for found in taken] == [("aa", "{}", "accepted")]
        await next_one.fail(taken[0])


async def test_a_process_that_was_taken_for_dead_learns_it(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as slow, process(tmp_path / "b", url) as other:
        entry = slow.book.add(new_run("aa"))
        stopped: list[bool] = []
        entry.stop = lambda: stopped.append(True)
        await slow.book.save(entry)
        slow.owner.leave()  # as if it had not beaten for long
        assert [found.run.id for found in await other.book.adopt()] == ["aa"]
        await slow.book.save(entry)
        assert stopped == [True]
        assert entry.reason is not None
        assert entry.reason.code == "interrupted"
        assert entry.forgotten
        await slow.fail(entry, "interrupted")
        async with process(tmp_path / "c", url) as third:
            assert (await third.book.find("aa")).run.state == "accepted"  # it is the other one's, untouched
            await other.succeed(await other.book.find("aa"))
            assert (await third.book.find("aa")).run.state == "succeeded"


async def test_a_run_is_cancelled_from_elsewhere(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as here, process(tmp_path / "b", url) as there:
        entry = here.book.add(new_run("aa"))
        stopped: list[bool] = []
        entry.stop = lambda: stopped.append(True)
        await here.book.save(entry)
        await there.book.forget(await there.book.find("aa"))
        await here.book.refresh()
        assert stopped == [True]
        assert entry.reason is not None
        await here.fail(entry, entry.reason.code)
        with pytest.raises(Refusal, match="no run"):
            await there.book.find("aa")


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_a_final_record_is_final(tmp_path: Path, url: str, state: str) -> None:
    """Nobody takes it up again, cancels it or begins it, and it comes back as it was written."""
    async with process(tmp_path / "a", url) as here, process(tmp_path / "b", url) as there:
        entry = here.book.add(new_run("aa"), "{}")
        await here.book.save(entry)
        await (
            here.succeed(entry) if state == "succeeded" else here.fail(entry, {"failed": "bad_value"}.get(state, state))
        )
        found = await there.book.find("aa")
        assert found.run == entry.run
        assert (found.run.state, found.asked, found.ended.is_set()) == (state, None, True)
        for event in (Started(0.0), Restarted()):
            with pytest.raises(ValueError, match=state):
                advance(found.run, event)
        here.owner.leave()
        assert await there.book.adopt() == []
        await here.book.refresh()
        assert (await there.book.find("aa")).run == entry.run


async def test_the_newest_come_first_whoever_has_them(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as one, process(tmp_path / "b", url) as other:
        entries = {
            number: one.book.add(new_run(f"{number:02}", created_at=float(number))) for number in range(0, 20, 2)
        }
        for number in range(1, 20, 2):
            entries[number] = other.book.add(new_run(f"{number:02}", created_at=float(number)))
            await other.book.save(entries[number])
        for number in range(0, 20, 4):
            await one.succeed(entries[number])
        assert await listed(one, 100) == [f"{number:02}" for number in range(19, -1, -1)]
        assert await listed(one, 3) == ["19", "18", "17"]
        ended = {f"{number:02}" for number in range(0, 20, 4)}
        assert set(await listed(other, 100)) == ended | {f"{number:02}" for number in range(1, 20, 2)}
        states = {run.id: run.state for run in await other.book.newest(100)}
        assert all((states[name] == "succeeded") == (name in ended) for name in states)
        for number, entry in entries.items():
            if f"{number:02}" not in ended:
                await (other if number % 2 else one).fail(entry)


async def listed(process: Process, most: int) -> list[str]:
    return [run.id for run in await process.book.newest(most)]


async def test_a_run_that_is_to_be_forgotten_is_not_listed(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as only:
        entry = only.book.add(new_run("aa"))
        await only.book.save(entry)
        await only.book.forget(entry)
        assert await listed(only, 9) == []
        await only.fail(entry)
        assert await listed(only, 9) == []


async def test_a_run_is_stopped_once_however_often_it_is_cancelled(tmp_path: Path, url: str) -> None:
    """A second cancellation would hit what the first one made it do: it leaves nothing behind."""
    async with process(tmp_path / "a", url) as here, process(tmp_path / "b", url) as there:
        entry = here.book.add(new_run("aa"))
        await here.book.save(entry)
        stopped: list[bool] = []
        entry.stop = lambda: stopped.append(True)
        for _ in range(2):
            await here.book.forget(await here.book.find("aa"))
            await there.book.forget(await there.book.find("aa"))
            await here.book.refresh()
        assert stopped == [True]
        await here.fail(entry)


async def test_an_idempotency_key_is_one_runs(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as one, process(tmp_path / "b", url) as other:
        entries = [Entry(new_run(f"{number:02}")) for number in range(20)]
        claimed = await claim_at_once((one, other), entries, "key")
        first = [entry for entry, found in zip(entries, claimed, strict=True) if found is None]
        assert len(first) == 1
        assert {found.run.id for found in claimed if found is not None} == {first[0].run.id}
        with pytest.raises(Refusal) as refused:
            await other.book.claim(Entry(new_run("xx")), "key", "another print")
        assert refused.value.code == "key_reused"
        owner = (one, other)[entries.index(first[0]) % 2]
        await owner.fail(first[0], "bad_value")
        again = Entry(new_run("yy"))
        assert await other.book.claim(again, "key", "print") is None  # what failed gives it up
        await other.succeed(again)


async def claim_at_once(processes: Sequence[Process], entries: Sequence[Entry], key: str) -> list[Entry | None]:
    """Each entry claims the key, by one process and the other in turns, all at the same time."""
    return await asyncio.gather(
        *(processes[at % len(processes)].book.claim(entry, key, "print") for at, entry in enumerate(entries))
    )


async def test_two_writers_race_for_many_keys(tmp_path: Path, url: str) -> None:
    """Also for such that a failed run gives up: whoever is first has it, and the other is told the same run."""
    async with process(tmp_path / "a", url) as one, process(tmp_path / "b", url) as other:
        winners: dict[str, Entry] = {}
        for attempt in range(2):
            for number in range(15):
                key, pair = f"key {number}", [Entry(new_run(f"{attempt} {number} {side}")) for side in "ab"]
                claimed = await claim_at_once((one, other), pair, key)
                assert sorted(found is None for found in claimed) == [False, True]
                won, lost = claimed.index(None), 1 - claimed.index(None)
                told = claimed[lost]
                assert told is not None
                assert told.run == pair[won].run
                winner = winners[key] = pair[won]
                owner = (one, other)[won]
                await (owner.fail(winner, "cancelled") if attempt == 0 else owner.succeed(winner))
        for key, winner in winners.items():
            for book in (one.book, other.book):
                found = await book.claim(Entry(new_run("late")), key, "print")
                assert found is not None
                assert found.run == winner.run
        assert len(await one.book.newest(100)) == 30


async def test_a_key_is_free_again_once_its_run_is_forgotten(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url, ttl_s=60) as one, process(tmp_path / "b", url, ttl_s=60) as other:
        for number, forget in enumerate(("deleted", "swept")):
            entry = Entry(new_run(f"first {number}"))
            assert await one.book.claim(entry, "key", forget) is None
            await one.succeed(entry)
            assert await other.book.claim(Entry(new_run("again")), "key", forget) is not None
            if forget == "deleted":
                await other.book.forget(await other.book.find(entry.run.id))
            else:
                one.age(entry.run.id, 121)
                await other.book.sweep()
        last = Entry(new_run("last"))
        assert await other.book.claim(last, "key", "another print") is None
        await other.succeed(last)


async def test_what_a_run_left_is_kept_for_its_time_and_its_record_for_as_long_again(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url, ttl_s=60) as only:
        entry = only.book.add(new_run("aa", "whole"))
        entry.result, entry.rejects = only.result(b"x", "aa.result"), only.keep(b"y", "aa.rejects")
        await only.succeed(entry)
        only.age("aa", 50)
        await only.book.sweep()
        found = await only.book.find("aa")
        assert (found.expired, found.result, found.rejects) == (False, entry.result, entry.rejects)
        assert await only.book.known_places() >= {entry.result.place, entry.rejects}
        assert only.spool.statistics().kept_files == 2
        only.age("aa", 20)
        for _ in range(2):  # before it was swept, and after
            found = await only.book.find("aa")
            assert (found.expired, found.result, found.rejects) == (True, None, None)
            assert found.run == entry.run
            await only.book.sweep()
        assert (only.spool.statistics().kept_bytes, only.kept()) == (0, [])
        only.age("aa", 40)
        await only.book.sweep()
        assert (await only.book.find("aa")).run == entry.run
        only.age("aa", 20)
        await only.book.sweep()
        with pytest.raises(Refusal, match="no run"):
            await only.book.find("aa")


async def test_the_oldest_go_where_there_are_too_many_and_what_goes_on_stays(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url, most=3) as only:
        going = only.book.add(new_run("going", created_at=0.5))
        await only.book.save(going)
        for number in range(5):
            entry = only.book.add(new_run(str(number), created_at=float(number)))
            entry.result = only.result(b"x", f"{number}.result")
            await only.succeed(entry)
        await only.book.sweep()
        assert await listed(only, 10) == ["4", "3", "going"]
        assert only.kept() == ["3.result", "4.result"]
        await only.fail(going)


async def test_a_long_absence_leaves_no_file_without_a_record(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More has expired than is swept at a time, and longer ago than records are kept: a record goes after its files."""
    monkeypatch.setattr(book_module, "_SWEPT_AT_A_TIME", 3)
    async with process(tmp_path / "a", url, ttl_s=60) as only:
        for number in range(10):
            entry = only.book.add(new_run(str(number), "whole", created_at=float(number)))
            entry.result = only.result(b"x", f"{number}.result")
            await only.succeed(entry)
            only.age(str(number), 1000)
        for _ in range(5):
            await only.book.sweep()
            known = await only.book.known_places()
            assert all(any(place.endswith(name) for place in known) for name in only.kept())
        assert (only.kept(), await listed(only, 99)) == ([], [])


async def test_what_another_server_cannot_reach_goes_with_the_next_sweep_of_its_own(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results beside the spool, and disks that are not shared: whoever sweeps the record sees only his own."""
    here_directory, there_directory = tmp_path / "here", tmp_path / "there"
    async with process(here_directory, url, ttl_s=0) as here, process(there_directory, url, ttl_s=0) as there:
        going = here.book.add(new_run("going", "async"), json.dumps({"body": here.keep(b"input", "going.body")}))
        await here.book.save(going)
        entry = here.book.add(new_run("aa", "whole"))
        entry.result = here.result(b"x", "aa.result")
        await here.succeed(entry)
        kept_here, hidden = here_directory / "kept", here_directory / "hidden"
        kept_here.rename(hidden)  # for the other one it is not there
        await there.book.sweep()
        hidden.rename(kept_here)
        assert await listed(there, 9) == ["going"]
        await here.book.sweep()
        assert here.kept() == ["aa.result", "going.body"]  # a record may be about to be written
        monkeypatch.setattr(kept, "_YOUNG_S", 0.0)
        await here.book.sweep()
        assert here.kept() == ["going.body"]
        assert here.spool.statistics().kept_files == 1
        await here.fail(going)


async def test_what_can_never_be_dropped_does_not_keep_the_rest(tmp_path: Path, url: str) -> None:
    """Rejects that are none, which have no place; and a store whose name is no longer configured."""
    async with process(tmp_path / "a", url, ttl_s=60) as only:
        for name, rejects in (("aa", ""), ("bb", "store:gone/bb.rejects"), ("cc", "")):
            entry = only.book.add(new_run(name, "whole"))
            entry.result, entry.rejects = only.result(b"y", f"{name}.result"), rejects
            await only.succeed(entry)
        await only.book.forget(await only.book.find("aa"))
        assert only.kept() == ["bb.result", "cc.result"]
        for name in ("bb", "cc"):
            only.age(name, 1000)
        await only.book.sweep()
        assert (only.kept(), await listed(only, 99)) == ([], [])


async def test_a_store_that_does_not_answer_keeps_its_own_and_their_records(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with socket.socket() as closed:  # bound, so nobody else's, and not listening
        closed.bind(("127.0.0.1", 0))
        s3 = S3Client(S3Options(endpoint_url="http://{}:{}".format(*closed.getsockname())))
        async with process(tmp_path / "a", url, ttl_s=60, s3=s3) as only:
            for name in ("aa", "bb", "cc"):
                entry = only.book.add(new_run(name, "whole"))
                entry.rejects = "s3://bucket/bb.rejects" if name == "bb" else only.keep(b"y", f"{name}.rejects")
                await only.succeed(entry)
                only.age(name, 1000)
            with pytest.raises(Refusal) as refused:
                await only.book.sweep()
            assert refused.value.code == "store_failed"
            assert "bb" in await listed(only, 99)
            assert "s3://bucket/bb.rejects" in await only.book.known_places()
            with pytest.raises(Refusal):
                await only.book.forget(await only.book.find("bb"))
            assert "bb" in await listed(only, 99)
            assert set(only.kept()) == {f"{name}.rejects" for name in await listed(only, 99)} - {"bb.rejects"}
        s3.close()


async def test_what_has_expired_and_is_deleted_before_it_was_swept_leaves_nothing(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url, ttl_s=60) as only:
        entry = only.book.add(new_run("aa", "whole"))
        entry.result, entry.rejects = only.result(b"x", "aa.result"), only.keep(b"y", "aa.rejects")
        await only.succeed(entry)
        only.age("aa", 70)
        await only.book.forget(await only.book.find("aa"))
        assert (only.kept(), await listed(only, 9)) == ([], [])


@pytest.mark.parametrize("where", ["here", "there"])
async def test_who_cancels_a_run_that_is_being_settled_gets_rid_of_its_result(
    tmp_path: Path, url: str, where: str
) -> None:
    """It has a result already and goes to its end: then all of it goes."""
    async with process(tmp_path / "a", url) as here, process(tmp_path / "b", url) as there:
        entry = here.book.add(new_run("aa", "whole"))
        await here.book.save(entry)
        entry.stop, entry.settling = None, True
        by = {"here": here, "there": there}[where]
        await by.book.forget(await by.book.find("aa"))
        await here.book.refresh()
        entry.result, entry.rejects = here.result(b"x", "aa.result"), here.keep(b"y", "aa.rejects")
        await here.succeed(entry)
        assert (here.kept(), await listed(there, 9)) == ([], [])
        assert here.spool.statistics().kept_files == 0


async def test_many_short_runs_are_few_transactions(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as only:
        for number in range(500):
            only.succeed(only.book.add(new_run(str(number), created_at=float(number))))
        await only.book.close()
        with only.database.reading() as connection:
            assert len(list(connection.execute(select(runs.c.id).where(runs.c.state == "succeeded")))) == 500


async def test_a_database_that_fails_is_tried_again(tmp_path: Path, url: str) -> None:
    async with process(tmp_path / "a", url) as only:
        with only.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE weir_runs RENAME TO hidden")
        entry = only.book.add(new_run("aa"))
        with pytest.raises(Refusal) as refused:
            await only.book.save(entry)
        assert refused.value.code == "state_failed"
        with only.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO weir_runs")
        await only.succeed(entry)
        assert (await only.book.find("aa")).run.state == "succeeded"


async def test_a_record_that_cannot_be_written_is_told_and_holds_up_nobody(tmp_path: Path, url: str) -> None:
    """Half of a surrogate pair is a text that JSON in UTF-8 does not have."""
    async with process(tmp_path / "a", url) as only:
        bad, good = only.book.add(replace(new_run("bad"), pipeline="\ud800")), only.book.add(new_run("good"))
        async with asyncio.timeout(20):
            with pytest.raises(Refusal) as refused:
                await only.book.save(bad)
            assert refused.value.code == "state_failed"
            await only.book.save(good)
            await only.succeed(good)
            with pytest.raises(Refusal):
                await only.fail(bad)
        assert await listed(only, 9) == ["good"]
