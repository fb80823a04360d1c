# SPDX-License-Identifier: Apache-2.0
"""Clients that send descriptors whose closing takes long, too much, or too slowly; many clients at once."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from consoleclient import ACK, CONNECT, EXTERN, IDENT, connect, everything, exactly
from consoleserver import PEER, TIMEOUT, Server, serve
from test_listener import attempt

from northstar.config import ConsoleConfig, ConsoleOptions
from northstar.errors import NorthstarError, StartContainerFailed
from northstar.kernel import sockets
from northstar.manifest import parse
from northstar.names import Container
from northstar.protocol.permissions import FULL
from northstar.protocol.url import ConsoleUrl
from northstar.runtime.console import connection, throttle
from northstar.runtime.console import server as console
from northstar.runtime.console.connection import FIRST_LINE
from northstar.runtime.console.listener import Listener
from northstar.runtime.eventloop import transport
from northstar.runtime.eventloop.loop import Loop, Task
from northstar.runtime.monitoring.exporter import SocketExporter

NOTHING = frozenset[str]()
EVERYTHING = FULL | {"exec"}
LINGER = 1
"""Seconds that it takes to close what `lingering` gives."""
PROMPT = 0.5
A = Container.parse("a:0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serve()


@pytest.fixture(params=["refused", "taken"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the kernel can refuse descriptors: Linux 6.16, or an older one."""
    if request.param == "taken":
        monkeypatch.setattr(sockets, "refuse_descriptors", lambda sock: sock.family != socket.AF_UNIX)
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            if not sockets.refuse_descriptors(sock):
                pytest.skip("this kernel cannot refuse descriptors")
    return str(request.param)


@contextmanager
def lingering(number: int = 1) -> Iterator[list[int]]:
    """Descriptors of TCP connections whose last close waits for `LINGER` seconds: nobody reads from them."""
    descriptors, ends = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(number):
            sock = socket.create_connection(listener.getsockname())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
            sock.setblocking(False)
            ends.append(listener.accept()[0])
            with pytest.raises(BlockingIOError):
                while True:
                    sock.send(bytes(1 << 20))
            sock.setblocking(True)
            descriptors.append(sock.detach())
    yield descriptors
    for end in ends:
        end.close()


def pass_on(sock: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """Send them; from now on they belong to nobody but the receiver. The kernel may refuse."""
    try:
        socket.send_fds(sock, [data], descriptors)
    except (PermissionError, BrokenPipeError):
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(data)
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
            with socket.socket(fileno=descriptor) as own:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return
    for descriptor in descriptors:
        os.close(descriptor)


@contextmanager
def others_are_served(server: Server) -> Iterator[None]:
    """A client that asks all the time gets each answer promptly, while something lingers."""
    with server.connection() as bystander:
        connect(bystander)
        yield
        end = time.monotonic() + PROMPT + 0.1
        while time.monotonic() < end:
            began = time.monotonic()
            bystander.sendall(IDENT)
            exactly(bystander, EXTERN)
            assert time.monotonic() - began < PROMPT
            time.sleep(0.02)


# --- descriptors


@pytest.mark.parametrize(
    ("granted", "hello", "number"),
    [
        (NOTHING, b"", 1),
        (NOTHING, b'{"request":"ident"}\n', 1),
        (FULL, CONNECT, 1),
        (FULL, b"nonsense\n", 1),
        (EVERYTHING, b"", 1),
        (EVERYTHING, CONNECT, 4),
        (EVERYTHING, CONNECT + IDENT, 1),
        (EVERYTHING, b"nonsense\n", 1),
    ],
)
def test_closing_takes_long(
    server: Server, kernel: str, granted: frozenset[str], hello: bytes, number: int
) -> None:
    """Whatever the sender may, and whether it is read at all before the connection ends."""
    with server.connection(granted=granted) as sock, lingering(number) as descriptors:
        sock.sendall(hello)
        pass_on(sock, b"x", descriptors)
        with others_are_served(server):
            sock.close()


@pytest.mark.parametrize("granted", [FULL, EVERYTHING], ids=["full", "exec"])
def test_no_descriptor_left(server: Server, kernel: str, granted: frozenset[str]) -> None:
    """What the kernel has no room for it closes itself, wherever the message is received."""
    with server.connection(granted=granted) as sock, lingering(3) as descriptors:
        connect(sock)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with others_are_served(server):
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            free = set(range(highest)) - {int(name) for name in os.listdir("/proc/self/fd")}
            filled = [os.dup(0) for _ in free]
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
            try:
                pass_on_without_room(sock, descriptors)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                for descriptor in filled:
                    os.close(descriptor)


def pass_on_without_room(sock: socket.socket, descriptors: list[int]) -> None:
    """In a process of its own, as this one must not get room back by closing them."""
    pid = os.fork()
    if pid == 0:
        try:
            socket.send_fds(sock, [b"x"], descriptors)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.2)
    for descriptor in descriptors:
        with socket.socket(fileno=descriptor) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_descriptors_of_a_container(server: Server, kernel: str) -> None:
    manifest = parse(
        b'{"name":"a","version":"0.0.1","init":"/a","uid":1000,"gid":1000,"console":{"permissions":[]}}'
    )
    with lingering() as descriptors:
        served, theirs = server.call(server.console.connect_container, manifest)
        with theirs:
            theirs.sendall(CONNECT)
            pass_on(theirs, b"x", descriptors)
            with others_are_served(server):
                theirs.close()
    wait_until(lambda: server.call(lambda: served.task.done))


def test_descriptors_during_a_command(server: Server, kernel: str) -> None:
    """A client that may not send anything sends descriptors."""
    request = {"container": "endless:0.0.1", "command": ["x"], "environment": {}, "terminal": False}
    with server.connection(granted=EVERYTHING) as sock, lingering() as descriptors:
        connect(sock)
        sock.sendall(str({"request": {"exec": request}}).replace("'", '"').replace("False", "false").encode())
        sock.sendall(b"\n")
        exactly(sock, b'{"response":{"exec":{"ok":{"container":"endless:0.0.1"}}}}\n')
        with others_are_served(server):
            pass_on(sock, b"x", descriptors)


def test_descriptors_within_a_package(server: Server, kernel: str) -> None:
    with server.connection() as sock, lingering() as descriptors:
        connect(sock)
        sock.sendall(b'{"request":{"install":{"repository":"mem","size":9}}}\na pack')
        with others_are_served(server):
            pass_on(sock, b"age", descriptors)
        exactly(sock, b'{"response":{"install":{"ok":{"container":"installed:0.0.1"}}}}\n')


@pytest.mark.parametrize("number", [3, 4])
def test_descriptors_that_are_wanted(server: Server, kernel: str, number: int) -> None:
    """With the permission they arrive, but not more than a command needs."""
    ends = [os.pipe() for _ in range(number)]
    with server.connection(granted=EVERYTHING) as sock:
        connect(sock)
        server.logged()
        socket.send_fds(sock, [IDENT], [writer for _, writer in ends])
        for _, writer in ends:
            os.close(writer)
        if number == 3:
            exactly(sock, EXTERN)
        else:
            assert everything(sock) == b""
            assert (
                f"warn: {PEER}: Connection error: too many descriptors. Disconnecting..." in server.logged()
            )
    for reader, _ in ends:
        # The last writer is gone.
        assert os.read(reader, 1) == b""
        os.close(reader)


def test_descriptors_before_a_connection_is_accepted(server: Server, kernel: str, tmp_path: Path) -> None:
    """Sent and gone, before anybody could look."""
    path = tmp_path / "console"
    made = listen(server, path, frozenset())
    with lingering() as descriptors, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        pass_on(sock, b"x", descriptors)
        with others_are_served(server):
            sock.close()
            server.call(made.close)
    wait_until(lambda: server.console.count_connections()["client"] == 0)


def test_descriptors_for_the_metrics(server: Server, kernel: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    exporter: SocketExporter = server.call(SocketExporter, server.loop, str(path), 0o600, lambda: "text")
    with lingering(2) as descriptors:
        for descriptor in descriptors:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                pass_on(sock, b"x", [descriptor])
                with others_are_served(server):
                    pass
    stopped: Task = server.call(server.loop.spawn, exporter.stop())
    # What is left in the middle of closing would do it again when it is collected, somewhere else.
    wait_until(lambda: stopped.done and not exporter._clients)


# --- how many


def listen(server: Server, path: Path, permissions: frozenset[str] = FULL, **settings: Any) -> Listener:
    config = ConsoleConfig(ConsoleUrl.parse(f"unix://{path}"), permissions, ConsoleOptions(), **settings)
    made = server.call(attempt, server, config)
    assert not isinstance(made, NorthstarError)
    return made


@contextmanager
def many(path: Path, number: int, hello: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that are idle, after a handshake or before."""
    clients = []
    try:
        for _ in range(number):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].settimeout(TIMEOUT)
            clients[-1].connect(str(path))
            if hello:
                clients[-1].sendall(hello)
                exactly(clients[-1], ACK)
        yield clients
    finally:
        for client in clients:
            client.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_idle_connections_give_way(server: Server, kernel: str, tmp_path: Path) -> None:
    """However many say nothing, there is room for one who does; the oldest ones go."""
    made = listen(server, tmp_path / "console", max_connections=10)
    with many(tmp_path / "console", 100) as idle:
        with many(tmp_path / "console", 3, CONNECT) as clients:
            for client in clients:
                client.sendall(IDENT)
                exactly(client, EXTERN)
            assert server.console.count_connections()["client"] <= 10 + 16
        assert everything(idle[0]) == b""
    server.call(made.close)
    wait_until(lambda: server.console.count_connections()["client"] == 0)


def test_too_many_are_refused(server: Server, kernel: str, tmp_path: Path) -> None:
    """Until one of them ends. The others do not notice, and the log does not grow with their number."""
    made = listen(server, tmp_path / "console", max_connections=5)
    server.logged()
    with many(tmp_path / "console", 5, CONNECT) as clients:
        with many(tmp_path / "console", 50) as refused:
            assert [everything(sock) for sock in refused] == [b""] * 50
        warnings = [line for line in server.logged() if line.startswith("warn")]
        assert warnings == [f"warn: Too many connections on unix://{tmp_path}/console, refusing more"]
        clients[0].sendall(IDENT)
        exactly(clients[0], EXTERN)
        clients.pop().close()
        wait_until(lambda: server.console.count_connections()["client"] == 4)
        with many(tmp_path / "console", 1, CONNECT):
            pass
    server.call(made.close)


def test_all_listeners_together(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There have to be descriptors left for everything else."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (console.RESERVED_DESCRIPTORS + 40, limits[1]))
    rebuilt = server.call(console.ConsoleServer, server.loop, server.notifications, None, ConsoleOptions(), 4)
    monkeypatch.setattr(server, "console", rebuilt)
    made = [listen(server, tmp_path / name) for name in ("one", "two")]
    server.logged()
    with many(tmp_path / "one", 6, CONNECT), many(tmp_path / "two", 4, CONNECT):
        for name in ("one", "two"):
            with many(tmp_path / name, 1) as refused:
                assert everything(refused[0]) == b""
    # Who is silent is closed as well, but not with this reason.
    assert [line for line in server.logged() if line.startswith("warn")] == [
        f"warn: Too many connections on unix://{tmp_path}/{name}, refusing more" for name in ("one", "two")
    ]
    for listener in made:
        server.call(listener.close)
    wait_until(lambda: rebuilt.count_connections()["client"] == 0)


def test_descriptors_that_are_missing_for_a_while(server: Server, tmp_path: Path) -> None:
    """Then clients wait."""
    made = listen(server, tmp_path / "console")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        server.logged()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            sock.setblocking(True)
            sock.connect(str(tmp_path / "console"))
            sock.sendall(CONNECT)
            wait_until(lambda: "warn: Error listening: Too many open files" in server.logged())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        exactly(sock, ACK)
    server.call(made.close)


# --- how much


def test_first_line(server: Server) -> None:
    """Nobody needs a long connect message; requests may be longer afterwards."""
    with server.connection() as sock:
        sock.sendall(CONNECT[:-1].ljust(FIRST_LINE) + b"\n")
        exactly(sock, ACK)
        sock.sendall(IDENT[:-1].ljust(10 * FIRST_LINE) + b"\n")
        exactly(sock, EXTERN)
    with server.connection() as sock:
        server.logged()
        sock.sendall(CONNECT[:-1].ljust(FIRST_LINE + 1))
        assert everything(sock) == b""
        assert f"warn: {PEER}: Connection error: a line exceeds the limit of 4096 bytes" in server.logged()


def test_memory_of_long_lines(server: Server, tmp_path: Path) -> None:
    """So many clients that send so much of a line as they may do not make the daemon big."""
    made = listen(server, tmp_path / "console", frozenset())
    path, size = tmp_path / "console", (1 << 20) - 1
    before = resident()
    refused = 0
    with many(path, 100, CONNECT) as clients:
        for client in clients:
            try:
                client.sendall(b" " * size)
            except (BrokenPipeError, ConnectionResetError):
                refused += 1
        wait_until(lambda: server.call(lambda: True))
        assert resident() - before < 8 * throttle.LONG_LINES
    assert refused > 50
    server.call(made.close)
    assert f"warn: {PEER}: Connection error: too many long lines at the same time. Disconnecting..." in (
        server.logged()
    )
    with server.connection() as sock:
        connect(sock)
        sock.sendall(IDENT[:-1].ljust(size) + b"\n")
        exactly(sock, EXTERN)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_long_line_that_never_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONG_LINE_LIMIT", 0.05)
    with server.connection() as sock:
        connect(sock)
        server.logged()
        sock.sendall(b" " * 100_000)
        assert everything(sock) == b""
    assert f"info: {PEER}: A long line was not completed in time" in server.logged()


def test_long_lines_one_after_another(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used for one is there again for the next one."""
    monkeypatch.setattr(connection, "LONG_LINE_LIMIT", 60.0)
    line = IDENT[:-1].ljust(900_000) + b"\n"
    with server.connection() as sock:
        connect(sock)
        for _ in range(3 * throttle.LONG_LINES // len(line)):
            sock.sendall(line)
            exactly(sock, EXTERN)


# --- the rest


def test_tcp_clients_that_vanish(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET) as theirs:
        theirs.connect(listener.getsockname())
        accepted = listener.accept()[0]
        loop = Loop(lambda failure: None)
        transport.Transport(loop, accepted)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count = (
            accepted.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * count <= 90
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 90_000
        accepted.close()


def test_a_container_named_like_the_clients_of_the_host(server: Server) -> None:
    """It could make and verify their tokens."""
    manifest = parse(
        b'{"name":"extern","version":"0.0.0","init":"/a","uid":1000,"gid":1000,'
        b'"console":{"permissions":["token_create"]}}'
    )

    def try_it() -> Exception | None:
        try:
            server.console.connect_container(manifest)
        except StartContainerFailed as error:
            return error
        return None

    assert "cannot have a console" in str(server.call(try_it))
