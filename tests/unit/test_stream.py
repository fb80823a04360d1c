# SPDX-License-Identifier: Apache-2.0
"""A stream socket of the event loop with a peer that is slow, sends descriptors, or goes away."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from northstar.errors import ProtocolError
from northstar.runtime.eventloop import transport
from northstar.runtime.eventloop.loop import Loop, Timeout
from northstar.runtime.eventloop.transport import Transport

Scenario = Callable[[Transport, socket.socket, Loop], Coroutine[Any, Any, None]]


@pytest.fixture(params=[0, 2], ids=["no descriptors", "two descriptors"])
def wanted(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def run(scenario: Scenario, wanted: int = 0) -> None:
    """The scenario gets a transport, the socket of its peer, and the loop. No descriptor is left."""
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)

    async def main() -> None:
        stream = Transport(loop, ours, wanted)
        await scenario(stream, theirs, loop)
        await stream.close()

    with theirs:
        loop.run(main())
        assert ours.fileno() == -1
    assert len(os.listdir("/proc/self/fd")) == before
    assert failures == []


def test_reading(wanted: int) -> None:
    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        peer.send(b"abcde")
        assert await stream.read(2) == b"ab"
        assert await stream.read(3) == b"cde"
        loop.call_later(0.01, lambda: peer.send(b"late"))
        assert await stream.read(100) == b"late"
        peer.shutdown(socket.SHUT_WR)
        assert await stream.read(100) == b""

    run(scenario, wanted)


def test_a_limit_of_time(wanted: int) -> None:
    """What comes within it is read, and what comes later is not lost."""

    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        loop.call_later(0.01, lambda: peer.send(b"x"))
        assert await stream.read(100, 10.0) == b"x"
        with pytest.raises(Timeout):
            await stream.read(100, 0.01)
        peer.send(b"y")
        assert await stream.read(100, 0.01) == b"y"

    run(scenario, wanted)


def test_looking_takes_nothing(wanted: int) -> None:
    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        assert stream.look() is False
        stirred = stream.stirred()
        peer.send(b"x")
        await loop.wait_for(stirred, 10)
        assert stream.look() is True
        assert stream.look() is True
        assert await stream.read(100) == b"x"
        peer.shutdown(socket.SHUT_WR)
        assert stream.look() is None

    run(scenario, wanted)


def test_a_slow_reader(wanted: int) -> None:
    """What it does not take waits; nothing is lost, and the order is kept."""
    data = os.urandom(3_000_000)

    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        assert not stream.pending
        stream.write(b"first")
        assert not stream.pending
        stream.write(data)
        assert stream.pending
        stream.write(b"last")
        flushed = loop.spawn(stream.flush())
        found = b""
        peer.setblocking(False)
        while len(found) < len(data) + 9:
            with contextlib.suppress(BlockingIOError):
                found += peer.recv(1 << 20)
            await loop.turn()
        await loop.wait_for(flushed, 10)
        assert found == b"first" + data + b"last"
        assert not stream.pending
        await loop.wait_for(loop.spawn(stream.flush()), 10)

    run(scenario, wanted)


def test_a_peer_that_is_gone() -> None:
    """Nothing waits for it any more."""

    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        stream.write(bytes(3_000_000))
        flushed = loop.spawn(stream.flush())
        await loop.turn()
        peer.close()
        with pytest.raises(BrokenPipeError):
            await loop.wait_for(flushed, 10)
        assert not stream.pending
        with pytest.raises(BrokenPipeError):
            stream.write(b"x")
        assert not stream.pending

    run(scenario)


def test_what_is_pending_at_the_end_is_dropped() -> None:
    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        stream.write(bytes(3_000_000))
        await stream.close()
        assert not stream.pending

    run(scenario)


def send(peer: socket.socket, number: int) -> None:
    """As many descriptors, with a byte."""
    pipe = os.pipe()
    socket.send_fds(peer, [b"x"], [pipe[0]] * number)
    os.close(pipe[0])
    os.close(pipe[1])


@pytest.mark.parametrize(("first", "second"), [(1, 0), (2, 0), (1, 1)])
def test_descriptors_that_are_wanted(first: int, second: int) -> None:
    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        for number in filter(None, (first, second)):
            send(peer, number)
            assert await stream.read(100) == b"x"
        taken = stream.take_descriptors()
        assert len(taken) == first + second
        assert stream.take_descriptors() == []
        for descriptor in taken:
            os.close(descriptor)
        send(peer, 2)
        assert await stream.read(100) == b"x"

    run(scenario, 2)


@pytest.mark.parametrize(("first", "second"), [(3, 0), (2, 1), (1, 2)])
def test_too_many_descriptors(first: int, second: int) -> None:
    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        if second:
            send(peer, first)
            assert await stream.read(100) == b"x"
        send(peer, second or first)
        with pytest.raises(ProtocolError, match="too many descriptors"):
            await stream.read(100)

    run(scenario, 2)


@pytest.mark.parametrize("refused", [False, True])
def test_descriptors_that_nobody_wants(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """They are dropped without being an error, where the kernel does not refuse them."""
    monkeypatch.setattr(transport.sockets, "refuse_descriptors", lambda sock: refused)

    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        send(peer, 3)
        assert await stream.read(100) == b"x"
        assert stream.take_descriptors() == []

    run(scenario)


@pytest.mark.parametrize(("refused", "wanted", "threads"), [(True, 0, 0), (False, 0, 1), (True, 1, 1)])
def test_what_may_take_long_to_close_is_closed_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, refused: bool, wanted: int, threads: int
) -> None:
    """That is, whatever may have descriptors waiting in it."""
    closed: list[object] = []
    genuine = transport.close_apart

    async def count(*arguments: Any) -> None:
        closed.append(arguments)
        await genuine(*arguments)

    monkeypatch.setattr(transport.sockets, "refuse_descriptors", lambda sock: refused)
    monkeypatch.setattr(transport, "close_apart", count)

    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        peer.send(b"x")
        assert await stream.read(1) == b"x"

    run(scenario, wanted)
    assert len(closed) == threads


def test_no_thread_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stream: Transport, peer: socket.socket, loop: Loop) -> None:
        async def refuse(*_: object) -> None:
            raise OSError("no thread can be started")

        send(peer, 1)
        assert await stream.read(1) == b"x"
        monkeypatch.setattr(loop, "in_thread", refuse)

    run(scenario, 1)


def test_tcp_peers_that_vanish() -> None:
    """The kernel asks after a minute without a sign, every ten seconds, and gives up half a minute later."""
    loop = Loop(pytest.fail)
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        Transport(loop, accepted)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        found = [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options]
        assert found == [60, 10, 3, 90_000]
        assert not accepted.getblocking()
