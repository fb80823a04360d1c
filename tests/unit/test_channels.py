# SPDX-License-Identifier: Apache-2.0
"""Descriptors that the event loop watches: who is woken by what, and when."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from northstar.runtime.eventloop.loop import Channel, Loop, Timeout


@pytest.fixture
def loop() -> Loop:
    return Loop(pytest.fail)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize(
    ("events", "reader", "writer"),
    [
        (0, False, False),
        (select.EPOLLIN, True, False),
        (select.EPOLLOUT, False, True),
        (select.EPOLLIN | select.EPOLLOUT, True, True),
        (select.EPOLLERR, True, True),
        (select.EPOLLHUP, True, True),
        (select.EPOLLIN | select.EPOLLHUP, True, True),
        (select.EPOLLOUT | select.EPOLLERR, True, True),
        (select.EPOLLPRI, False, False),
        (select.EPOLLRDHUP, False, False),
        (select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLIN, True, False),
    ],
)
def test_who_is_woken(events: int, reader: bool, writer: bool) -> None:
    """Everybody by a failure."""
    channel = Channel(Mock(), 0)
    readable, writable = channel.readable(), channel.writable()
    channel.dispatch(events)
    assert (readable.done, writable.done) == (reader, writer)


def test_nobody_waits() -> None:
    channel = Channel(Mock(), 0)
    channel.dispatch(select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP)
    assert not channel.readable().done
    assert not channel.writable().done


def test_the_first_wait_for_writing_changes_what_is_watched(loop: Loop, pair: Any) -> None:
    """Once: who reads only does not hear that it could write."""
    ours, _ = pair
    seen: list[Channel] = []
    channel = loop.register(ours.fileno())
    rewatch = loop.rewatch
    loop.rewatch = lambda changed: (seen.append(changed), rewatch(changed))[1]  # type: ignore[method-assign]

    async def main() -> None:
        for _ in range(3):
            await loop.wait_for(channel.writable(), 5) if not seen else channel.writable()

    assert not channel.events & select.EPOLLOUT
    loop.run(main())
    assert seen == [channel]
    channel.close()


def test_a_peer_that_reads_makes_room(loop: Loop, pair: Any) -> None:
    ours, theirs = pair
    channel = loop.register(ours.fileno())

    def fill() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            while theirs.recv(1 << 20):
                pass

    async def main() -> None:
        for _ in range(2):
            fill()
            with pytest.raises(Timeout):
                await loop.wait_for(channel.writable(), 0.02)
            loop.call_later(0.01, drain)
            await loop.wait_for(channel.writable(), 5)

    loop.run(main())
    channel.close()


def test_what_comes_is_told_once(loop: Loop, pair: Any) -> None:
    """Edge triggered: who does not read what there is does not hear of it again."""
    ours, theirs = pair
    channel = loop.register(ours.fileno())

    async def main() -> None:
        with pytest.raises(Timeout):
            await loop.wait_for(channel.readable(), 0.01)
        loop.call_later(0.01, lambda: theirs.send(b"x"))
        await loop.wait_for(channel.readable(), 5)
        with pytest.raises(Timeout):
            await loop.wait_for(channel.readable(), 0.01)
        loop.call_later(0.01, theirs.close)
        await loop.wait_for(channel.readable(), 5)

    loop.run(main())
    channel.close()


def test_who_is_called(loop: Loop, pair: Any) -> None:
    ours, theirs = pair
    calls: list[bytes] = []
    channel = loop.listen(ours.fileno(), lambda: calls.append(ours.recv(10)))

    async def main() -> None:
        for data in (b"x", b"y"):
            theirs.send(data)
            await loop.sleep(0.01)

    loop.run(main())
    assert calls == [b"x", b"y"]
    channel.close()


def test_the_end_of_a_channel(loop: Loop, pair: Any) -> None:
    """Whoever waits is woken; the descriptor stays open, and may be watched again."""
    ours, theirs = pair
    channel = loop.register(ours.fileno())
    readable, writable = channel.readable(), channel.writable()
    channel.close()
    assert readable.done and writable.done
    channel.close()
    loop.rewatch(channel)
    again = loop.register(ours.fileno())
    channel.close()

    async def main() -> None:
        loop.call_later(0.01, lambda: theirs.send(b"x"))
        await loop.wait_for(again.readable(), 5)

    loop.run(main())
    again.close()
    assert ours.recv(10) == b"x"
