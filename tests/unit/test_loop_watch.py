# SPDX-License-Identifier: Apache-2.0
"""Which calls of the event loop are said to be slow, and how long they took."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from northstar.runtime.eventloop import watch
from northstar.runtime.eventloop.watch import LoopWatch


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("0", 0.0),
        ("20", 0.02),
        ("1500", 1.5),
        ("-1", 0.0),
        ("x", 0.0),
        ("1.5", 0.0),
        ("²", 0.0),
    ],
)
def test_limit_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str | None, seconds: float) -> None:
    """Containers do not get the variable."""
    monkeypatch.delenv(watch.VARIABLE, raising=False)
    if text is not None:
        monkeypatch.setenv(watch.VARIABLE, text)
    assert watch.limit() == seconds
    assert watch.VARIABLE not in os.environ


class Machine:
    """Its clocks, in seconds: the time of day, that of the thread, and how long the thread had to wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, counts: bool = True) -> None:
        self.now, self.computed, self.waited = 1000.0, 0.75, 7.0
        self.said: list[str] = []
        clocks = SimpleNamespace(monotonic=lambda: self.now, thread_time=lambda: self.computed)
        monkeypatch.setattr(watch, "time", clocks)
        monkeypatch.setattr(os, "pread", lambda *_: f"1 {round(self.waited * 1e9)} 3\n".encode())
        monkeypatch.setattr(os, "open", (lambda *_: 99) if counts else self.refuse)
        self.watch = LoopWatch(0.1, self.said.append)

    def refuse(self, *_: object) -> int:
        raise FileNotFoundError

    def call(self, spent: float, computed: float = 0.0, waited: float = 0.0) -> None:
        """Make a call that takes so long."""

        def slow_call() -> None:
            self.now += spent
            self.computed += computed
            self.waited += waited

        self.watch(slow_call)


@pytest.mark.parametrize(
    ("spent", "computed", "waited", "said"),
    [
        (0.05, 0.05, 0.0, None),
        (0.125, 0.025, 0.0, "125 ms, 25 ms of them computing"),
        (0.125, 0.125, 0.0, "125 ms, 125 ms of them computing"),
        (5.0, 2.0, 0.0, "5000 ms, 2000 ms of them computing"),
        (5.0, 0.05, 4.95, None),
        (5.0, 0.05, 4.0, "1000 ms, 50 ms of them computing"),
    ],
)
def test_slow_calls(
    monkeypatch: pytest.MonkeyPatch, spent: float, computed: float, waited: float, said: str | None
) -> None:
    """What others had the processor for does not count."""
    machine = Machine(monkeypatch)
    machine.call(spent, computed, waited)
    machine.call(0.0)
    assert [text.partition(" took ")[2] for text in machine.said] == ([] if said is None else [said])
    assert all(text.startswith(watch.MESSAGE) and "slow_call" in text for text in machine.said)


def test_a_kernel_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, counts=False)
    machine.call(0.5, 0.25, 0.5)
    assert machine.said[0].endswith(" took 500 ms, 250 ms of them computing")


def test_a_slow_call_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)

    def fail() -> None:
        machine.now += 1.0
        raise ValueError

    with pytest.raises(ValueError):
        machine.watch(fail)
    assert len(machine.said) == 1
