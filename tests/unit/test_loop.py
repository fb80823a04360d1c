# SPDX-License-Identifier: Apache-2.0
"""The event loop: what it means to cancel a task."""

from __future__ import annotations

from typing import Any

import pytest

from northstar.runtime.loop import Cancelled, Future, Loop


@pytest.fixture
def loop() -> Loop:
    def fail(failure: BaseException) -> None:
        raise failure

    return Loop(fail)


async def turns(loop: Loop) -> None:
    """Enough for everybody to get where they wait."""
    for _ in range(10):
        await loop.turn()


def test_cancelled_where_it_waits(loop: Loop) -> None:
    """Not one step later, although what it waits for is done and its next step is due."""
    steps: list[str] = []
    first, second = Future(), Future()

    async def work() -> None:
        try:
            await first
            steps.append("first")
            await second
        except Cancelled:
            steps.append("cancelled")
            raise

    async def main() -> None:
        task = loop.spawn(work())
        await turns(loop)
        first.set_result()
        task.cancel()
        await turns(loop)
        assert task.done

    loop.run(main())
    assert steps == ["cancelled"]


def test_a_task_cleans_up_undisturbed(loop: Loop) -> None:
    """Whatever it waited for before, and however often it is cancelled at once."""
    given: list[object] = []
    first, second, last = Future(), Future(), Future()

    async def work() -> None:
        try:
            await first
            await second
        finally:
            given.append(await last)

    async def main() -> None:
        task = loop.spawn(work())
        await turns(loop)
        first.set_result()
        task.cancel()
        task.cancel()
        await turns(loop)
        second.set_result()
        await turns(loop)
        assert given == []
        last.set_result("the end")
        await turns(loop)
        assert task.done

    loop.run(main())
    assert given == ["the end"]


def test_cancelled_before_it_began(loop: Loop) -> None:
    """It gets to where it waits first, as what it was given is to be cleaned up by itself."""
    steps: list[str] = []

    async def work() -> None:
        try:
            steps.append("begun")
            await Future()
        finally:
            steps.append("cleaned up")

    async def main() -> None:
        task = loop.spawn(work())
        task.cancel()
        await turns(loop)
        assert task.done

    loop.run(main())
    assert steps == ["begun", "cleaned up"]


def test_a_task_that_cancels_itself(loop: Loop) -> None:
    steps: list[str] = []

    async def work() -> None:
        (itself,) = tasks
        itself.cancel()
        steps.append("goes on")
        await Future()
        steps.append("never")

    async def main() -> None:
        tasks.append(loop.spawn(work()))
        await turns(loop)
        assert tasks[0].done

    tasks: list[Any] = []
    loop.run(main())
    assert steps == ["goes on"]


def test_cancelled_after_its_end(loop: Loop) -> None:
    async def work() -> int:
        return 3

    async def main() -> None:
        task = loop.spawn(work())
        await task
        task.cancel()
        await turns(loop)
        assert task.result() == 3

    loop.run(main())
