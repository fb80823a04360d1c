# SPDX-License-Identifier: Apache-2.0
"""The event loop: failures do not end it; cancellation; timers; threads; and which call was slow."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtualloop import Steps, VirtualLoop, turns

from northstar.runtime.eventloop import loop as module
from northstar.runtime.eventloop.loop import Cancelled, Future, Loop, Timeout, Timer
from northstar.runtime.eventloop.watch import LoopWatch

TIMEOUT = 60.0


class Unusual(BaseException):
    """Not even an Exception."""


FAILURES = [RuntimeError("a failure"), Unusual("a failure"), SystemExit(3), Cancelled()]


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def loop(failures: list[BaseException]) -> Loop:
    return Loop(failures.append)


def raising(failure: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise failure

    return call


# --- nothing ends the loop


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("way", ["soon", "later", "outside", "when done", "idle"])
def test_a_call_that_raises(
    loop: Loop, failures: list[BaseException], way: str, failure: BaseException
) -> None:
    others: list[str] = []
    event = Future()

    async def main() -> str:
        call = raising(failure)
        if way == "soon":
            loop.call_soon(call)
            loop.call_soon(lambda: others.append("the one behind"))
        elif way == "later":
            loop.call_later(0, call)
            loop.call_later(0, lambda: others.append("the one behind"))
        elif way == "idle":
            loop.when_idle(call)
            loop.when_idle(lambda: others.append("the one behind"))
        elif way == "outside":
            threading.Thread(target=loop.call_from_outside, args=(call,)).start()
            others.append("the one behind")
        else:
            loop.when_done(event, call)
            loop.when_done(event, lambda: others.append("the one behind"))
            event.set_result()
        while not failures or not others:
            await loop.sleep(0.001)
        return "goes on"

    assert loop.run(main()) == "goes on"
    assert failures == [failure]
    assert others == ["the one behind"]


@pytest.mark.parametrize("failure", FAILURES[:-1], ids=repr)
def test_a_task_that_raises(loop: Loop, failures: list[BaseException], failure: BaseException) -> None:
    async def work() -> None:
        raising(failure)()

    async def main() -> None:
        task = loop.spawn(work())
        await turns(loop)
        assert task.done
        with pytest.raises(type(failure)):
            await task

    loop.run(main())
    assert failures == [failure]


def test_a_failure_that_somebody_waits_for_is_theirs(loop: Loop, failures: list[BaseException]) -> None:
    async def work() -> None:
        raise ValueError

    async def main() -> None:
        with pytest.raises(ValueError):
            await loop.spawn(work())

    loop.run(main())
    assert failures == []


def test_who_is_called_when_something_is_readable(loop: Loop) -> None:
    """In a turn of its own, once for what came together, and not after the end."""
    reader, writer = os.pipe()
    called: list[bytes] = []

    async def main() -> None:
        channel = loop.listen(reader, lambda: called.append(os.read(reader, 10)))
        for text in (b"one", b"two"):
            os.write(writer, text)
            await loop.sleep(0.01)
        channel.close()
        os.write(writer, b"more")
        await loop.sleep(0.01)

    loop.run(main())
    assert called == [b"one", b"two", b"more"]
    os.close(reader)
    os.close(writer)


def test_who_hears_of_failures_fails() -> None:
    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)

    async def main() -> str:
        loop.call_soon(raising(ValueError()))
        await turns(loop)
        return "goes on"

    assert loop.run(main()) == "goes on"


def test_a_signal_interrupts_the_wait(loop: Loop) -> None:
    event = Future()
    previous = signal.signal(signal.SIGUSR1, lambda *_: loop.call_from_outside(event.set_result))

    async def main() -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await event

    try:
        loop.run(main())
    finally:
        signal.signal(signal.SIGUSR1, previous)


# --- cancellation


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


def test_who_waits_for_a_cancelled_task_hears_of_it(loop: Loop) -> None:
    async def main() -> None:
        task = loop.spawn(loop.sleep(TIMEOUT))
        await turns(loop)
        task.cancel()
        with pytest.raises(Cancelled):
            await task

    loop.run(main())


# --- timers


@given(st.lists(st.tuples(st.integers(0, 20), st.none() | st.integers(0, 20)), max_size=150))
def test_timers_fire_in_order_unless_cancelled_before(plans: list[tuple[int, int | None]]) -> None:
    """Each is a delay, and when it is cancelled."""
    fired: list[tuple[int, float]] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        loop = VirtualLoop(monkeypatch)

        async def main() -> None:
            timers = [
                loop.call_later(delay, lambda number=number: fired.append((number, loop.now)))
                for number, (delay, _) in enumerate(plans)
            ]
            for moment in range(22):
                for timer, (_, cancelled) in zip(timers, plans, strict=True):
                    if cancelled == moment:
                        timer.cancel()
                        timer.cancel()
                await loop.sleep(1)

        loop.run(main())
    assert loop.failures == []
    # Cancelled at the very moment when it is due, either may come first.
    certain = {n for n, (delay, end) in enumerate(plans) if end is None or end > delay}
    possible = certain | {n for n, (delay, end) in enumerate(plans) if end == delay}
    numbers = [number for number, _ in fired]
    assert len(set(numbers)) == len(numbers)
    assert certain <= set(numbers) <= possible
    assert all(moment == plans[number][0] for number, moment in fired)
    assert sorted(moment for _, moment in fired) == [moment for _, moment in fired]


def test_cancelled_timers_are_forgotten(loop: Loop) -> None:
    async def main() -> int:
        lasting = [loop.call_later(TIMEOUT, lambda: None) for _ in range(10)]
        for _ in range(10_000):
            loop.call_later(TIMEOUT, lambda: None).cancel()
        kept = sum(isinstance(found, Timer) for found in gc.get_objects())
        for timer in lasting:
            timer.cancel()
        return kept

    assert loop.run(main()) < 200


def test_a_cancelled_timer_does_not_wake_the_loop(loop: Loop) -> None:
    polls: list[float] = []

    async def main() -> None:
        loop.call_later(0.01, lambda: None).cancel()
        await loop.sleep(0.05)

    patience = loop._patience
    loop._patience = lambda: polls.append(1) or patience()  # type: ignore[func-returns-value,method-assign]
    loop.run(main())
    assert len(polls) <= 4


# --- waiting


@given(st.integers(0, 3), st.integers(0, 3))
def test_wait_for(done: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        loop = VirtualLoop(monkeypatch)
        future = Future()

        async def main() -> str:
            loop.call_later(done, lambda: future.set_result("a value"))
            try:
                value: str = await loop.wait_for(future, limit)
            except Timeout:
                assert loop.now == limit
                return "late"
            assert loop.now == done
            return value

        result = loop.run(main())
    assert result in (["a value"] if done < limit else ["late"] if done > limit else ["a value", "late"])


def test_wait_for_something_that_fails(loop: Loop) -> None:
    async def main() -> None:
        future = Future()
        loop.call_soon(lambda: future.set_error(ValueError("no")))
        with pytest.raises(ValueError, match="no"):
            await loop.wait_for(future, TIMEOUT)

    loop.run(main())


def test_a_limit_leaves_no_trace(loop: Loop) -> None:
    """Neither of the ways out leaves anything with the future or among the timers."""

    async def main() -> None:
        future = Future()
        with pytest.raises(Timeout):
            await loop.wait_for(future, 0.001)
        waiting = loop.spawn(loop.wait_for(future, TIMEOUT))
        await turns(loop)
        waiting.cancel()
        await turns(loop)
        assert waiting.done
        assert future._callbacks == []
        assert not any(timer.pending for timer in loop._timers)

    loop.run(main())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_first_of_several(moments: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        loop = VirtualLoop(monkeypatch)
        futures = [Future() for _ in moments]

        async def main() -> float:
            for future, moment in zip(futures, moments, strict=True):
                loop.call_later(moment, future.set_result)
            await loop.first(*futures)
            return loop.now

        assert loop.run(main()) == min(moments)
    assert all(future._callbacks == [] for future in futures)


# --- threads


def test_result_and_failure_of_a_thread(loop: Loop) -> None:
    async def main() -> None:
        assert await loop.in_thread(int, "12", base=8) == 10
        with pytest.raises(ValueError):
            await loop.in_thread(int, "no number")
        with pytest.raises(Unusual):
            await loop.in_thread(raising(Unusual()))

    loop.run(main())


def test_the_loop_turns_while_a_thread_works(loop: Loop) -> None:
    free = threading.Event()

    async def main() -> None:
        work = loop.spawn(loop.in_thread(free.wait, TIMEOUT))
        await loop.sleep(0.01)
        free.set()
        assert await work is True

    loop.run(main())


def test_a_cancelled_task_waits_for_its_thread(loop: Loop) -> None:
    """What the thread works with, a descriptor for example, stays until it has ended."""
    free, steps = threading.Event(), []

    def work() -> None:
        assert free.wait(TIMEOUT)
        steps.append("thread")

    async def use() -> None:
        try:
            await loop.in_thread(work)
        finally:
            steps.append("task")

    async def main() -> None:
        task = loop.spawn(use())
        await turns(loop)
        task.cancel()
        task.cancel()
        await loop.sleep(0.01)
        assert steps == []
        free.set()
        with pytest.raises(Cancelled):
            await task

    loop.run(main())
    assert steps == ["thread", "task"]


@pytest.mark.parametrize("attempts", [3, 1000])
def test_no_thread_can_be_started(loop: Loop, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
    """At a limit of processes; it passes, or it does not."""
    start, count = _thread.start_new_thread, iter(range(attempts))

    def refuse(function: Any, arguments: Any) -> int:
        if next(count, None) is not None:
            raise RuntimeError("can't start new thread")
        return start(function, arguments)

    monkeypatch.setattr(module._thread, "start_new_thread", refuse)
    monkeypatch.setattr(module, "THREAD_RETRY", 0.001)
    monkeypatch.setattr(module, "THREAD_LIMIT", 0.1 if attempts > 100 else TIMEOUT)

    async def main() -> None:
        if attempts > 100:
            with pytest.raises(BlockingIOError, match="no thread"):
                await loop.in_thread(int, "3")
        else:
            assert await loop.in_thread(int, "3") == 3

    loop.run(main())


# --- slow calls


def test_slow_calls_are_told(loop: Loop) -> None:
    lines: list[str] = []
    loop.observer = LoopWatch(0.05, lines.append)

    async def sleeping() -> None:
        time.sleep(0.1)

    async def computing() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    async def quick() -> None:
        await loop.sleep(0.1)
        await loop.in_thread(time.sleep, 0.1)

    async def main() -> None:
        for work in (sleeping(), computing(), quick()):
            await loop.spawn(work)
        loop.call_later(0, lambda: time.sleep(0.1))
        await loop.sleep(0.01)

    loop.run(main())
    assert [line.partition(" took ")[0].rpartition(".")[2] for line in lines] == [
        "sleeping",
        "computing",
        "<lambda>",
    ]


@pytest.mark.slow
def test_a_busy_machine_is_no_slow_call(loop: Loop) -> None:
    """As many processes as there are processors, and more, keep a call from computing."""
    lines: list[str] = []
    loop.observer = LoopWatch(0.08, lines.append)
    rivals = [os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], {}) for _ in range(8)]
    waits: list[float] = []

    def compute() -> None:
        began, end = time.monotonic(), time.thread_time() + 0.04
        while time.thread_time() < end:
            pass
        waits.append(time.monotonic() - began)

    async def main() -> None:
        # Pinned to one processor, it is certain to wait.
        for _ in range(5):
            loop.call_soon(compute)
            await loop.turn()
            await loop.turn()

    allowed = os.sched_getaffinity(0)
    one = {min(allowed)}
    try:
        for pid in (0, *rivals):
            os.sched_setaffinity(pid, one)
        loop.run(main())
    finally:
        os.sched_setaffinity(0, allowed)
        for pid in rivals:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert max(waits) > 0.08
    assert lines == []


# --- several at once


def test_steps(loop: Loop) -> None:
    """What the property tests rely on."""
    steps = Steps(loop)

    async def main() -> None:
        assert await steps.run("a", 3) == "a"

    loop.run(main())
    assert (steps.begun, steps.ended, steps.most) == (["a"], ["a"], 1)
