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
from northstar.runtime.containers.events import Events, Observer
from northstar.runtime.containers.records import Record
from northstar.runtime.eventloop.loop import Loop

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


def test_socket() -> None:
    """The kernel's own: events of devices arrive there, as root or not."""
    try:
        sock = uevents.listen()
    except OSError as error:
        pytest.skip(f"no events of devices: {error.strerror}")
    with sock:
        assert list(uevents.receive(sock)) is not None
        assert SimpleNamespace(groups=sock.getsockname()[1]).groups == 1
