# SPDX-License-Identifier: Apache-2.0
"""Where a runtime is: by URL, or behind a descriptor that a container inherits.

A host name may have several addresses, of which some are not reachable or do not even answer. They are tried
in their order, each while those before it are still being waited for (RFC 8305).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from northstar.client.errors import ClientError
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT_URL = "tcp://localhost:4200"
CONNECT_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 10.0
NEXT_ADDRESS = 0.25
"""Seconds until the next address of a host is tried as well."""
CONSOLE_VARIABLE = "NORTHSTAR_CONSOLE"


def connected(url: str) -> socket.socket:
    """A socket connected to `tcp://host[:port]` or `unix:///path`. Raises ValueError, OSError.

    Connecting is limited to CONNECT_TIMEOUT seconds, name resolution has no limit of its own.
    """
    address = ConsoleUrl.parse(url)
    if address.scheme == "unix":
        return _connect_unix(address.path)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return _first_connected([(int(family), target) for family, _, _, _, target in found])


def _connect_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _first_connected(addresses: list[tuple[int, Any]]) -> socket.socket:
    """Connected to the address that answers first. Raises the error of the first address, TimeoutError."""
    race = _Race(addresses)
    try:
        return race.winner(time.monotonic() + CONNECT_TIMEOUT)
    finally:
        race.close()


class _Race:
    """Attempts to connect, at the same time."""

    def __init__(self, addresses: list[tuple[int, Any]]) -> None:
        self._untried: Iterator[tuple[int, Any]] = iter(dict.fromkeys(addresses))
        self._running: dict[int, socket.socket] = {}
        self._error: OSError | None = None

    def winner(self, deadline: float) -> socket.socket:
        """The first one that is connected."""
        more = True
        while True:
            # Whoever has failed does not make the next one wait.
            more = more and self._try_next()
            if not self._running and not more:
                raise self._error or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "timed out")
            if self._running and (sock := self._wait(min(remaining, NEXT_ADDRESS) if more else remaining)):
                sock.settimeout(CONNECT_TIMEOUT)
                return sock

    def _try_next(self) -> bool:
        """Begin with another address; False if there is none."""
        for family, target in self._untried:
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:  # a family that this machine does not know
                self._failed(error)
                continue
            self._running[sock.fileno()] = sock
            code = sock.connect_ex(target)
            if code not in (0, errno.EINPROGRESS):
                self._fail(sock, code)
            return True
        return False

    def _wait(self, seconds: float) -> socket.socket | None:
        """The one that is connected by then, or fails."""
        poller = select.poll()
        for number in self._running:
            poller.register(number, select.POLLOUT)
        for number, _ in poller.poll(seconds * 1000):
            sock = self._running[number]
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return self._running.pop(number)
            self._fail(sock, code)
        return None

    def _fail(self, sock: socket.socket, code: int) -> None:
        del self._running[sock.fileno()]
        sock.close()
        self._failed(OSError(code, os.strerror(code)))

    def _failed(self, error: OSError) -> None:
        self._error = self._error or error

    def close(self) -> None:
        """Give up all that are still under way."""
        for sock in self._running.values():
            sock.close()


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
