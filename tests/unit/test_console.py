# SPDX-License-Identifier: Apache-2.0
"""The console without a runtime: who gets which notifications, log lines, limits."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from consoleclient import ACK, CONNECT, EXTERN, IDENT, SUBSCRIBE, connect, everything, exactly
from consoleserver import BACKLOG, PEER, TIMEOUT, Server, serve

from northstar.config import ConsoleOptions
from northstar.names import Container
from northstar.protocol import decoding
from northstar.protocol.permissions import FULL, PERMISSIONS
from northstar.runtime.console.server import ConsoleServer
from northstar.runtime.eventloop.loop import Future

A = Container.parse("a:0.0.1")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from serve()


def test_notifications_are_denied(server: Server) -> None:
    with server.connection(granted=FULL - {"notifications"}) as sock:
        sock.sendall(SUBSCRIBE)
        assert everything(sock) == b'{"connect_nack":"permission_denied"}\n'


def test_a_subscriber_gets_what_happened_before_its_connect(server: Server) -> None:
    with server.connection() as sock:
        server.call(server.notifications.started, A, 0.5)
        connect(sock, SUBSCRIBE)
        exactly(sock, b'{"notification":{"started":"a:0.0.1"}}\n')


def test_a_subscriber_that_lags_is_closed(server: Server) -> None:
    with server.connection() as lazy, server.connection() as reader:
        connect(lazy, SUBSCRIBE)
        connect(reader, SUBSCRIBE)
        notification = b'{"notification":{"started":"a:0.0.1"}}\n'
        while "warn: Client connection lagged notifications. Closing" not in server.logged():
            server.call(server.notifications.started, A, 0.5)
            exactly(reader, notification)
        assert everything(lazy).startswith(notification)


STARTED = b'{"notification":{"started":"a:0.0.1"}}\n'


@pytest.mark.parametrize("number", [BACKLOG, BACKLOG + 1])
def test_a_subscriber_that_lags_while_it_installs_gets_its_answer(server: Server, number: int) -> None:
    """What it could not read was not its fault, but the connection cannot go on without it."""
    answer = b'{"response":{"install":{"ok":{"container":"installed:0.0.1"}}}}\n'
    with server.connection() as sock:
        connect(sock, SUBSCRIBE)
        sock.sendall(b'{"request":{"install":{"repository":"mem","size":9}}}\na pack')
        seen: list[str] = []
        deadline = time.monotonic() + TIMEOUT
        while f'info: {PEER}: Using repository "mem"' not in seen:
            seen += server.logged()
            assert time.monotonic() < deadline
        for _ in range(number):
            server.call(server.notifications.started, A, 0.5)
        assert server.logged() == []
        sock.sendall(b"age")
        exactly(sock, answer)
        if number > BACKLOG:
            assert everything(sock) == b""
            assert server.logged() == [
                "warn: Client connection lagged notifications. Closing",
                f"info: {PEER}: Connection closed",
            ]
        else:
            exactly(sock, STARTED * number)


def test_as_many_notifications_as_may_wait_for_a_connect(server: Server) -> None:
    with server.connection() as sock:
        for _ in range(BACKLOG):
            server.call(server.notifications.started, A, 0.5)
        connect(sock, SUBSCRIBE)
        exactly(sock, STARTED * BACKLOG)
        server.call(server.notifications.started, A, 0.5)
        exactly(sock, STARTED)


def test_more_notifications_than_may_wait_for_a_connect(server: Server) -> None:
    """None of them is delivered; nothing more is kept for who never subscribes."""
    with server.connection(container=A) as sock:
        for _ in range(BACKLOG + 1):
            server.call(server.notifications.started, A, 0.5)
        server.logged()
        sock.sendall(SUBSCRIBE + IDENT)
        assert everything(sock) == ACK
    assert server.logged() == [
        "debug: Client Container(a:0.0.1) subscribed to notifications",
        "warn: Client connection lagged notifications. Closing",
        "info: Container(a:0.0.1): Connection closed",
    ]


def test_more_notifications_than_may_wait_do_not_concern_others(server: Server) -> None:
    with server.connection() as sock:
        for _ in range(BACKLOG + 1):
            server.call(server.notifications.started, A, 0.5)
        connect(sock)
        sock.sendall(IDENT)
        exactly(sock, EXTERN)


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (1, 1), (3, 4), (4, 4), (5, 8), (128, 128), (129, 256)])
def test_backlog_is_a_power_of_two(asked: int, given: int) -> None:
    made = ConsoleServer(None, None, None, ConsoleOptions(), asked)  # type: ignore[arg-type]
    assert made.backlog == given


# --- log lines


def test_client_that_does_not_connect(server: Server) -> None:
    server.logged()
    with server.connection(connect_timeout=0.01) as sock:
        assert everything(sock) == b""
    assert server.logged()[1:] == [f"info: {PEER}: Connection timed out"]


def test_log_lines_of_a_container(server: Server) -> None:
    server.logged()
    with server.connection(granted=frozenset(("ident",)), container=A) as sock:
        connect(sock)
        sock.sendall(IDENT)
        exactly(sock, EXTERN.replace(b"extern:0.0.0", b"a:0.0.1"))
        # Its connection is none of those of clients, which end before the containers.
        server.call(server.loop.spawn, server.console.close_clients(TIMEOUT))
        sock.sendall(IDENT)
        exactly(sock, EXTERN.replace(b"extern:0.0.0", b"a:0.0.1"))
    assert server.logged() == [
        "debug: Container a:0.0.1 connected with permissions ident",
        "info: Container(a:0.0.1): Connection closed",
    ]


def test_shutdown_does_not_wait_for_a_connect(server: Server) -> None:
    with server.connection(connect_timeout=TIMEOUT) as sock:
        server.logged()
        server.call(server.loop.spawn, server.console.close_clients(TIMEOUT))
        assert everything(sock) == b""
    assert server.logged() == [f"info: {PEER}: Closing connection", "debug: Waiting for open connections"]


def test_log_lines_of_a_shutdown(server: Server) -> None:
    with server.connection() as sock:
        connect(sock)
        server.logged()
        server.call(server.loop.spawn, server.console.close_clients(TIMEOUT))
        assert everything(sock) == b""
    assert server.logged() == [
        f"info: {PEER}: Closing connection",
        "debug: Waiting for open connections",
        f"info: {PEER}: Connection closed",
    ]


def test_log_lines_of_a_connection(server: Server) -> None:
    server.logged()
    with server.connection(granted=frozenset(("list", "ident"))) as sock:
        connect(sock)
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock) == b""
    assert server.logged() == [
        f"debug: Client {PEER} connected with permissions ident, list",
        f"info: {PEER}: Connection closed",
    ]


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (b"", [f"info: {PEER}: Connection closed before connect"]),
        (b"{", [f"warn: {PEER}: Connection error: bytes remaining on stream"]),
        (
            CONNECT.replace(b"0.9.2", b"0.8.0"),
            [
                f"warn: {PEER}: Client connected with insufficent protocol version 0.8.0. "
                "Expected 0.9.2. Disconnecting..."
            ],
        ),
        (
            b'{"request":"list","extra":1}\n',
            [f"warn: {PEER}: Received List() instead of Connect"],
        ),
        (
            CONNECT + CONNECT,
            [
                f"warn: {PEER}: Unexpected message: Connect(version=Version(major=0, minor=9, patch=2), "
                "subscribe_notifications=False, notifications=()). Disconnecting...",
                f"info: {PEER}: Connection closed",
            ],
        ),
        (
            SUBSCRIBE,
            [f"debug: Client {PEER} subscribed to notifications", f"info: {PEER}: Connection closed"],
        ),
        (
            CONNECT + b'{"request":{"install":{"repository":"mem","size":268435457}}}\n',
            [
                f"debug: {PEER}: Received installation request with size 268.4 MB",
                "warn: Failed to process request: npk size too large",
                f"info: {PEER}: Connection closed",
            ],
        ),
        (
            CONNECT + b'{"request":{"token_create":{"target":"t","shared":"aGVsbG8h"}}}\n',
            [
                'info: Creating token for user "extern" and target "t" with shared "68656c6c6f21"',
                f"info: {PEER}: Connection closed",
            ],
        ),
        (
            CONNECT
            + b'{"request":{"token_verify":{"token":"'
            + b"A" * 54
            + b'==","user":"u","shared":"AAr/"}}}\n',
            [
                'info: Verifiying token for user "u" and target "extern" with shared "000aff"',
                f"info: {PEER}: Connection closed",
            ],
        ),
        (
            CONNECT + b'{"request":{"install":{"repository":"mem","size":9}}}\na package',
            [
                f"debug: {PEER}: Received installation request with size 9 B",
                f'info: {PEER}: Using repository "mem"',
                f"info: {PEER}: Connection closed",
            ],
        ),
        (
            CONNECT + b'{"request":\n',
            [
                f"warn: {PEER}: Connection error: invalid JSON: Expecting value: line 1 column 12 (char 11). "
                "Disconnecting...",
                f"info: {PEER}: Connection closed",
            ],
        ),
    ],
)
def test_log_lines(server: Server, sent: bytes, logged: list[str]) -> None:
    server.logged()
    with server.connection() as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        everything(sock)
    found = server.logged()
    assert found[0] == f"debug: Client {PEER} connected with permissions {', '.join(PERMISSIONS)}"
    assert found[1:] == logged


# --- limits


def test_longest_line_and_one_byte_more(server: Server) -> None:
    options = ConsoleOptions(max_requests_per_sec=0, max_request_size=100)
    with server.connection(options) as sock:
        connect(sock)
        sock.sendall(IDENT[:-1].ljust(99) + b"\r\n")
        exactly(sock, EXTERN)
        sock.sendall(IDENT[:-1].ljust(100) + b"\r\n")
        assert everything(sock) == b""


def test_no_line_is_short_enough_for_a_limit_of_zero(server: Server) -> None:
    with server.connection(ConsoleOptions(max_request_size=0)) as sock:
        sock.sendall(CONNECT)
        assert everything(sock) == b""
    assert f"warn: {PEER}: Connection error: a line exceeds the limit of 0 bytes" in server.logged()


def test_long_lines_are_decoded_one_after_another_while_others_are_served(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, free = decoding.decode_client, threading.Event()
    under_way: list[bytes] = []
    at_once: list[int] = []

    def slowly(line: bytes) -> object:
        if len(line) > 100_000:
            under_way.append(line)
            at_once.append(len(under_way))
            assert free.wait(TIMEOUT)
            under_way.remove(line)
        return decode(line)

    monkeypatch.setattr(decoding, "decode_client", slowly)
    with server.connection() as first, server.connection() as second, server.connection() as other:
        for slow in (first, second):
            connect(slow)
            slow.sendall(IDENT[:-1].ljust(200_000) + b"\n")
        connect(other)
        other.sendall(IDENT)
        exactly(other, EXTERN)
        free.set()
        exactly(first, EXTERN)
        exactly(second, EXTERN)
    assert at_once == [1, 1]


def test_request_about_too_many_containers(server: Server) -> None:
    names = json.dumps(["a:0.0.1"] * 1025).encode()
    with server.connection() as sock:
        connect(sock)
        server.logged()
        sock.sendall(b'{"request":{"umount":{"containers":' + names + b"}}}\n")
        assert everything(sock) == b""
    assert server.logged() == [
        f"warn: {PEER}: Connection error: more than 1024 containers in a request. Disconnecting...",
        f"info: {PEER}: Connection closed",
    ]


@pytest.mark.slow
def test_notifications_while_requests_are_throttled(server: Server) -> None:
    options = ConsoleOptions(max_requests_per_sec=1)
    with server.connection(options) as sock:
        connect(sock, SUBSCRIBE)
        sock.sendall(IDENT)
        server.call(server.notifications.started, A, 0.5)
        # The connect message is less than a second ago.
        exactly(sock, STARTED + EXTERN)


def test_end_of_a_connection_that_is_throttled(server: Server) -> None:
    options = ConsoleOptions(max_requests_per_sec=1)
    with server.connection(options) as sock:
        connect(sock)
        sock.sendall(IDENT)
        server.call(server.loop.spawn, server.console.close_clients(TIMEOUT))
        assert everything(sock) == b""


def test_end_of_stream_within_a_package(server: Server) -> None:
    with server.connection() as sock:
        connect(sock)
        sock.sendall(b'{"request":{"install":{"repository":"mem","size":1000}}}\n' + b"x" * 999)
        sock.shutdown(socket.SHUT_WR)
        error = (
            b'{"response":{"install":{"error":{"error":{"unexpected":{"error":"failed to read npk"}}}}}}\n'
        )
        assert everything(sock) == error


def test_package_that_stalls(server: Server) -> None:
    options = ConsoleOptions(max_requests_per_sec=0, npk_stream_timeout=0.05)
    with server.connection(options) as sock:
        connect(sock)
        sock.sendall(b'{"request":{"install":{"repository":"mem","size":1000}}}\n' + b"x" * 999)
        assert everything(sock) == b""
    assert "warn: Failed to process request: npk stream timeout" in server.logged()


def test_an_operation_goes_on_when_its_client_is_closed(server: Server) -> None:
    """What is half done could not be undone by anybody."""
    runtime = server.runtime
    runtime.finished.clear()
    runtime.gate = Future()
    with server.connection() as sock:
        connect(sock)
        sock.sendall(b'{"request":{"mount":{"containers":["a:0.0.1"]}}}\n')
        assert runtime.under_way.wait(TIMEOUT)
        server.logged()
        server.call(server.loop.spawn, server.console.close_clients(TIMEOUT))
        assert everything(sock) == b""
    assert server.logged() == [
        "warn: Failed to process request: shutdown",
        "debug: Waiting for open connections",
        f"info: {PEER}: Connection closed",
    ]
    assert runtime.finished == []
    server.call(runtime.gate.set_result)
    runtime.gate = None
    deadline = time.monotonic() + TIMEOUT
    while not server.call(list, runtime.finished):
        assert time.monotonic() < deadline
    assert runtime.finished == [A]
