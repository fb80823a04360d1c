# SPDX-License-Identifier: Apache-2.0
"""The client's side of a connection without input and output.

Bytes to be sent come out of `connect` and `request`, received bytes go into `receive`, and what they mean is
in `responses` and `notifications` afterwards. Framing and messages are those of the daemon,
`northstar.protocol`; blocking and asynchronous clients put their input and output around this.
"""

from __future__ import annotations

import contextlib
from collections import deque

from northstar import API_VERSION
from northstar.client.errors import (
    ClientError,
    ConnectionClosed,
    LaggedNotifications,
    PermissionDenied,
    ProtocolVersion,
    Refused,
)
from northstar.client.model import Notification
from northstar.names import Version
from northstar.protocol import messages, requests
from northstar.protocol.framing import LineBuffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    Trace = Callable[[str, bytes], None]

    T = TypeVar("T")


BACKLOG = 16384
"""Notifications that are kept for a client which does not take them."""

_VERSION = Version.parse(API_VERSION)


class ClientProtocol:
    """State of a connection: what has arrived and was not taken yet.

    After an error of `receive` the connection is of no use any more.
    """

    def __init__(
        self,
        notifications: bool | Sequence[str] = False,
        *,
        backlog: int = BACKLOG,
        trace: Trace | None = None,
    ) -> None:
        """Subscribe to `notifications`, of ours those that it names; at most `backlog` wait to be taken.

        `trace(direction, line)` sees every line, direction `>` for ours and `<` for the runtime's.
        """
        self.established = False
        self.responses: deque[Any] = deque()
        self.notifications: deque[Notification] = deque()
        self._subscribe = bool(notifications)
        self._kinds = () if isinstance(notifications, bool) else tuple(notifications)
        self._backlog = backlog
        self._trace = trace
        self._outstanding = 0
        self._ignored: tuple[str, str] | None = None
        self._lines = LineBuffer()

    def connect(self) -> bytes:
        """The first bytes to send."""
        return self._sent(messages.encode(requests.Connect(_VERSION, self._subscribe, self._kinds)))

    def request(self, request: requests.Request) -> bytes:
        """The bytes of a request. It gets exactly one response; responses come in the order of requests.

        Only `Exec` gets a second one if the first is not a refusal: how the command ended.
        Behind `Install` the caller sends as many bytes as the request says.
        """
        self._outstanding += 1
        return self._sent(messages.encode(request))

    def receive(self, data: bytes) -> None:
        """Take received bytes, none at the end of the stream.

        Raises ConnectionClosed, PermissionDenied (notifications), ProtocolVersion, LaggedNotifications,
        ClientError and ProtocolError.
        """
        if not data:
            raise ConnectionClosed
        self._lines.feed(data)
        while (line := self._lines.next_line()) is not None:
            if self._trace is not None:
                self._trace("<", line)
            message = messages.decode_server(line)
            try:
                self._take(message)
            except (AttributeError, LookupError, TypeError, ValueError):
                raise ClientError(f"malformed message of the runtime: {message.kind}") from None

    @contextlib.contextmanager
    def ignoring(self, container: str, kind: str) -> Iterator[None]:
        """Drop the notifications of a kind about a container: those that have arrived, and what comes."""
        kept = [n for n in self.notifications if (n.container, n.kind) != (container, kind)]
        self.notifications.clear()
        self.notifications.extend(kept)
        self._ignored = (container, kind)
        try:
            yield
        finally:
            self._ignored = None

    def _sent(self, line: bytes) -> bytes:
        if self._trace is not None:
            self._trace(">", line.rstrip(b"\n"))
        return line

    def _take(self, message: messages.ServerMessage) -> None:
        if not self.established:
            self._take_first(message)
        elif message.kind == "response" and self._outstanding:
            if not _has_successor(message.value):
                self._outstanding -= 1
            self.responses.append(message.value)
        elif message.kind == "notification":
            self._take_notification(Notification.from_wire(message.value))
        else:
            raise ClientError(f"unexpected message of the runtime: {message.kind}")

    def _take_notification(self, notification: Notification) -> None:
        if (notification.container, notification.kind) == self._ignored:
            return
        if len(self.notifications) >= self._backlog:
            raise LaggedNotifications(self._backlog)
        self.notifications.append(notification)

    def _take_first(self, message: messages.ServerMessage) -> None:
        if message.kind == "connect_ack":
            self.established = True
        elif message.kind != "connect_nack":
            raise ClientError(f"unexpected first message of the runtime: {message.kind}")
        elif message.value == "permission_denied":
            raise PermissionDenied("notifications")
        else:
            raise ProtocolVersion(message.value["invalid_protocol_version"]["version"])


def _has_successor(response: Any) -> bool:
    """Whether another response to the same request follows."""
    return isinstance(response, dict) and "ok" in (response.get("exec") or ())


def result(response: Any, kind: str) -> Any:
    """The value of a response of a kind. Raises PermissionDenied, ClientError."""
    if response == kind:
        return None
    if isinstance(response, dict) and len(response) == 1:
        ((name, value),) = response.items()
        if name == "permission_denied":
            raise PermissionDenied(value if isinstance(value, str) else next(iter(value), kind))
        if name == kind:
            return value
    raise ClientError(f"unexpected response: {response}")


def outcome(value: Any) -> Any:
    """What is in `ok`. Raises Refused."""
    if "error" in value:
        raise Refused(value["error"]["error"])
    return value["ok"]


def decoded(decode: Callable[[Any], T], value: Any) -> T:
    """What `decode` makes of what the runtime sent. Raises ClientError if that is malformed, too."""
    try:
        return decode(value)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ClientError(f"malformed message of the runtime: {value}") from None
