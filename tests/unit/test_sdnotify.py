# SPDX-License-Identifier: Apache-2.0
"""What the service manager is told, also when there is no descriptor left."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.monitoring import servicemanager as sdnotify
from northstar.runtime.monitoring.servicemanager import ServiceManager, ready_descriptor


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's end; it wants a sign of life each 40 ms."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "40000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield sock


@pytest.mark.parametrize("limited", [False, True])
def test_signs_of_life(manager: socket.socket, limited: bool) -> None:
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    service = ServiceManager(loop)
    assert "NOTIFY_SOCKET" not in os.environ

    async def main() -> list[bytes]:
        service.ready()
        said = [manager.recv(100), manager.recv(100)]
        await loop.sleep(0.07)
        manager.setblocking(False)
        while True:
            try:
                said.append(manager.recv(100))
            except BlockingIOError:
                break
        service.stopping()
        return [*said, manager.recv(100)]

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limited:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        said = loop.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert failures == []
    assert said[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert said[-1] == b"STOPPING=1"


def test_the_manager_is_gone(manager: socket.socket, tmp_path: Path) -> None:
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    service = ServiceManager(loop)
    (tmp_path / "notify").unlink()

    async def main() -> None:
        service.ready()
        await loop.sleep(0.05)

    loop.run(main())
    assert failures == []


def fill(sock: socket.socket) -> None:
    """Let no more datagrams through."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        while True:
            try:
                other.sendto(b"noise", sock.getsockname())
            except BlockingIOError:
                return


@pytest.mark.parametrize("state", ["absent", "busy"])
def test_a_manager_that_restarts_when_the_daemon_is_ready(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It hears of it as soon as it can, once."""
    monkeypatch.setattr(sdnotify, "RETRY", 0.01)
    loop = Loop(lambda failure: None)
    service = ServiceManager(loop)
    path = tmp_path / "notify"
    if state == "absent":
        path.rename(tmp_path / "elsewhere")
    else:
        fill(manager)

    async def main() -> list[bytes]:
        service.ready()
        await loop.sleep(0.03)
        if state == "absent":
            (tmp_path / "elsewhere").rename(path)
        manager.setblocking(False)
        said = []
        for _ in range(20):
            await loop.sleep(0.005)
            with suppress(BlockingIOError):
                while True:
                    said.append(manager.recv(100))
        return said

    assert loop.run(main()).count(b"READY=1") == 1


def test_who_stops_is_not_ready_any_more(manager: socket.socket, tmp_path: Path) -> None:
    loop = Loop(lambda failure: None)
    service = ServiceManager(loop)
    (tmp_path / "notify").rename(tmp_path / "elsewhere")

    async def main() -> set[bytes]:
        service.ready()
        (tmp_path / "elsewhere").rename(tmp_path / "notify")
        service.stopping()
        await loop.sleep(2 * sdnotify.RETRY)
        return all_of(manager)

    assert loop.run(main()) == {b"STOPPING=1", b"WATCHDOG=1"}


def all_of(manager: socket.socket) -> set[bytes]:
    manager.setblocking(False)
    said = set()
    with suppress(BlockingIOError):
        while True:
            said.add(manager.recv(100))
    return said


@pytest.mark.parametrize(
    ("microseconds", "pid", "watched"),
    [
        ("20000", None, True),
        ("20000", "", True),
        ("20000", "0", False),
        ("20000", "99999999", False),
        (None, None, False),
        ("", None, False),
        ("0", None, False),
        ("-1", None, False),
        ("²", None, False),
        ("x", None, False),
    ],
)
def test_who_wants_signs_of_life(
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str | None,
    pid: str | None,
    watched: bool,
) -> None:
    """Others may be meant, as variables are inherited."""
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    loop = Loop(pytest.fail)
    service = ServiceManager(loop)
    service.ready()
    loop.run(loop.sleep(0.03))
    assert all_of(manager) == ({b"READY=1", b"WATCHDOG=1"} if watched else {b"READY=1"})


def test_when_it_is_told_again(manager: socket.socket, tmp_path: Path) -> None:
    """Signs of life come twice in the time that is allowed. Who is not there is told soon, not at once."""
    planned: list[float] = []
    loop: Any = SimpleNamespace(call_later=lambda delay, callback: planned.append(delay))
    service = ServiceManager(loop)
    service.ready()
    assert planned == [0.02]
    (tmp_path / "notify").unlink()
    service.ready()
    assert planned == [0.02, 0.1, 0.02]


def test_a_name_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the abstract namespace (unix(7))."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + f"northstar-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@northstar-test-{os.getpid()}")
        ServiceManager(Loop(pytest.fail)).ready()
        assert all_of(sock) == {b"READY=1"}


def test_descriptor_that_is_told_when_the_daemon_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """As s6 and dinit have it, and our init script: a line, and then the end."""
    reading, writing = os.pipe()
    monkeypatch.setenv("NORTHSTAR_READY_FD", str(writing))
    loop = Loop(lambda failure: None)
    service = ServiceManager(loop)
    assert "NORTHSTAR_READY_FD" not in os.environ
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    service.ready()
    assert os.read(reading, 100) == b"ready\n"
    assert os.read(reading, 100) == b""
    service.ready()
    os.close(reading)
    loop.run(loop.sleep(0))


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "2", "99999", "1" * 30, "²"])
def test_descriptor_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORTHSTAR_READY_FD", text)
    assert ready_descriptor() is None
