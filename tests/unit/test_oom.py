# SPDX-License-Identifier: Apache-2.0
"""What counts as running out of memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from northstar.names import Container
from northstar.runtime.controlgroups import oom
from northstar.runtime.controlgroups.oom import OomMonitor
from northstar.runtime.eventloop.loop import Loop

CONTAINER = Container.parse("a:0.0.1")
QUIET = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"


class Monitor:
    """A monitor, and the file memory.events that it reads."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        path.write_text(text)
        group = Mock(open_events=lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        loop = Mock(spawn=lambda watch: (watch.close(), Mock())[1])
        self.monitor = OomMonitor(loop, CONTAINER, group, self.events.append)

    def after(self, text: str) -> int:
        """How many events are reported when the file has changed."""
        self.path.write_text(text)
        self.events.clear()
        self.monitor.check()
        return len(self.events)


@pytest.mark.parametrize("before", [QUIET, "low 1\nhigh 2\nmax 3\noom 4\noom_kill 4\n", ""])
def test_what_is_there_at_the_beginning_is_no_event(tmp_path: Path, before: str) -> None:
    monitor = Monitor(tmp_path / "events", before)
    assert monitor.after(before) == 0
    monitor.monitor.finish()


@pytest.mark.parametrize(
    "text",
    [
        QUIET.replace("high 0", "high 99"),
        QUIET.replace("max 0", "max 99").replace("low 0", "low 7"),
        QUIET + "oom_group_kill 3\nsock_throttled 99\n",
        QUIET + "\n\xff\xfe garbage\noom\noom x\noom_kill -1\n",
    ],
    ids=["high", "max", "unknown keys", "garbage"],
)
def test_pressure_is_no_shortage(tmp_path: Path, text: str) -> None:
    """S-48: neither are keys that this version does not know."""
    monitor = Monitor(tmp_path / "events", QUIET)
    assert monitor.after(text) == 0
    monitor.monitor.finish()


def test_each_increase_counts_once(tmp_path: Path) -> None:
    """S-48: the kernel counts the shortage, and a moment later whom it has killed."""
    monitor = Monitor(tmp_path / "events", QUIET)
    short = QUIET.replace("oom 0", "oom 1")
    killed = short.replace("oom_kill 0", "oom_kill 1")
    assert [monitor.after(text) for text in (short, short, killed, killed)] == [1, 0, 0, 0]
    again = killed.replace("oom 1", "oom 3")
    assert [monitor.after(text) for text in (again, again)] == [1, 0]
    monitor.monitor.finish()


def test_the_host_is_short_after_the_container_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-48: also if the container had more shortages than victims so far."""
    now = 100.0
    monkeypatch.setattr(oom, "time", Mock(monotonic=lambda: now))
    monitor = Monitor(tmp_path / "events", QUIET)
    short = QUIET.replace("oom 0", "oom 5")
    killed = short.replace("oom_kill 0", "oom_kill 2")
    assert [monitor.after(short), monitor.after(killed)] == [1, 0]
    now += oom.ONE_EVENT + 0.1
    more = killed.replace("oom_kill 2", "oom_kill 3")
    assert [monitor.after(more), monitor.after(more)] == [1, 0]
    monitor.monitor.finish()


@pytest.mark.parametrize(("seconds", "events"), [(0.0, 0), (1.0, 0), (1.125, 1)])
def test_who_is_killed_within_a_second_is_the_victim_of_a_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, events: int
) -> None:
    now = 100.0
    monkeypatch.setattr(oom, "time", Mock(monotonic=lambda: now))
    monitor = Monitor(tmp_path / "events", QUIET)
    short = QUIET.replace("oom 0", "oom 1")
    assert monitor.after(short) == 1
    now += seconds
    assert monitor.after(short.replace("oom_kill 0", "oom_kill 1")) == events
    monitor.monitor.finish()


def test_all_counters_are_reported(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "events", QUIET)
    assert monitor.after("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n") == 1
    assert monitor.events == [{"low": 1, "high": 2, "max": 3, "oom": 4, "oom_kill": 5}]
    monitor.monitor.finish()


def test_victims_of_one_shortage_are_one_event(tmp_path: Path) -> None:
    """The whole group may be killed (memory.oom.group), one after the other."""
    monitor = Monitor(tmp_path / "events", QUIET)
    short = QUIET.replace("oom 0", "oom 1")
    texts = [short, *(short.replace("oom_kill 0", f"oom_kill {number}") for number in range(1, 5))]
    assert [monitor.after(text) for text in texts] == [1, 0, 0, 0, 0]
    monitor.monitor.finish()


def test_counters_that_cannot_be_read_for_a_while(tmp_path: Path) -> None:
    """Nothing is reported twice."""
    monitor = Monitor(tmp_path / "events", QUIET.replace("oom 0", "oom 4"))
    fd, monitor.monitor._fd = monitor.monitor._fd, os.open(tmp_path, os.O_RDONLY)
    monitor.monitor.check()
    os.close(monitor.monitor._fd)
    monitor.monitor._fd = fd
    monitor.monitor.check()
    assert monitor.events == []
    monitor.monitor.finish()


def test_shortage_of_the_host(tmp_path: Path) -> None:
    """S-48: the container has not met its limit, but has lost a process all the same."""
    monitor = Monitor(tmp_path / "events", QUIET)
    assert monitor.after(QUIET.replace("oom_kill 0", "oom_kill 1")) == 1
    assert monitor.events[0]["oom"] == 0
    assert monitor.events[0]["oom_kill"] == 1
    monitor.monitor.finish()


class Counted:
    """A monitor of version 1, and the eventfd that the kernel adds to."""

    def __init__(self, loop: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.fd = -1
        group = Mock(open_events=lambda: None, watch_oom=self._watch)
        self.monitor = OomMonitor(loop, CONTAINER, group, self.events.append)

    def _watch(self, eventfd: int) -> None:
        self.fd = eventfd


def test_events_that_are_only_counted() -> None:
    """With version 1 each read gives those since the last one."""
    counted = Counted(Mock(spawn=lambda watch: (watch.close(), Mock())[1]))
    counted.monitor.check()
    for number in (2, 3):
        os.eventfd_write(counted.fd, number)
        counted.monitor.check()
        counted.monitor.check()
    assert [event["oom"] for event in counted.events] == [2, 5]
    os.eventfd_write(counted.fd, 1)
    counted.monitor.finish()
    assert counted.events[-1]["oom"] == 6


def test_a_shortage_before_the_watch_begins() -> None:
    """An edge that comes before anybody waits for it is not lost."""
    loop = Loop(lambda error: pytest.fail(str(error)))
    events: list[dict[str, Any]] = []
    group = Mock(open_events=lambda: None, watch_oom=lambda eventfd: os.eventfd_write(eventfd, 1))
    monitor = OomMonitor(loop, CONTAINER, group, events.append)

    async def some_turns() -> None:
        for _ in range(5):
            await loop.turn()

    loop.run(some_turns())
    assert [event["oom"] for event in events] == [1]
    monitor.finish()
    assert len(events) == 1
