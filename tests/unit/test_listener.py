# SPDX-License-Identifier: Apache-2.0
"""Listening sockets of the console: addresses, what stands in the way, and what the log says."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from consoleserver import TIMEOUT, Server

from northstar.config import ConsoleConfig, ConsoleOptions
from northstar.errors import NorthstarError
from northstar.protocol.url import ConsoleUrl
from northstar.runtime.console.listener import Listener

CONNECT = b'{"connect":{"version":"0.9.2","subscribe_notifications":false}}\n'
ACK = b'{"connect_ack":null}\n'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Server(monkeypatch)
        yield made
        made.stop()
        assert made.failures == []


@contextmanager
def listening(server: Server, url: str, **settings: Any) -> Iterator[None]:
    """A listener; its log lines are the first ones."""
    server.logged()
    permissions = frozenset(("ident", "list"))
    config = ConsoleConfig(ConsoleUrl.parse(url), permissions, ConsoleOptions(), **settings)
    made = server.call(attempt, server, config)
    if isinstance(made, Exception):
        raise made
    try:
        yield
    finally:
        server.call(made.close)


def attempt(server: Server, config: ConsoleConfig) -> Listener | Exception:
    try:
        return Listener(server.loop, server.console, config)
    except NorthstarError as error:
        return error


def logged(server: Server) -> list[str]:
    """Log lines since the last look, without the ends of connections, which come when they like."""
    return [line for line in server.logged() if not line.endswith("Connection closed")]


def handshake(sock: socket.socket) -> None:
    sock.settimeout(TIMEOUT)
    sock.sendall(CONNECT)
    received = b""
    while len(received) < len(ACK):
        received += sock.recv(100)
    assert received == ACK


def test_unix(server: Server, tmp_path: Path) -> None:
    """ESR-01-008: the socket is for its owner. The file stays, as clients' tests expect it."""
    path = tmp_path / "console"
    with listening(server, f"unix://{path}"), socket.socket(socket.AF_UNIX) as sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert logged(server) == [
            f'debug: Starting console on unix://{path} with permissions "ident, list"',
            f"debug: Started console on {path}",
        ]
        sock.connect(str(path))
        handshake(sock)
        assert logged(server) == [
            "debug: Client Remote(unix://unnamed) connected with permissions ident, list"
        ]
    assert "debug: Closed listener" in server.logged()
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_unix_client_with_a_name(server: Server, tmp_path: Path) -> None:
    path, name = tmp_path / "console", tmp_path / "client"
    with listening(server, f"unix://{path}"), socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(name))
        sock.connect(str(path))
        handshake(sock)
        assert (
            f"debug: Client Remote(unix://{name}) connected with permissions ident, list" in server.logged()
        )


@pytest.mark.parametrize(
    ("url", "host", "shown"),
    [
        ("tcp://localhost:{}", None, None),
        ("tcp://127.0.0.1:{}", "127.0.0.1", "127.0.0.1"),
        ("tcp://[::1]:{}", "::1", "[::1]"),
    ],
)
def test_tcp(server: Server, url: str, host: str | None, shown: str | None) -> None:
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((host or "localhost", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6")
    with listening(server, url.format(port)), socket.create_connection((host or "localhost", port)) as sock:
        handshake(sock)
        _, started, connected = logged(server)
        ours = sock.getsockname()[1]
        if shown is not None:
            assert started == f"debug: Started console on {shown}:{port}"
            peer = f"Remote(tcp://{shown}:{ours})"
            assert connected == f"debug: Client {peer} connected with permissions ident, list"


def resolve(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> int:
    """The name `many` stands for these addresses; a port that is free."""
    genuine = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        names = hosts if host == "many" else (host,)
        return [entry for name in names for entry in genuine(name, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1"), ("::", "0.0.0.0")])
def test_all_addresses_of_a_name(
    server: Server, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, str]
) -> None:
    port = resolve(monkeypatch, *hosts, hosts[0])
    if not socket.has_ipv6 and ":" in hosts[0]:
        pytest.skip("no IPv6")
    with listening(server, f"tcp://many:{port}", insecure=True):
        started = [line for line in logged(server) if "Started" in line]
        assert len(started) == 2
        for host in hosts:
            with socket.create_connection((host, port)) as sock:
                handshake(sock)
    for host in hosts:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))


def test_addresses_of_a_name_that_are_not_here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is left out if another is there, whatever their order."""
    port = resolve(monkeypatch, "198.51.100.1", "127.0.0.1", "198.51.100.2")
    with listening(server, f"tcp://many:{port}"), socket.create_connection(("127.0.0.1", port)) as sock:
        handshake(sock)
        warnings = [line for line in logged(server) if line.startswith("warn")]
        assert warnings == [
            f"warn: Console tcp://many:{port} is not reachable on 198.51.100.{number}:{port}: "
            "Cannot assign requested address"
            for number in (1, 2)
        ]


def test_address_of_a_name_that_is_taken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is none at all: who connects there would talk to somebody else."""
    port = resolve(monkeypatch, "127.0.0.2", "127.0.0.1")
    with socket.create_server(("127.0.0.1", port)):
        with (
            pytest.raises(NorthstarError, match="Address already in use"),
            listening(server, f"tcp://many:{port}"),
        ):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_unspecified_address_is_of_both_families(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = resolve(monkeypatch)
    with listening(server, f"tcp://[::]:{port}", insecure=True):
        for host in ("::1", "127.0.0.1"):
            with socket.create_connection((host, port)) as sock:
                handshake(sock)


def served(host: str, port: int) -> socket.socket | None:
    """A connection that is established, None if it is refused."""
    sock = socket.create_connection((host, port), TIMEOUT)
    with suppress(ConnectionError):
        sock.sendall(CONNECT)
        if sock.recv(100) == ACK:
            return sock
    sock.close()
    return None


def test_limit_of_connections_is_of_all_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while each of them waits for room; it ends when there is some."""
    hosts = ("127.0.0.1", "127.0.0.2")
    port = resolve(monkeypatch, *hosts)
    with listening(server, f"tcp://many:{port}", max_connections=1):
        for host in hosts * 2:
            # The one before is about to end.
            deadline = time.monotonic() + TIMEOUT
            while (first := served(host, port)) is None:
                assert time.monotonic() < deadline
            with first:
                assert not any(served(other, port) for other in hosts * 20)


def test_stale_socket_is_replaced(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "console"
    for _ in range(2):
        with listening(server, f"unix://{path}"), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            handshake(sock)


def test_path_is_not_decoded(server: Server, tmp_path: Path) -> None:
    with listening(server, f"unix://{tmp_path}/a%20b", mode=0o660):
        assert stat.S_IMODE((tmp_path / "a%20b").stat().st_mode) == 0o660


def make_link(path: Path) -> None:
    path.symlink_to("/nonexistent")


def make_listener(path: Path) -> socket.socket:
    """Of another process, as far as the runtime knows."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.touch, "there is a file that is no socket"),
        (Path.mkdir, "there is a file that is no socket"),
        (make_link, "there is a file that is no socket"),
        (make_listener, "another process listens there"),
    ],
)
def test_what_is_not_replaced(server: Server, tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "console"
    with make(path) or nullcontext():
        before = path.lstat().st_ino
        with pytest.raises(NorthstarError, match=reason), listening(server, f"unix://{path}"):
            pass
        assert path.lstat().st_ino == before


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("unix:///nonexistent/console", "No such file or directory"),
        ("tcp://nonexistent.invalid:4200", "console tcp://nonexistent.invalid:4200: "),
        ("tcp://192.0.2.1:4200", "Cannot assign requested address"),
    ],
)
def test_impossible_addresses(server: Server, url: str, reason: str) -> None:
    with pytest.raises(NorthstarError, match=reason), listening(server, url):
        pass
