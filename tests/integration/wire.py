# SPDX-License-Identifier: Apache-2.0
"""A connection to the console without the client library."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runtime import TIMEOUT, Runtime

CONNECT = {"connect": {"version": "0.9.2", "subscribe_notifications": False}}


class Wire:
    """A raw connection."""

    def __init__(self, runtime: Runtime) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(runtime.base / "console"))
        self.stream = self.sock.makefile("rb")

    def send(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        with suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def line(self) -> bytes:
        """The next line, empty if the connection is closed."""
        try:
            return self.stream.readline()
        except ConnectionResetError:
            return b""

    def ask(self, request: Any) -> Any:
        self.send({"request": request})
        return json.loads(self.line())["response"]


@contextmanager
def wire(runtime: Runtime, connect: bool = True) -> Iterator[Wire]:
    connection = Wire(runtime)
    try:
        if connect:
            connection.send(CONNECT)
            assert connection.line() == b'{"connect_ack":null}\n'
        yield connection
    finally:
        connection.stream.close()
        connection.sock.close()
