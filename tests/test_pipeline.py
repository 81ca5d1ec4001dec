"""The engine by itself: order, laziness, bounds, and both ends."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Operator, Receipt, Stage
from app.core.page import Page
from app.pipeline import Flow, FlowOptions

PAGE = 1000
EXECUTOR = ThreadPoolExecutor(4)


@dataclass
class Map:
    """Doubles each page, after a while; stateless or not."""

    stateless: bool = True
    name: str = "map"
    holds: int = 0
    grows: float = 2.0
    delay_s: float = 0.0
    fail_at: int | None = None
    seen: int = 0

    def feed(self, page: Page) -> Iterable[Page]:
        self.seen += 1
        if self.fail_at is not None and self.seen > self.fail_at:
            raise ValueError("broken on purpose")
        if self.delay_s:
            time.sleep(random.uniform(0, self.delay_s))
        yield page
        yield page

    def flush(self) -> Iterable[Page]:
        return ()


@dataclass
class Joiner:
    """Keeps pages back and gives them joined: a stage that keeps its place."""

    every: int = 3
    name: str = "joiner"
    grows: float = 1.0
    stateless: bool = False
    kept: list[bytes] = field(default_factory=list)

    @property
    def holds(self) -> int:
        return self.every * PAGE

    def feed(self, page: Page) -> Iterable[Page]:
        self.kept.append(bytes(page.payload))
        if len(self.kept) == self.every:
            yield from self.flush()

    def flush(self) -> Iterable[Page]:
        for data in self.kept:
            yield Page(data, len(data))
        self.kept.clear()


@dataclass
class Gather(Joiner):
    """The same, of the kind that runs on the threads that pages come from; it notes what it saw and where."""

    name: str = "gather"
    gathers: bool = True
    numbers: list[int] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)

    def feed(self, page: Page) -> Iterable[Page]:
        self.numbers += first_numbers([page])
        self.threads.add(threading.current_thread())
        yield from super().feed(page)


@dataclass
class First:
    """Sated after some pages."""

    count: int
    name: str = "first"
    holds: int = 0
    grows: float = 0.0
    stateless: bool = False

    @property
    def sated(self) -> bool:
        return self.count <= 0

    def feed(self, page: Page) -> Iterable[Page]:
        self.count -= 1
        yield page

    def flush(self) -> Iterable[Page]:
        yield Page(b"end", 3)


@dataclass
class Warm:
    """Quick from its third call on; it notes whether it was called in place."""

    name: str = "warm"
    holds: int = 0
    grows: float = 0.0
    stateless: bool = False
    in_place: list[bool] = field(default_factory=list)

    @property
    def brisk(self) -> bool:
        return len(self.in_place) >= 2

    def feed(self, page: Page) -> Iterable[Page]:
        self.in_place.append(threading.current_thread() is threading.main_thread())
        yield page

    def flush(self) -> Iterable[Page]:
        yield Page(b"end", 3)


@dataclass
class Pull:
    """An operator that passes pages on from a thread of its own."""

    name: str = "pull"
    holds: int = 0
    grows: float = 0.0
    thread: threading.Thread | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, pages: Iterator[Page]) -> Iterator[Page]:
        self.thread = threading.current_thread()
        try:
            yield from pages
        finally:
            self.ended.set()


@dataclass
class Collect:
    holds: int = 0
    delay_s: float = 0.0
    fail_at: int | None = None
    pages: list[Page] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def write(self, page: Page) -> None:
        if self.fail_at is not None and len(self.pages) >= self.fail_at:
            raise Refusal("sink_failed", "full")
        await asyncio.sleep(self.delay_s)
        self.pages.append(page)

    async def commit(self) -> Receipt:
        self.ends.append("commit")
        return Receipt(sum(page.nbytes for page in self.pages))

    async def abort(self) -> None:
        self.ends.append("abort")


async def numbers(count: int, nbytes: int = PAGE) -> AsyncIterator[Page]:
    for number in range(count):
        yield Page(number.to_bytes(4, "big") * (nbytes // 4), nbytes)


async def endless() -> AsyncIterator[Page]:
    yield Page(b"x" * PAGE, PAGE)
    await asyncio.Event().wait()


def flow(source: AsyncIterator[Page], stages: list[Stage | Operator], sink: Collect, lanes: int = 4) -> Flow:
    return Flow(source, stages, sink, EXECUTOR, FlowOptions(PAGE, 2 * PAGE, lanes))


def first_numbers(pages: list[Page]) -> list[int]:
    return [int.from_bytes(page.payload[:4], "big") for page in pages]


async def test_parallel_stages_keep_the_order_whatever_each_page_takes() -> None:
    sink = Collect()
    await flow(numbers(200), [Map(delay_s=0.002), Map()], sink).run()
    assert first_numbers(sink.pages) == [number for number in range(200) for _ in range(4)]
    assert sink.ends == ["commit"]


async def test_several_pages_are_in_work_at_once() -> None:
    together, most, guard = 0, 0, threading.Lock()

    @dataclass
    class Meet(Map):
        def feed(self, page: Page) -> Iterable[Page]:
            nonlocal together, most
            with guard:
                together += 1
                most = max(most, together)
            time.sleep(0.005)
            with guard:
                together -= 1
            yield page

    await flow(numbers(40), [Meet()], Collect()).run()
    assert most > 1


async def test_stateful_stages_and_operators_see_every_page_once_and_in_order() -> None:
    sink = Collect()
    await flow(numbers(100), [Joiner(3), Pull(), Map(), Joiner(7), Pull()], sink).run()
    assert first_numbers(sink.pages) == [number for number in range(100) for _ in range(2)]


async def test_a_failure_aborts_and_never_commits() -> None:
    for stages in ([Map(fail_at=1)], [Map(stateless=False, fail_at=1)], [Pull(), Map(fail_at=3), Pull()]):
        sink = Collect()
        with pytest.raises(Refusal, match="broken on purpose") as failed:
            await flow(numbers(50), list(stages), sink).run()
        assert failed.value.code == "stage_failed"
        assert sink.ends == ["abort"]


async def test_a_sink_that_fails_and_a_source_that_fails_abort() -> None:
    async def broken() -> AsyncIterator[Page]:
        yield Page(b"x", 1)
        raise Refusal("client_gone", "left")

    for source, sink, code in ((numbers(50), Collect(fail_at=2), "sink_failed"), (broken(), Collect(), "client_gone")):
        with pytest.raises(Refusal) as failed:
            await flow(source, [Map(), Joiner(), Pull()], sink).run()
        assert (failed.value.code, sink.ends) == (code, ["abort"])


async def test_a_sated_stage_ends_the_flow_well_though_the_source_never_does() -> None:
    sink = Collect()
    await asyncio.wait_for(flow(endless(), [Pull(), Joiner(1), Map(), First(2)], sink).run(), 5)
    assert [page.nbytes for page in sink.pages] == [PAGE, PAGE, 3]
    assert sink.ends == ["commit"]


async def test_a_cancelled_flow_leaves_no_thread_at_work() -> None:
    pull, sink = Pull(), Collect()
    run = asyncio.create_task(flow(endless(), [Map(delay_s=0.01), pull, Joiner(2)], sink).run())
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 1)
    assert sink.ends == ["abort"]
    assert pull.ended.is_set()
    assert pull.thread is not None
    pull.thread.join(1)
    assert not pull.thread.is_alive()


async def test_a_stage_runs_in_place_only_while_it_is_brisk() -> None:
    warm, sink = Warm(), Collect()
    await flow(numbers(6), [warm, Pull()], sink).run()
    assert warm.in_place == [False, False, True, True, True, True]
    assert [bytes(page.payload[:4]) for page in sink.pages] == [*(n.to_bytes(4, "big") for n in range(6)), b"end"]


async def test_a_brisk_stage_leads_pages_in_their_order_on_the_threads_that_take_them_on() -> None:
    warm, sink = Warm(), Collect()
    run = flow(numbers(100), [warm, Map(delay_s=0.002)], sink)
    await run.run()
    assert warm.in_place == [False] * 100
    assert first_numbers(sink.pages[:-2]) == [number for number in range(100) for _ in range(2)]
    assert [bytes(page.payload) for page in sink.pages[-2:]] == [b"end", b"end"]
    assert [(clock.name, clock.bytes_in) for clock in run.statistics().stages] == [
        ("warm", 100 * PAGE),
        ("map", 100 * PAGE + 3),
    ]


async def test_pages_that_wait_are_taken_together_by_a_stage_that_leads() -> None:
    @dataclass
    class Several(Warm):
        counts: list[int] = field(default_factory=list)

        @property
        def brisk(self) -> bool:
            return True

        def feed_several(self, pages: list[Page]) -> Iterable[Page]:
            self.counts.append(len(pages))
            payload = b"".join(page.payload for page in pages)
            yield Page(payload, len(payload))

    several, slow, sink = Several(), Map(delay_s=0.002), Collect()
    run = flow(numbers(200, PAGE // 5), [several, slow], sink, lanes=2)
    await run.run()
    assert max(several.counts) == 5  # a page of the flow, and no more
    assert sum(several.counts) + len(several.in_place) == 200
    assert b"".join(page.payload for page in sink.pages[:-2:2]) == b"".join(
        [page.payload async for page in numbers(200, PAGE // 5)]
    )
    clocks = {clock.name: (clock.bytes_in, clock.bytes_out) for clock in run.statistics().stages}
    assert clocks == {"warm": (40 * PAGE, 40 * PAGE + 3), "map": (40 * PAGE + 3, 80 * PAGE + 6)}


async def test_a_failure_before_or_behind_the_lead_is_the_first_one_of_the_stream() -> None:
    @dataclass
    class Fails(Warm):
        def feed(self, page: Page) -> Iterable[Page]:
            if int.from_bytes(page.payload[:4], "big") == 5:
                raise Refusal("ragged_row", "the sixth page")
            yield from super().feed(page)

    @dataclass
    class FailsToo(Map):
        def feed(self, page: Page) -> Iterable[Page]:
            if int.from_bytes(page.payload[:4], "big") == 3:
                time.sleep(0.05)
                raise Refusal("bad_value", "the fourth page")
            yield page

    for stages, code in (([Fails(), Map(delay_s=0.01)], "ragged_row"), ([Fails(), FailsToo()], "bad_value")):
        sink = Collect()
        with pytest.raises(Refusal) as failed:
            await asyncio.wait_for(flow(numbers(50), list(stages), sink).run(), 5)
        assert (failed.value.code, sink.ends) == (code, ["abort"])


async def test_a_cancelled_flow_leaves_no_thread_waiting_for_its_turn() -> None:
    @dataclass
    class Slow(Warm):
        brisk = True

        def feed(self, page: Page) -> Iterable[Page]:
            time.sleep(0.05)
            yield page

    executor = ThreadPoolExecutor(2)
    for _ in range(5):
        options = FlowOptions(PAGE, 2 * PAGE, 4)
        run = asyncio.create_task(Flow(numbers(50), [Slow(), Map()], Collect(), executor, options).run())
        await asyncio.sleep(0.06)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 2)
        assert await asyncio.wait_for(asyncio.wrap_future(executor.submit(int, "1")), 0.2) == 1
    executor.shutdown()


@pytest.mark.parametrize("lead", [[], [Warm]])
@pytest.mark.parametrize("delay_s", [0.0, 0.02])  # a thread waits for its turn, or has it on its next hop
async def test_what_gathers_has_pages_in_order_on_the_threads_that_they_come_from(
    lead: list[type[Warm]], delay_s: float
) -> None:
    gather, sink = Gather(every=7), Collect()
    run = flow(numbers(60), [*(make() for make in lead), Map(delay_s=delay_s), gather], sink)
    await asyncio.wait_for(run.run(), 10)
    doubled = [number for number in range(60) for _ in range(2)]
    ends = 2 * len(lead)  # what the lead gives at its end goes the same way
    assert gather.numbers[: len(doubled)] == first_numbers(sink.pages)[: len(doubled)] == doubled
    assert len(gather.numbers) == len(sink.pages) == len(doubled) + ends
    assert len(gather.threads) > (1 if delay_s else 0)
    assert threading.main_thread() not in gather.threads
    clocks = {clock.name: clock for clock in run.statistics().stages}
    assert clocks["gather"].bytes_in == clocks["gather"].bytes_out == 2 * 60 * PAGE + 3 * ends
    assert [clocks["map"].parallel, clocks["gather"].parallel] == [True, False]
    assert run.statistics().inside_bytes == 0


async def test_what_gathers_sees_nothing_behind_a_failure() -> None:
    @dataclass
    class Fails(Map):
        def feed(self, page: Page) -> Iterable[Page]:
            if int.from_bytes(page.payload[:4], "big") == 9:
                time.sleep(0.02)
                raise Refusal("bad_value", "the tenth page")
            yield page

    for _ in range(5):
        gather, sink = Gather(), Collect()
        with pytest.raises(Refusal, match="the tenth page"):
            await asyncio.wait_for(flow(numbers(50), [Fails(), gather], sink).run(), 5)
        assert gather.numbers == list(range(9))
        assert sink.ends == ["abort"]


async def test_a_slow_sink_holds_the_source_back() -> None:
    taken = 0

    async def counted() -> AsyncIterator[Page]:
        nonlocal taken
        async for page in numbers(1000):
            taken += 1
            yield page

    sink = Collect(delay_s=0.02)
    run = asyncio.create_task(flow(counted(), [Map(stateless=False)], sink).run())
    await asyncio.sleep(0.3)
    assert taken < 30
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def test_where_the_time_goes() -> None:
    sink = Collect(delay_s=0.01)
    slow_sink = flow(numbers(20), [Map(stateless=False)], sink)
    await slow_sink.run()
    (clock,) = slow_sink.statistics().stages
    assert clock.blocked_s > clock.busy_s
    assert clock.blocked_s > clock.idle_s
    assert (clock.bytes_in, clock.bytes_out) == (20 * PAGE, 40 * PAGE)


STAGES = st.sampled_from(
    [
        lambda: Map(),
        lambda: Map(stateless=False),
        lambda: Map(delay_s=0.0005),
        lambda: Joiner(2),
        lambda: Joiner(5),
        lambda: Gather(2),
        lambda: Gather(5),
        lambda: Pull(),
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(STAGES, max_size=4),
    st.integers(0, 40),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.0005]),
    st.sampled_from([4, 100, PAGE]),
)
def test_a_run_never_holds_more_than_its_worst_case(
    makers: list, count: int, lanes: int, delay_s: float, nbytes: int
) -> None:
    async def main() -> None:
        sink = Collect(delay_s=delay_s)
        made = [make() for make in makers]
        run = flow(numbers(count, nbytes), made, sink, lanes)
        await run.run()
        copies = 2 ** sum(isinstance(stage, Map) for stage in made)
        assert first_numbers(sink.pages) == [number for number in range(count) for _ in range(copies)]
        seen = run.statistics()
        assert seen.peak_bytes <= run.worst_case_bytes
        assert seen.inside_bytes == 0
        assert all(edge.held_bytes == 0 and edge.peak_bytes <= edge.high_water_bytes for edge in seen.edges)

    asyncio.run(asyncio.wait_for(main(), 20))
