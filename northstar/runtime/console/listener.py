# SPDX-License-Identifier: Apache-2.0
"""Listening sockets of the console."""

from __future__ import annotations

import errno
import socket

from northstar.errors import NorthstarError
from northstar.protocol import permissions
from northstar.runtime import log
from northstar.runtime.console.peer import EXTERN, Peer
from northstar.runtime.eventloop.loop import Future
from northstar.runtime.eventloop.transport import close_apart
from northstar.runtime.eventloop.unixsocket import bind_unix, stop_listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.config import ConsoleConfig
    from northstar.runtime.console.connection import Connection
    from northstar.runtime.console.server import ConsoleServer
    from northstar.runtime.eventloop.loop import Channel, Loop, Task

_log = log.Logger("runtime::console")

UNIX_MODE = 0o600
_HARMLESS = frozenset(("ident", "list", "inspect", "repositories", "notifications"))
CONNECT_TIMEOUT = 10.0
"""Seconds until a client has to have said what it wants."""
_RETRY_DELAY = 0.1
_NOT_HERE = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
"""Of an address that this machine does not have now, such as [::1] without IPv6."""
_ENDING = 16
"""So many more connections there may be, as long as they are about to end."""


class Listener:
    """Accepts clients where a URL says, as many as the configuration allows.

    A host name may have several addresses, of IPv4 and IPv6: there is a socket for each.
    """

    def __init__(self, loop: Loop, server: ConsoleServer, config: ConsoleConfig) -> None:
        """Bind and listen; raises NorthstarError naming the address."""
        self._loop = loop
        self._server = server
        self._config = config
        self._clients: dict[Connection, None] = {}
        self._room = Future()
        self._full = False
        granted = ", ".join(
            p for p in (*permissions.PERMISSIONS, *permissions.ADDITIONAL) if p in config.permissions
        )
        _log.debug(f'Starting console on {config.url} with permissions "{granted}"')
        try:
            bound = _bind(config)
        except OSError as error:
            reason = error.strerror or str(error)
            raise NorthstarError(f"console {config.url}: {reason}", _hint(error)) from None
        self._entrances: list[tuple[socket.socket, Channel, Task]] = []
        for sock, address in bound:
            sock.setblocking(False)
            channel = loop.register(sock.fileno())
            self._entrances.append((sock, channel, loop.spawn(self._accept(sock, channel))))
            _log.debug(f"Started console on {address}")

    def close(self) -> None:
        """Stop listening. The file of a unix socket stays, as clients' tests expect it."""
        for sock, channel, task in self._entrances:
            task.cancel()
            channel.close()
            stop_listening(sock)
            # There may be descriptors in connections that were not accepted.
            self._loop.spawn(close_apart(self._loop, sock, []))
        _log.debug("Closed listener")

    async def _accept(self, sock: socket.socket, channel: Channel) -> None:
        failure = 0
        while True:
            try:
                while len(self._clients) >= self._config.max_connections + _ENDING:
                    if self._room.done:
                        self._room = Future()
                    await self._room
                await self._serve(*sock.accept())
            except BlockingIOError:
                failure = 0
                await channel.readable()
            except OSError as error:
                if sock.fileno() < 0:
                    # Closed while this task waited for its turn.
                    return
                if error.errno != failure:
                    _log.warn(f"Error listening: {error.strerror}")
                failure = error.errno or 0
                await self._loop.sleep(_RETRY_DELAY)
            else:
                await self._loop.turn()

    async def _serve(self, sock: socket.socket, address: object) -> None:
        if not self._make_room():
            await close_apart(self._loop, sock, [])
            return
        name = f"Remote({_peer_name(address)})"
        peer = Peer(name, EXTERN, self._config.permissions, self._config.options, CONNECT_TIMEOUT)
        try:
            client = self._server.serve(sock, peer)
        except OSError:
            await close_apart(self._loop, sock, [])
            raise
        self._clients[client] = None
        self._loop.when_done(client.task, lambda: self._ended(client))

    def _make_room(self) -> bool:
        """Whether one more is possible: who has not said yet what it wants gives way to who comes later."""
        if len(self._clients) < self._config.max_connections and not self._server.full:
            self._full = False
            return True
        for client in self._clients:
            if not client.established and not client.ending:
                client.give_up("Too many connections, this one gives way to another")
                return True
        if not self._full:
            _log.warn(f"Too many connections on {self._config.url}, refusing more")
        self._full = True
        return False

    def _ended(self, client: Connection) -> None:
        del self._clients[client]
        self._room.set_result()


def _bind(config: ConsoleConfig) -> list[tuple[socket.socket, str]]:
    if config.url.scheme == "unix":
        mode = config.mode if config.mode is not None else UNIX_MODE
        return [bind_unix(config.url.path, mode, descriptors="exec" in config.permissions)]
    return _bind_tcp(config)


def _bind_tcp(config: ConsoleConfig) -> list[tuple[socket.socket, str]]:
    """A socket for each address of the host. One that this machine does not have is left out, with a warning,
    if there is another one. Raises OSError.
    """
    url = config.url
    bound: list[tuple[socket.socket, str]] = []
    missing: dict[str, OSError] = {}
    try:
        addresses = _addresses(url.host, url.port)
        both = len({family for family, _ in addresses}) > 1
        for family, address in addresses:
            try:
                sock = _bind_address(family, address, apart=both)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing[_tcp_name(address[:2])] = error
            else:
                bound.append((sock, _tcp_name(sock.getsockname()[:2])))
    except OSError:
        for sock, _ in bound:
            sock.close()
        raise
    if not bound:
        raise next(iter(missing.values()))
    for name, reason in missing.items():
        _log.warn(f"Console {url} is not reachable on {name}: {reason.strerror}")
    for sock, _ in bound:
        _warn_exposed(config, sock.getsockname()[0])
    return bound


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """(family, address) of all that a name stands for, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _bind_address(family: int, address: Any, *, apart: bool) -> socket.socket:
    """`apart`: if it is of IPv6, IPv4 has a socket of its own; else [::] is for both (ipv6(7))."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if apart and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(socket.SOMAXCONN)
    except OSError:
        sock.close()
        raise
    return sock


def _warn_exposed(config: ConsoleConfig, host: str) -> None:
    loopback = host.startswith("127.") or host == "::1"
    if not loopback and not config.insecure and config.permissions - _HARMLESS:
        _log.warn(
            f"Console {config.url} is reachable from the network, without authentication, and may change "
            "things; set insecure = true if this is meant"
        )


def _tcp_name(address: tuple[str, int]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"


def _peer_name(address: object) -> str:
    if isinstance(address, tuple):
        return f"tcp://{_tcp_name(address[:2])}"
    if isinstance(address, str) and address:
        return f"unix://{address}"
    return "unix://unnamed"


def _hint(error: OSError) -> str | None:
    if error.errno == errno.EADDRINUSE:
        return "is another runtime running?"
    if error.errno == errno.ENOENT:
        return "the directory of the socket must exist"
    return None
