# SPDX-License-Identifier: Apache-2.0
"""Descriptors that containers leave with the daemon, while other things happen to them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from northstar.errors import Unexpected
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.supervision import descriptors
from northstar.runtime.supervision.descriptors import Descriptors
from northstar.supervision.notification import Message

STORE = Message(fdstore=True, fdname="pipe")
DROP = Message(fdremove=True, fdname="pipe")


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class Pipes:
    """What a program has sent: an end of a pipe each time."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int]] = []

    def sent(self) -> int:
        self.ends.append(os.pipe())
        return self.ends[-1][0]

    def close(self) -> None:
        for end in (end for pair in self.ends for end in pair):
            if is_open(end):
                os.close(end)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Descriptors are looked at for as long as this is not set."""
    looked, look = threading.Event(), descriptors._suitable

    def suitable(*arguments: Any) -> Any:
        assert looked.wait(60)
        return look(*arguments)

    monkeypatch.setattr(descriptors, "_suitable", suitable)
    return looked


def run(work: Callable[[Loop, Descriptors], Any]) -> None:
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    loop.run(work(loop, Descriptors(loop)))
    assert not failures


def test_kept_and_handed_over(pipes: Pipes) -> None:
    async def work(loop: Loop, kept: Descriptors) -> None:
        number = pipes.sent()
        kept.told("a", 4, STORE, [number])
        await loop.turn()
        (copy,) = await kept.handed_over("a")
        assert (copy.name, copy.number != number, is_open(number)) == ("pipe", True, True)
        os.close(copy.number)

    run(work)


def test_stopped_while_they_are_looked_at(pipes: Pipes, slow: threading.Event) -> None:
    """Nobody wants them any more, and none stays open."""
    number = pipes.sent()

    async def work(loop: Loop, kept: Descriptors) -> None:
        kept.told("a", 4, STORE, [number])
        await loop.sleep(0.01)
        kept.forget("a")
        slow.set()
        assert await kept.handed_over("a") == []
        while is_open(number):
            await loop.sleep(0.001)

    run(work)


def test_dropped_while_others_are_looked_at(pipes: Pipes, slow: threading.Event) -> None:
    """What comes later is kept, and closed when the container is stopped."""
    first, second = pipes.sent(), pipes.sent()

    async def work(loop: Loop, kept: Descriptors) -> None:
        slow.set()
        kept.told("a", 4, STORE, [first])
        await loop.turn()
        os.close((await kept.handed_over("a"))[0].number)
        slow.clear()
        kept.told("a", 4, STORE, [second])
        await loop.sleep(0.01)
        kept.told("a", 4, DROP, [])
        while is_open(first):
            await loop.sleep(0.001)
        slow.set()
        (copy,) = await kept.handed_over("a")
        os.close(copy.number)
        kept.forget("a")
        while is_open(second):
            await loop.sleep(0.001)

    run(work)


def test_no_room_for_copies(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have been made are closed."""
    made: list[int] = []
    dup = os.dup

    def limited(number: int) -> int:
        if made:
            raise OSError(24, "Too many open files")
        made.append(dup(number))
        return made[0]

    async def work(loop: Loop, kept: Descriptors) -> None:
        kept.told("a", 4, STORE, [pipes.sent(), pipes.sent()])
        await loop.sleep(0.01)
        monkeypatch.setattr(os, "dup", limited)
        with pytest.raises(Unexpected, match="a has left: Too many open files"):
            await kept.handed_over("a")
        while is_open(made[0]):
            await loop.sleep(0.001)

    run(work)
