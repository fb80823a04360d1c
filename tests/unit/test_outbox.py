# SPDX-License-Identifier: Apache-2.0
"""What waits for a connection: a queue of notifications, and the output that it follows."""

from __future__ import annotations

import json

import pytest

from northstar.names import Container
from northstar.runtime.console.outbox import Outbox
from northstar.runtime.output.lastoutput import LastOutput

A, B = Container.parse("a:0.0.1"), Container.parse("b:0.0.1")


class Rig:
    """An outbox, and what it has woken somebody for."""

    def __init__(self, backlog: int = 3) -> None:
        self.woken = 0
        self.outbox = Outbox(backlog, self._wake)
        self.outputs = {container: LastOutput() for container in (A, B)}
        for output in self.outputs.values():
            output.begin(10_000)

    def _wake(self) -> None:
        self.woken += 1

    def follow(self, *containers: Container) -> None:
        for container in containers:
            self.outbox.follow(container, self.outputs[container])

    def taken(self) -> list[str]:
        """Everything that there is: whose output, or the notification as it was put."""
        found = []
        while line := self.outbox.take():
            value = json.loads(line)["notification"] if line.startswith(b"{") else line.decode()
            if isinstance(value, dict) and "output" in value:
                name, details = value["output"]
                value = f"{name} {' '.join(each['line'] for each in details['lines'])}"
            found.append(value if isinstance(value, str) else json.dumps(value))
        return found


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_nothing(rig: Rig) -> None:
    assert rig.outbox.take() == b""
    assert not rig.outbox.subscribed
    assert not rig.outbox.lagged


def test_who_has_not_subscribed_gets_none_of_the_queue(rig: Rig) -> None:
    rig.outbox.put(b"one")
    assert rig.taken() == []
    rig.outbox.subscribed = True
    assert rig.taken() == ["one"]


def test_in_the_order_of_events(rig: Rig) -> None:
    rig.outbox.subscribed = True
    for line in (b"one", b"two", b"three"):
        rig.outbox.put(line)
    assert not rig.outbox.lagged
    assert rig.taken() == ["one", "two", "three"]


def test_one_more_than_may_wait(rig: Rig) -> None:
    rig.outbox.subscribed = True
    for line in (b"one", b"two", b"three", b"four"):
        rig.outbox.put(line)
    assert rig.outbox.lagged
    assert rig.taken() == []
    rig.outbox.put(b"five")
    assert rig.taken() == []


def test_cleared(rig: Rig) -> None:
    rig.outbox.subscribed = True
    rig.outbox.put(b"one")
    rig.outbox.clear()
    assert rig.taken() == []
    rig.outbox.put(b"two")
    assert rig.taken() == ["two"]


def test_output_from_now_on(rig: Rig) -> None:
    rig.outputs[A].add("stdout", "before")
    rig.follow(A)
    assert rig.taken() == []
    rig.outputs[A].add("stdout", "after")
    assert rig.woken == 1
    assert rig.taken() == ["a:0.0.1 after"]


def test_events_come_before_output(rig: Rig) -> None:
    rig.outbox.subscribed = True
    rig.follow(A)
    rig.outputs[A].add("stdout", "line")
    rig.outbox.put(b"event")
    assert rig.taken() == ["event", "a:0.0.1 line"]


def test_who_floods_does_not_keep_others_from_being_heard(rig: Rig) -> None:
    rig.follow(A, B)
    rig.outputs[B].add("stdout", "0")
    heard = []
    for number in range(4):
        rig.outputs[A].add("stdout", str(number))
        heard.append(json.loads(rig.outbox.take())["notification"]["output"][0])
    assert heard == ["a:0.0.1", "b:0.0.1", "a:0.0.1", "a:0.0.1"]


@pytest.mark.parametrize("closed", [False, True])
def test_not_followed_any_more(rig: Rig, closed: bool) -> None:
    rig.follow(A, B)
    if closed:
        rig.outbox.close()
    else:
        rig.outbox.unfollow(A)
        rig.outbox.unfollow(A)
    rig.outputs[A].add("stdout", "line")
    assert rig.woken == 0
    rig.outputs[B].add("stdout", "line")
    assert rig.woken == (0 if closed else 1)
    assert rig.taken() == ([] if closed else ["b:0.0.1 line"])


def test_followed_twice_is_followed_once(rig: Rig) -> None:
    rig.follow(A)
    rig.follow(A)
    rig.outputs[A].add("stdout", "line")
    assert rig.woken == 1
    assert rig.taken() == ["a:0.0.1 line"]
    rig.outbox.unfollow(A)
    rig.outputs[A].add("stdout", "line")
    assert rig.woken == 1


def test_the_end_is_told_once(rig: Rig) -> None:
    rig.follow(A, B)
    rig.outputs[A].add("stdout", "last")
    rig.outputs[A].remove()
    assert rig.taken() == ["a:0.0.1 ", '{"output_end": "a:0.0.1"}']
    woken = rig.woken
    rig.outputs[A].remove()
    assert rig.woken == woken
    rig.outputs[B].add("stdout", "goes on")
    assert rig.taken() == ["b:0.0.1 goes on"]


def test_closed_with_something_in_it(rig: Rig) -> None:
    rig.outbox.subscribed = True
    rig.outbox.put(b"one")
    rig.outbox.close()
    assert rig.taken() == []
