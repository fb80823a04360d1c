# SPDX-License-Identifier: Apache-2.0
"""The console: all connections, those of clients and those of containers."""

from __future__ import annotations

import resource
import socket
import time

from northstar.errors import StartContainerFailed
from northstar.runtime import log
from northstar.runtime.console.connection import Connection
from northstar.runtime.console.peer import EXTERN, Peer
from northstar.runtime.console.services import Services
from northstar.runtime.console.throttle import Budget
from northstar.runtime.eventloop.loop import Cancelled, Mutex, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.config import ConsoleOptions
    from northstar.manifest.model import Manifest
    from northstar.protocol import requests
    from northstar.runtime.console.handlers import Handlers
    from northstar.runtime.console.notifications import Notifications
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::console")

RESERVED_DESCRIPTORS = 256
"""For everything but clients."""
DESCRIPTORS_PER_CLIENT = 4
"""Its socket, and those that it may send."""
FEWEST_CLIENTS = 8


class ConsoleServer:
    """Makes connections and knows them all."""

    def __init__(
        self,
        loop: Loop,
        notifications: Notifications,
        handlers: Handlers,
        container_options: ConsoleOptions,
        backlog: int,
    ) -> None:
        """`backlog` is the number of notifications that a slow subscriber may fall behind."""
        self.backlog = 1 << max(0, backlog - 1).bit_length()
        self._loop = loop
        self._services = Services(loop, notifications, handlers, Mutex(), Budget(), self.backlog)
        self._container_options = container_options
        self._connections: dict[Connection, None] = {}
        self._clients = 0
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_clients = max(FEWEST_CLIENTS, (limit - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_CLIENT)

    @property
    def full(self) -> bool:
        """Whether there are as many clients as there are descriptors for, on all listeners together."""
        return self._clients >= self._max_clients

    def watch(self, on_request: Callable[[requests.Request], None]) -> None:
        """Let monitoring hear of all requests."""
        self._services.on_request = on_request

    def serve(self, sock: socket.socket, peer: Peer) -> Connection:
        """Start serving a connected socket. Raises OSError; then it is still the caller's."""
        connection = Connection(self._services, sock, peer)
        self._connections[connection] = None
        self._clients += not peer.contained
        self._loop.when_done(connection.task, lambda: self._forget(connection))
        return connection

    def connect_container(self, manifest: Manifest) -> tuple[Connection, socket.socket]:
        """A connection for a container about to start, and the container's end of it.

        Raises OSError, StartContainerFailed.
        """
        container = manifest.container
        if container.name == EXTERN.name:
            # It would be taken for a client of the host, by tokens too.
            raise StartContainerFailed(container, f"a container named {EXTERN.name} cannot have a console")
        allowed = manifest.console.permissions if manifest.console is not None else frozenset()
        peer = Peer(
            f"Container({container})", container, allowed, self._container_options, None, contained=True
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            return self.serve(ours, peer), theirs
        except OSError:
            ours.close()
            theirs.close()
            raise

    def count_connections(self) -> dict[str, int]:
        """How many connections clients have, and how many containers."""
        return {"client": self._clients, "container": len(self._connections) - self._clients}

    async def close_clients(self, limit: float) -> None:
        """Close the connections of clients (not those of containers), waiting at most `limit` seconds."""
        clients = [c for c in self._connections if not c.peer.contained]
        for connection in clients:
            connection.stop()
        if clients:
            _log.debug("Waiting for open connections")
        deadline = time.monotonic() + limit
        for connection in clients:
            try:
                await self._loop.wait_for(connection.task, max(0.0, deadline - time.monotonic()))
            except (Timeout, Cancelled):
                continue

    def _forget(self, connection: Connection) -> None:
        del self._connections[connection]
        self._clients -= not connection.peer.contained
