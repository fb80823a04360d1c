# SPDX-License-Identifier: Apache-2.0
"""The other end of a console connection: who it is and what it may, and what requests can do with it."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.names import Container, Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from northstar.config import ConsoleOptions
    from northstar.runtime.eventloop.loop import Future
    from northstar.runtime.output.lastoutput import LastOutput

    class Client(Protocol):
        """A connection, as far as requests deal with it."""

        peer: Peer

        async def send(self, data: bytes) -> None:
            """Write; returns when all of it is with the kernel."""

        async def read_package(self, size: int) -> bytes:
            """Some of the raw bytes behind the request, at most `size`; none at the end of the stream."""

        def has_more(self) -> bool:
            """Whether `read_package` would give something at once."""

        def follow(self, container: Container, output: LastOutput) -> None:
            """Send what the container writes from now on."""

        def unfollow(self, container: Container) -> None:
            """No more of that; no-op if it is not followed."""

        def take_descriptors(self) -> list[int]:
            """The descriptors that came with the request; the caller closes them, in a thread."""

        async def wait_connected(self, event: Future) -> Any:
            """The result of `event`, or None as soon as the client has gone."""


EXTERN = Container("extern", Version(0, 0, 0))


class RequestFailed(Exception):
    """The request is not answered, its connection is closed."""


class Peer(NamedTuple):
    """The other end of a connection."""

    name: str
    """As it appears in the log."""
    identity: Container
    """What `ident` answers."""
    permissions: frozenset[str]
    options: ConsoleOptions
    connect_timeout: float | None
    contained: bool = False
    """Whether it is a container, and not a client that has connected."""
