# SPDX-License-Identifier: Apache-2.0
"""The client's end of a connection to the console, byte by byte."""

from __future__ import annotations

import socket

CONNECT = b'{"connect":{"version":"0.9.2","subscribe_notifications":false}}\n'
SUBSCRIBE = CONNECT.replace(b"false", b"true")
ACK = b'{"connect_ack":null}\n'
IDENT, EXTERN = b'{"request":"ident"}\n', b'{"response":{"ident":"extern:0.0.0"}}\n'


def everything(sock: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    received = b""
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return received
        if not data:
            return received
        received += data


def exactly(sock: socket.socket, expected: bytes) -> None:
    received = b""
    while len(received) < len(expected):
        data = sock.recv(len(expected) - len(received))
        assert data, f"closed after {received!r}, {expected!r} expected"
        received += data
    assert received == expected


def connect(sock: socket.socket, hello: bytes = CONNECT) -> None:
    sock.sendall(hello)
    exactly(sock, ACK)
