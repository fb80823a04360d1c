# SPDX-License-Identifier: Apache-2.0
"""How many messages a connection may send in a second, and how much memory long lines may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtualloop import VirtualLoop

from northstar.runtime.console import throttle as module
from northstar.runtime.console.throttle import LONG_LINES, Budget, Throttle


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> VirtualLoop:
    return made(monkeypatch)


def made(monkeypatch: pytest.MonkeyPatch) -> VirtualLoop:
    """A loop whose clock the throttle looks at, too; it does not begin at zero."""
    loop = VirtualLoop(monkeypatch)
    loop.now = 1000.0
    monkeypatch.setattr(module, "time", type("Clock", (), {"monotonic": staticmethod(lambda: loop.now)}))
    return loop


def times(loop: VirtualLoop, limit: int, pauses: list[float]) -> list[float]:
    """When each message is let in by a client that pauses for so long before each."""
    throttle = Throttle(loop, limit)

    async def send() -> list[float]:
        let_in = []
        for pause in pauses:
            await loop.sleep(pause)
            await throttle.wait()
            throttle.count()
            let_in.append(round(loop.now - 1000.0, 6))
        return let_in

    return loop.run(send())


def test_no_limit(loop: VirtualLoop) -> None:
    assert times(loop, 0, [0.0] * 100) == [0.0] * 100


def test_a_burst(loop: VirtualLoop) -> None:
    assert times(loop, 3, [0.0] * 8) == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0]


def test_room_comes_back_as_messages_get_older(loop: VirtualLoop) -> None:
    assert times(loop, 2, [0.0, 0.4, 0.0, 0.0, 0.0]) == [0.0, 0.4, 1.0, 1.4, 2.0]


def test_who_sends_slowly_never_waits(loop: VirtualLoop) -> None:
    assert times(loop, 2, [0.6] * 5) == [0.6, 1.2, 1.8, 2.4, 3.0]


@given(st.integers(1, 4), st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0, 1.5]), max_size=20))
def test_never_more_in_a_second(limit: int, pauses: list[float]) -> None:
    """And nobody waits longer than he has to."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        let_in = times(made(monkeypatch), limit, pauses)
    asked = 0.0
    for number, moment in enumerate(let_in):
        asked += pauses[number]
        free = let_in[number - limit] + 1.0 if number >= limit else 0.0
        assert moment == pytest.approx(max(asked, free))
        asked = moment


def test_what_was_counted_without_waiting_counts(loop: VirtualLoop) -> None:
    """The handshake does not wait; more may have come than there is room for."""
    throttle = Throttle(loop, 2)

    async def send() -> float:
        for _ in range(3):
            throttle.count()
        await throttle.wait()
        return loop.now - 1000.0

    assert loop.run(send()) == 1.0


# --- memory


def test_long_lines() -> None:
    assert LONG_LINES == 4 * 1024 * 1024
    budget = Budget()
    assert budget.take(LONG_LINES, 0)
    assert not budget.take(1, 0)
    budget.give_back(1)
    assert budget.take(1, 0)
    assert not budget.take(1, 0)


def test_who_is_alone_gets_enough() -> None:
    budget = Budget(10)
    assert not budget.take(21, 20)
    assert budget.take(20, 20)
    assert not budget.take(1, 20)
    budget.give_back(20)
    assert budget.take(10, 0)
    assert not budget.take(1, 0)


@given(st.lists(st.integers(-30, 30), max_size=30))
def test_never_more_than_there_is(steps: list[int]) -> None:
    budget, used = Budget(50), 0
    for step in steps:
        if step < 0:
            given_back = min(used, -step)
            budget.give_back(given_back)
            used -= given_back
        else:
            assert budget.take(step, 0) == (used + step <= 50)
            used += step if used + step <= 50 else 0
