# SPDX-License-Identifier: Apache-2.0
"""Damaged images, from the kernel's event to who hears of it."""

from __future__ import annotations

import errno
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest
from northstar.kernel import uevents
from northstar.names import Container
from northstar.runtime import log
from northstar.runtime.containers.damage import DamageWatch
from northstar.runtime.containers.damagecontrol import DamageControl
from northstar.runtime.containers.events import Events, Observer
from northstar.runtime.containers.records import Record
from northstar.runtime.eventloop.loop import Loop
from northstar.supervision import state as s
from northstar.supervision.model import Restart, Settings

MANIFEST = manifest.parse(b'{"name":"a","version":"0.0.1","init":"/a","uid":1,"gid":1}')
DAMAGED = (
    b"change@/devices/virtual/block/dm-3\0ACTION=change\0DEVPATH=/devices/virtual/block/dm-3\0SUBSYSTEM=block\0"
    b"DM_VERITY_ERR_BLOCK_NR=0,123\0MAJOR=253\0MINOR=3\0DEVNAME=dm-3\0SEQNUM=4711\0"
)


def test_event_of_the_kernel() -> None:
    assert uevents.damaged_block(uevents.parse(DAMAGED)) == ((253, 3), "data block 123")
    of_hashes = DAMAGED.replace(b"=0,123", b"=1,7")
    assert uevents.damaged_block(uevents.parse(of_hashes)) == ((253, 3), "hash block 7")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"add@/devices/virtual/block/dm-3\0ACTION=add\0MAJOR=253\0MINOR=3\0",
        DAMAGED.replace(b"0,123", b"0"),
        DAMAGED.replace(b"0,123", b"0,x"),
        DAMAGED.replace(b"MAJOR=253", b"MAJOR=-1"),
        DAMAGED.replace(b"MINOR=3\0", b""),
        DAMAGED.replace(b"MINOR=3", "MINOR=³".encode()),
    ],
)
def test_other_events(data: bytes) -> None:
    assert uevents.damaged_block(uevents.parse(data)) is None


@given(st.binary(max_size=200))
def test_any_event(data: bytes) -> None:
    uevents.damaged_block(uevents.parse(data))
    uevents.damaged_block(uevents.parse(DAMAGED + data))


class Counting(Observer):
    """Counts what it hears of."""

    def __init__(self) -> None:
        self.damages: list[str] = []

    def damaged(self, container: Container) -> None:
        self.damages.append(str(container))


class Netlink:
    """The kernel's events, as a socket gives them."""

    def __init__(self, *received: Any) -> None:
        self.received = list(received)
        self.ours, self.theirs = socket.socketpair()

    def fileno(self) -> int:
        return self.ours.fileno()

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        if not self.received:
            self.ours.setblocking(False)
            self.ours.recv(1)
            raise BlockingIOError
        found = self.received.pop(0)
        if isinstance(found, OSError):
            raise found
        return found if isinstance(found, tuple) else (found, (0, 1))

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def record(name: str, minor: int, *, mounted: bool = True) -> Record:
    package: Any = SimpleNamespace(manifest=MANIFEST)
    made: Any = Record(Container.parse(name), None, package)  # type: ignore[arg-type]
    made.mounted, made.device = mounted, os.makedev(253, minor)
    return made


def watched(monkeypatch: pytest.MonkeyPatch, *received: Any) -> tuple[list[Record], Counting, list[str]]:
    """What the containers a, b (mounted from the third device) and c say after these events."""
    lines: list[str] = []
    monkeypatch.setattr(log, "record", lambda level, target, text: lines.append(f"{level}: {text}"))
    netlink = Netlink(*received)
    monkeypatch.setattr(uevents, "listen", lambda: netlink)
    records = [record("a:0.0.1", 2), record("b:0.0.1", 3), record("c:0.0.1", 3, mounted=False)]
    events, counting = Events(), Counting()
    events.add(counting)

    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)

    async def main() -> None:
        watch = DamageWatch(loop, records, events)  # type: ignore[arg-type]
        while netlink.received:
            netlink.theirs.send(b"x")
            await loop.sleep(0.001)
        watch.close()

    loop.run(main())
    return records, counting, lines


def test_it_is_told_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    (a, b, c), counting, lines = watched(monkeypatch, DAMAGED, DAMAGED.replace(b"123", b"124"), DAMAGED)
    assert (a.problem, c.problem) == (None, None)
    assert str(b.problem).startswith("its image is damaged (data block 123)")
    assert counting.damages == ["b:0.0.1"] * 3
    assert [line for line in lines if line.startswith("error")] == [
        f"error: b:0.0.1 cannot be read completely, {b.problem}"
    ]


def test_events_that_are_lost_or_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    forged = (DAMAGED, (4711, 1))
    lost = OSError(errno.ENOBUFS, "No buffer space available")
    (_, b, _), counting, lines = watched(monkeypatch, forged, lost, b"add@/x\0ACTION=add\0")
    assert (b.problem, counting.damages) == (None, [])
    assert lines == ["debug: Events of the kernel are lost: No buffer space available"]


def test_what_is_left_after_an_overrun_is_taken_without_being_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel adds nothing, and tells nothing, before the queue is empty (netlink(7), ENOBUFS)."""
    monkeypatch.setattr(log, "record", lambda *_: None)
    netlink = Netlink(OSError(errno.ENOBUFS, "No buffer space available"), DAMAGED)
    monkeypatch.setattr(uevents, "listen", lambda: netlink)
    damaged, events = record("a:0.0.1", 3), Events()

    async def main() -> None:
        watch = DamageWatch(loop, [damaged], events)  # type: ignore[arg-type]
        await loop.sleep(0.05)
        watch.close()

    loop = Loop(pytest.fail)
    loop.run(main())
    assert damaged.damage is not None


@pytest.mark.parametrize("minor", [2, 3, 4])
def test_the_device_says_whose_image_it_is(monkeypatch: pytest.MonkeyPatch, minor: int) -> None:
    monkeypatch.setattr(log, "record", lambda *_: None)
    netlink = Netlink(DAMAGED.replace(b"MINOR=3", b"MINOR=%d" % minor))
    monkeypatch.setattr(uevents, "listen", lambda: netlink)
    records, events = [record(f"c{number}:0.0.1", number) for number in (2, 3, 4)], Events()

    async def main() -> None:
        watch = DamageWatch(loop, records, events)  # type: ignore[arg-type]
        await loop.sleep(0.01)
        watch.close()

    loop = Loop(pytest.fail)
    loop.run(main())
    assert [found.container.name for found in records if found.damage is not None] == [f"c{minor}"]


def test_another_error_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to look again and again, nor to look no more."""
    lines: list[str] = []
    monkeypatch.setattr(log, "record", lambda level, target, text: lines.append(text))
    netlink = Netlink(OSError(errno.EIO, "Input/output error"), DAMAGED)
    monkeypatch.setattr(uevents, "listen", lambda: netlink)
    damaged, events = record("a:0.0.1", 3), Events()

    async def main() -> None:
        watch = DamageWatch(loop, [damaged], events)  # type: ignore[arg-type]
        await loop.sleep(0.01)
        assert damaged.damage is None
        netlink.theirs.send(b"x")
        await loop.sleep(0.01)
        watch.close()

    loop = Loop(pytest.fail)
    loop.run(main())
    assert damaged.damage is not None
    assert lines[0] == "Events of the kernel are lost: Input/output error"


# --- what becomes of the container


class Updates:
    """An updater that has nothing older, or lets it take over."""

    def __init__(self, *, older: bool) -> None:
        self.older = older
        self.replaced: list[str] = []

    async def load(self) -> Updates:
        return self

    def replace(self, container: Container, _: str) -> bool:
        self.replaced.append(str(container))
        return self.older


class Supervisor:
    """Remembers what has happened."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def happen(self, _: Record, event: object) -> None:
        self.events.append(event)


def controlled(damaged: Record, *, older: bool, times: int = 2) -> tuple[Updates, Supervisor]:
    updates, supervisor = Updates(older=older), Supervisor()

    async def main() -> None:
        containers: Any = SimpleNamespace(get=lambda _: damaged)
        control = DamageControl(loop, containers, updates, supervisor)  # type: ignore[arg-type]
        for _ in range(times):
            control.damaged(damaged.container)
            await loop.sleep(0.001)

    loop = Loop(pytest.fail)
    loop.run(main())
    return updates, supervisor


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Record:
    """A container that would come back by itself."""
    monkeypatch.setattr(log, "record", lambda *_: None)
    found: Any = record("a:0.0.1", 3)
    found.run = object()
    found.settings = Settings(restart=Restart("on-failure"))
    found.state = found.state._replace(phase=s.READY, generation=1)
    return found  # type: ignore[no-any-return]


def test_without_an_older_version_it_is_given_up(running: Record) -> None:
    updates, supervisor = controlled(running, older=False)
    assert updates.replaced == ["a:0.0.1"]
    assert supervisor.events == [s.Ruined("its image is damaged")]
    assert running.unusable == "its image is damaged"


def test_an_older_version_takes_over(running: Record) -> None:
    updates, supervisor = controlled(running, older=True)
    assert (updates.replaced, supervisor.events, running.unusable) == (["a:0.0.1"], [], None)


def test_what_would_not_come_back_goes_on(running: Record) -> None:
    running.settings = Settings()
    assert controlled(running, older=False)[0].replaced == []


def test_damage_that_was_seen_before_counts_for_the_next_run(running: Record) -> None:
    """While it was down nothing was done about it."""
    run, running.run = running.run, None
    assert controlled(running, older=True)[0].replaced == []
    running.run = run
    assert controlled(running, older=True, times=1)[0].replaced == ["a:0.0.1"]


def test_each_run_is_judged_by_itself(running: Record) -> None:
    """The next run may be from another device that has the same number."""
    updates, supervisor = Updates(older=True), Supervisor()

    async def main() -> None:
        containers: Any = SimpleNamespace(get=lambda _: running)
        control = DamageControl(loop, containers, updates, supervisor)  # type: ignore[arg-type]
        for generation in (1, 1, 2):
            running.state = running.state._replace(generation=generation)
            control.damaged(running.container)
            await loop.sleep(0.001)

    loop = Loop(pytest.fail)
    loop.run(main())
    assert updates.replaced == ["a:0.0.1"] * 2


def test_socket() -> None:
    """The kernel's own: events of devices arrive there, as root or not."""
    try:
        sock = uevents.listen()
    except OSError as error:
        pytest.skip(f"no events of devices: {error.strerror}")
    with sock:
        assert list(uevents.receive(sock)) is not None
        assert SimpleNamespace(groups=sock.getsockname()[1]).groups == 1
