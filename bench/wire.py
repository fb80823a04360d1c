# SPDX-License-Identifier: Apache-2.0
"""The console without the client library, which would be measured, too."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.daemon import Bench

LIST = b'{"request":"list"}\n'

_HELLO = b'{"connect":{"version":"0.9.2","subscribe_notifications":%s}}\n'
_ACK = b'{"connect_ack":null}\n'


def connect(bench: Bench, *, notifications: bool = False) -> socket.socket:
    """A connection after the handshake."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(bench.console.removeprefix("unix://"))
    sock.sendall(_HELLO % (b"true" if notifications else b"false"))
    if sock.recv(100) != _ACK:
        raise SystemExit("bench: the daemon does not accept the connection")
    return sock


def ask(sock: socket.socket, request: bytes) -> None:
    """Send a request and wait until the whole answer is here."""
    sock.sendall(request)
    while answer := sock.recv(1 << 16):
        if answer.endswith(b"\n"):
            return
    raise SystemExit("bench: the daemon has closed the connection")
