"""Objects part by part: whole or not there, whatever fails, and never more held than was said."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Refusal
from app.core.page import Page
from app.sinks.file import FileSink
from app.sinks.multipart import MultipartSink
from app.stores.catalogue import Located
from app.stores.memory import MemoryStore
from app.stores.objects import ObjectInfo, PartLimits, Piece, SentPart, Transient, Writing
from app.stores.part_sizes import PartSizes
from app.stores.retried import Patience, Retried
from tests.conformance.check_sink import check_sink

LIMITS = PartLimits(1, 1 << 30, 10_000, 1 << 40)
DATA = random.Random(0).randbytes(45_000)


class Notes:
    """A ledger that remembers what it was told."""

    def __init__(self) -> None:
        self.open_entries: dict[int, list[str]] = {}
        self.made_entries: set[int] = set()
        self.left: list[int] = []
        self.said: list[str] = []
        self.on_call: Callable[[str], object] = lambda name: None

    def open(self, url: str, token: str) -> int:
        entry = len(self.said) + 1
        self.open_entries[entry] = [url]
        self.said.append("open")
        self.on_call("open")
        return entry

    def begun(self, entry: int, upload_id: str) -> None:
        self.open_entries[entry].append(upload_id)
        self.said.append("begun")
        self.on_call("begun")

    def completing(self, entry: int, nbytes: int, digest: str | None) -> None:
        self.said.append("completing")
        self.on_call("completing")

    def made(self, entry: int) -> None:
        del self.open_entries[entry]
        self.made_entries.add(entry)
        self.said.append("made")
        self.on_call("made")

    def close(self, entry: int) -> None:
        if entry in self.made_entries:
            self.made_entries.remove(entry)
        else:
            del self.open_entries[entry]
        self.said.append("close")
        self.on_call("close")

    def leave(self, entry: int) -> None:
        del self.open_entries[entry]
        self.left.append(entry)
        self.said.append("leave")


class Faulty(MemoryStore):
    """Does what ``faults`` says before (or, for "lost", after) each call of a name; counts what is held."""

    def __init__(self) -> None:
        super().__init__(LIMITS)
        self.faults: dict[str, list[str]] = {}
        self.sending = self.most_sending = 0
        self.gate: threading.Event | None = None
        self.on_call: Callable[[str], object] = lambda name: None
        self.count = threading.Lock()

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        fault = self.faults.get(name, []).pop(0) if self.faults.get(name) else ""
        if fault == "fail":
            raise Transient("slow_down", "as asked")
        if fault == "refuse":
            raise Refusal("forbidden", "as asked")
        made = call()
        self.on_call(name)
        if fault == "lost":
            raise Transient("reset", "the answer was lost")
        return made

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        return self._guarded("put", lambda: super(Faulty, self).put(key, pieces, crc32, writing))

    def begin(self, key: str, writing: Writing) -> str:
        return self._guarded("begin", lambda: super(Faulty, self).begin(key, writing))

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        with self.count:
            self.sending += 1
            self.most_sending = max(self.most_sending, self.sending)
        try:
            if self.gate is not None:
                assert self.gate.wait(10)
            return self._guarded(
                "put_part", lambda: super(Faulty, self).put_part(key, upload_id, number, offset, pieces, crc32)
            )
        finally:
            with self.count:
                self.sending -= 1

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        return self._guarded("complete", lambda: super(Faulty, self).complete(key, upload_id, parts, writing))

    def abort(self, key: str, upload_id: str) -> None:
        self._guarded("abort", lambda: super(Faulty, self).abort(key, upload_id))

    def data(self, key: str = "k") -> bytes | None:
        found = self._objects.get(key)
        return None if found is None else found.data


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


class Bench:
    """A store, its ledger, and sinks to one key."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store, self.notes, self.aborts = Faulty(), Notes(), list[bool]()
        self.executor = executor

    def sink(
        self, *, overwrite: bool = True, hashed: bool = False, attempts: int = 5, part_bytes: int = 5000
    ) -> MultipartSink:
        stop = threading.Event()
        store = Retried(self.store, Patience(attempts, 0.0, 0.0), lambda _: None, stop)
        return MultipartSink(
            Located(store, "k"),
            Writing(f"token {overwrite}", "text/plain", None, overwrite),
            sizes=PartSizes(part_bytes, 4 * part_bytes, 10_000, 1 << 40),
            in_flight=2,
            page_bytes=7000,
            hashed=hashed,
            executor=self.executor,
            ledger=self.notes,
            stop=stop,
            on_abort=self.aborts.append,
        )

    async def write(self, sink: MultipartSink, data: bytes = DATA) -> None:
        for start in range(0, len(data), 7000):
            page = data[start : start + 7000]
            await sink.write(Page(page, len(page)))

    async def fill(self, sink: MultipartSink) -> None:
        await self.write(sink)
        await sink.commit()

    def assert_clean(self, data: bytes | None) -> None:
        assert self.store.data() == data
        assert self.store.uploads("") == []
        assert self.notes.open_entries == {}


@pytest.fixture
def bench(threads: ThreadPoolExecutor) -> Bench:
    return Bench(threads)


async def test_it_is_a_sink(bench: Bench) -> None:
    await check_sink(bench.sink, bench.store.data)
    await check_sink(lambda: bench.sink(part_bytes=500, hashed=True), bench.store.data)
    assert bench.store.uploads("") == []
    assert bench.notes.open_entries == {}


async def test_so_is_a_file(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    path = tmp_path / "out"
    await check_sink(lambda: FileSink(path, threads), lambda: path.read_bytes() if path.exists() else None)


async def test_its_receipt(bench: Bench) -> None:
    sink = bench.sink(hashed=True)
    await bench.write(sink)
    receipt = await sink.commit()
    assert (receipt.nbytes, receipt.parts) == (45_000, 9)
    assert receipt.digest == hashlib.sha256(DATA).hexdigest()
    assert receipt.crc32 == zlib.crc32(DATA)
    assert receipt.etag == bench.store.head("k").etag.strip('"')
    assert bench.notes.said == ["open", "begun", "completing", "made"]
    bench.assert_clean(DATA)
    for _ in range(2):  # the run failed all the same, or has no record
        await sink.abort()
        assert bench.notes.said == ["open", "begun", "completing", "made", "close"]
    assert bench.notes.made_entries == set()
    bench.assert_clean(DATA)


@pytest.mark.parametrize(
    "faults",
    [
        {"put_part": ["fail", "lost", "", "fail"]},
        {"begin": ["fail", "lost"]},
        {"complete": ["fail", "lost"]},
        {"complete": ["lost", "fail"]},
        {"begin": ["lost"], "put_part": ["lost"] * 2, "complete": ["lost"]},
    ],
)
async def test_what_passes_is_tried_again(bench: Bench, faults: dict[str, list[str]]) -> None:
    bench.store.faults = faults
    sink = bench.sink()
    await bench.write(sink)
    await sink.commit()
    bench.assert_clean(DATA)


@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_small_one_whose_answer_is_lost(bench: Bench, overwrite: bool) -> None:
    bench.store.faults = {"put": ["lost", "lost"]}
    sink = bench.sink(overwrite=overwrite)
    await bench.write(sink, b"small")
    await sink.commit()
    bench.assert_clean(b"small")


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ({"put_part": ["", "refuse"]}, "forbidden"),
        ({"put_part": ["fail"] * 40}, "store_failed"),
        ({"begin": ["refuse"]}, "forbidden"),
        ({"complete": ["refuse"]}, "forbidden"),
        ({"complete": ["fail"] * 5}, "store_failed"),
    ],
)
async def test_what_does_not_pass_leaves_nothing(bench: Bench, faults: dict[str, list[str]], code: str) -> None:
    bench.store.faults = faults
    sink = bench.sink()
    with pytest.raises(Refusal) as refused:
        await bench.fill(sink)
    await sink.abort()
    assert refused.value.code == code
    bench.assert_clean(None)
    assert bench.notes.left == ([] if code != "forbidden" or "begin" not in faults else bench.notes.left)


async def test_what_cannot_be_aborted_is_left_in_the_ledger(bench: Bench) -> None:
    bench.store.faults = {"put_part": ["refuse"], "abort": ["fail"] * 5}
    sink = bench.sink()
    with pytest.raises(Refusal):
        await bench.fill(sink)
    await sink.abort()
    assert bench.notes.said[-1] == "leave"
    assert bench.aborts == [False]
    assert len(bench.store.uploads("")) == 1


async def test_what_is_there_is_not_overwritten_unasked(bench: Bench) -> None:
    for data in (b"small", DATA):
        first = bench.sink()
        await bench.write(first, b"before")
        await first.commit()
        second = bench.sink(overwrite=False)
        await bench.write(second, data)
        with pytest.raises(Refusal) as refused:
            await second.commit()
        await second.abort()
        assert refused.value.code == "precondition_failed"
        bench.assert_clean(b"before")


async def test_a_bounded_number_of_parts_is_sent_at_a_time(bench: Bench) -> None:
    bench.store.gate = threading.Event()
    sink = bench.sink()
    writing = asyncio.create_task(bench.write(sink))
    await asyncio.wait((writing,), timeout=0.3)
    assert (bench.store.sending, writing.done()) == (2, False)
    bench.store.gate.set()
    await writing
    await sink.commit()
    assert bench.store.most_sending == 2
    bench.assert_clean(DATA)


@pytest.mark.parametrize(
    ("call", "data", "whole"),
    [
        ("open", DATA, False),
        ("begin", DATA, False),
        ("begun", DATA, False),
        ("put_part", DATA, False),
        ("completing", DATA, False),
        ("complete", DATA, True),
        ("made", DATA, True),
        ("open", b"small", False),
        ("completing", b"small", False),
        ("put", b"small", True),
        ("made", b"small", True),
    ],
)
async def test_one_that_is_cancelled_during_any_call_is_whole_or_not_there(
    bench: Bench, call: str, data: bytes, whole: bool
) -> None:
    """Each call has done its work and not returned when the cancellation comes."""
    sink, loop = bench.sink(), asyncio.get_running_loop()

    async def all_of_it() -> None:
        try:
            await bench.write(sink, data)
            await sink.commit()
        except BaseException:
            await sink.abort()
            raise

    task = asyncio.create_task(all_of_it())
    cancelled = threading.Event()

    def cancel() -> None:
        task.cancel()
        loop.call_soon(cancelled.set)  # by then the task has been told

    def on_call(name: str) -> None:
        if name == call and not cancelled.is_set():
            loop.call_soon_threadsafe(cancel)
            assert cancelled.wait(10)

    bench.store.on_call = bench.notes.on_call = on_call
    await asyncio.wait((task,))
    assert cancelled.is_set()
    assert task.cancelled() == (not whole)
    bench.assert_clean(data if whole else None)


@pytest.mark.parametrize("after", range(0, 40, 3))
async def test_a_cancelled_one_is_whole_or_not_there(bench: Bench, after: int) -> None:
    """Cancelled after any number of turns of the loop: where it was too late, it is whole."""
    sink = bench.sink(hashed=True)

    async def all_of_it() -> None:
        try:
            await bench.write(sink)
            await sink.commit()
        except BaseException:
            await sink.abort()
            raise

    task = asyncio.create_task(all_of_it())
    for _ in range(after):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.wait((task,))
    bench.assert_clean(None if task.cancelled() else DATA)
