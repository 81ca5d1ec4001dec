from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.budget import Budget
from app.core.errors import Refusal


async def hold(budget: Budget, nbytes: int, log: list[int], release: asyncio.Event) -> None:
    async with budget.admit(nbytes):
        log.append(nbytes)
        await release.wait()


async def test_what_can_never_fit_is_refused_at_once_with_the_difference() -> None:
    budget = Budget(100 << 20, max_flows=9, wait_s=60)
    with pytest.raises(Refusal, match=r"28\.0 MiB more than MEMORY_BUDGET") as refused:
        async with budget.admit(128 << 20):
            pass
    assert refused.value.code == "never_fits"
    assert budget.statistics().waiting == 0


async def test_first_come_first_served_and_no_overtaking() -> None:
    budget, log = Budget(100, max_flows=9, wait_s=60), []
    first, second, third = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(hold(budget, 80, log, first))]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(hold(budget, 90, log, second)))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(hold(budget, 5, log, third)))  # it would fit, and waits behind the large one
    await asyncio.sleep(0)
    assert (log, budget.statistics().demand_bytes) == ([80], 95)
    first.set()
    await tasks[0]
    await asyncio.sleep(0)
    assert log == [80, 90, 5]
    second.set()
    third.set()
    await asyncio.gather(*tasks)
    assert budget.statistics().reserved_bytes == 0


async def test_a_wait_ends_with_when_to_come_again() -> None:
    budget, release = Budget(100, max_flows=9, wait_s=0.02), asyncio.Event()
    task = asyncio.create_task(hold(budget, 60, [], release))
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        async with budget.admit(60):
            pass
    assert refused.value.code == "budget_full"
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    release.set()
    await task
    assert budget.statistics() == budget.statistics().__class__(100, 0, 0, 0, 0)


async def test_max_flows_bounds_the_number_whatever_the_bytes() -> None:
    budget, log, release = Budget(100, max_flows=2, wait_s=60), [], asyncio.Event()
    tasks = [asyncio.create_task(hold(budget, 1, log, release)) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert len(log) == 2
    release.set()
    await asyncio.gather(*tasks)
    assert len(log) == 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 3), st.sampled_from(["end", "raise", "cancel", "cancel early"])),
        max_size=25,
    )
)
def test_however_scopes_end_everything_is_given_back(jobs: list[tuple[int, int, str]]) -> None:
    async def main() -> None:
        budget, inside = Budget(100, max_flows=4, wait_s=60), 0

        async def one(nbytes: int, turns: int, ending: str) -> None:
            nonlocal inside
            async with budget.admit(nbytes):
                inside += nbytes
                assert inside <= 100
                assert inside == budget.statistics().reserved_bytes or budget.statistics().admitted > 1
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if ending == "raise":
                        raise ValueError
                    if ending == "cancel":
                        raise asyncio.CancelledError
                finally:
                    inside -= nbytes

        tasks = []
        for nbytes, turns, ending in jobs:
            task = asyncio.create_task(one(nbytes, turns, ending))
            tasks.append(task)
            if ending == "cancel early":
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = budget.statistics()
        assert (left.reserved_bytes, left.demand_bytes, left.admitted, left.waiting) == (0, 0, 0, 0)

    asyncio.run(main())


async def test_who_is_patient_lets_others_go_first_but_not_for_ever() -> None:
    budget, log = Budget(100, max_flows=9, wait_s=0.2), []
    first, small, late, never = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold(budget, 80, log, first))
    await asyncio.sleep(0)
    admitted = asyncio.Event()

    async def wait() -> None:
        async with budget.admit(50, patient=True):
            log.append(50)
            admitted.set()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert budget.statistics().demand_bytes == 50
    overtaking = asyncio.create_task(hold(budget, 15, log, small))
    await asyncio.sleep(0.05)
    assert log == [80, 15]
    await asyncio.sleep(0.2)  # now it stands in the queue, and nobody overtakes any more
    behind = asyncio.create_task(hold(budget, 5, log, late))
    await asyncio.sleep(0.05)
    assert log == [80, 15]
    first.set()
    await admitted.wait()
    await waiting
    late.set()
    small.set()
    never.set()
    await asyncio.gather(holding, overtaking, behind)
    assert log == [80, 15, 50, 5]
    assert budget.statistics().reserved_bytes == budget.statistics().waiting == 0


async def test_a_patient_one_that_is_cancelled_leaves_either_queue() -> None:
    for wait_s in (60.0, 0.01):
        budget, log, release = Budget(100, max_flows=9, wait_s=wait_s), [], asyncio.Event()
        holding = asyncio.create_task(hold(budget, 80, log, release))
        await asyncio.sleep(0)

        async def wait(budget: Budget = budget) -> None:
            async with budget.admit(50, patient=True):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert budget.statistics().waiting == 0
        release.set()
        await holding
        assert budget.statistics().reserved_bytes == 0
