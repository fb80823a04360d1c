# SPDX-License-Identifier: Apache-2.0
"""Where a runtime is: by URL, or behind a descriptor that a container inherits."""

from __future__ import annotations

import os
import socket

from northstar.client.errors import ClientError
from northstar.protocol.url import ConsoleUrl

DEFAULT_URL = "tcp://localhost:4200"
CONNECT_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 10.0
CONSOLE_VARIABLE = "NORTHSTAR_CONSOLE"


def connected(url: str) -> socket.socket:
    """A socket connected to `tcp://host[:port]` or `unix:///path`. Raises ValueError, OSError.

    Connecting is limited to CONNECT_TIMEOUT seconds, name resolution has no limit of its own.
    """
    address = ConsoleUrl.parse(url)
    if address.scheme == "unix":
        return _connect(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), address.path)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, target = found[0]
    return _connect(socket.socket(family, kind, protocol), target)


def _connect(sock: socket.socket, target: object) -> socket.socket:
    sock.settimeout(CONNECT_TIMEOUT)
    try:
        sock.connect(target)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def inherited() -> socket.socket:
    """The console of the container that we are in. Raises ClientError.

    It is one connection for the life of the container: once closed it is gone.
    """
    number = os.environ.get(CONSOLE_VARIABLE, "")
    if not (number.isascii() and number.isdigit()):
        raise ClientError(f"{CONSOLE_VARIABLE} is not set", "the container's manifest needs a console")
    try:
        return socket.socket(fileno=int(number))
    except OSError as error:
        raise ClientError(f"{CONSOLE_VARIABLE}={number}: {error.strerror}") from None
