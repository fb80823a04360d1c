# SPDX-License-Identifier: Apache-2.0
"""Listening sockets of the console: addresses, what stands in the way, and what the log says."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
