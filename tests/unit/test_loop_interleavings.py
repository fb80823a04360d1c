# SPDX-License-Identifier: Apache-2.0
"""Mutex and gather under every order of steps, failures and cancellations that hypothesis thinks of."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtualloop import Steps, VirtualLoop, turns

from northstar.runtime.eventloop.loop import Cancelled, Mutex, Task

MANY_TURNS = 400


@dataclass(frozen=True)
class Work:
    """When it begins, how long it takes, when it is cancelled, and whether it fails; all in turns."""

    begin: int
    length: int
    cancelled: int | None
    fails: bool


WORK = st.builds(Work, st.integers(0, 8), st.integers(0, 4), st.none() | st.integers(0, 20), st.booleans())


def drive(loop: VirtualLoop, steps: Steps, mutex: Mutex, works: list[Work]) -> list[Task]:
    """Run tasks that each hold the mutex for a while; all of them have ended."""
    tasks: dict[int, Task] = {}

    async def hold(number: int, work: Work) -> None:
        async with mutex:
            await steps.run(number, work.length, ValueError() if work.fails else None)

    async def main() -> None:
        for moment in range(25):
            for number, work in enumerate(works):
                if work.begin == moment:
                    tasks[number] = loop.spawn(hold(number, work))
                if work.cancelled == moment and number in tasks:
                    tasks[number].cancel()
            await loop.turn()
        await turns(loop, MANY_TURNS)

    loop.run(main())
    return [tasks[number] for number in range(len(works))]


@given(st.lists(WORK, max_size=8))
def test_mutex(works: list[Work]) -> None:
    """One at a time, in the order of asking, and it is free in the end, whatever happens to its holders."""
    loop, mutex = VirtualLoop(), Mutex()
    steps = Steps(loop)
    tasks = drive(loop, steps, mutex, works)
    assert steps.most <= 1
    assert all(task.done for task in tasks)
    assert steps.begun == sorted(steps.begun, key=lambda number: (works[number].begin, number))
    spared = [number for number, work in enumerate(works) if work.cancelled is None]
    assert set(spared) <= set(steps.ended)

    async def again() -> str:
        async with mutex:
            return "free"

    assert loop.run(again()) == "free"


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=10), st.integers(0, 4))
def test_gather(works: list[tuple[int, bool]], limit: int) -> None:
    """Results in order, failures among them, and never more at once than allowed, but as many."""
    loop = VirtualLoop()
    steps = Steps(loop)
    failures = [ValueError(number) for number in range(len(works))]

    async def main() -> list[object]:
        return await loop.gather(
            *(
                steps.run(number, length, failures[number] if fails else None)
                for number, (length, fails) in enumerate(works)
            ),
            limit=limit,
        )

    results = loop.run(main())
    expected = [failures[number] if fails else number for number, (_, fails) in enumerate(works)]
    assert results == expected
    assert steps.begun == list(range(len(works)))
    most = min(limit or len(works), len(works))
    assert steps.most <= most
    if all(length for length, _ in works):
        assert steps.most == most
    assert loop.failures == []


@pytest.mark.filterwarnings("error")
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.integers(0, 4),
    st.integers(0, 20),
)
def test_gather_that_is_cancelled(lengths: list[int], limit: int, moment: int) -> None:
    """Nothing of it goes on, and nothing begins any more."""
    loop = VirtualLoop()
    steps = Steps(loop)

    async def main() -> None:
        work = loop.spawn(
            loop.gather(*(steps.run(number, length) for number, length in enumerate(lengths)), limit=limit)
        )
        await turns(loop, moment)
        work.cancel()
        while not work.done:
            await loop.turn()
        assert steps.running == 0
        begun = list(steps.begun)
        await turns(loop, MANY_TURNS)
        assert steps.begun == begun
        if len(steps.ended) < len(lengths):
            with pytest.raises(Cancelled):
                work.result()

    loop.run(main())
    assert sorted(steps.begun) == sorted(steps.ended + steps.interrupted)
    assert loop.failures == []


@given(st.integers(1, 4), st.integers(0, 30), st.lists(st.integers(0, 30), max_size=4))
def test_a_chain_of_tasks(depth: int, length: int, cancelled: list[int]) -> None:
    """Each waits for the next one; whichever is cancelled, those that wait for it end, and nobody hangs."""
    loop = VirtualLoop()
    steps = Steps(loop)
    tasks: list[Task] = []

    async def link(number: int) -> None:
        if number == depth:
            await steps.run("last", length)
            return
        tasks.append(loop.spawn(link(number + 1)))
        await tasks[-1]

    async def main() -> None:
        tasks.append(loop.spawn(link(0)))
        for moment in range(31):
            for index, when in enumerate(cancelled):
                if when == moment and index < len(tasks):
                    tasks[index].cancel()
            await loop.turn()
        await turns(loop, MANY_TURNS)
        assert all(task.done for task in tasks)

    loop.run(main())
    assert loop.failures == []
    assert steps.running == 0
