# SPDX-License-Identifier: Apache-2.0
"""The client's side of a connection without input and output.

Feed it the bytes that arrive; it gives back messages. What is to be sent is made by `connect` and by
`northstar.protocol.messages.encode`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from northstar import API_VERSION
from northstar.client.errors import ClientError, PermissionDenied, ProtocolVersion, Refused
from northstar.client.model import Notification
from northstar.names import Version
from northstar.protocol import messages
from northstar.protocol.framing import LineBuffer

_VERSION = Version.parse(API_VERSION)


class ClientProtocol:
    """State of a connection: what has arrived and was not asked for yet."""

    def __init__(self) -> None:
        self.notifications: deque[Notification] = deque()
        self.responses: deque[Any] = deque()
        self.established = False
        self._lines = LineBuffer(0)

    @staticmethod
    def connect(notifications: bool) -> bytes:
        """The first line to send."""
        return messages.encode(messages.Connect(_VERSION, notifications))

    def feed(self, data: bytes) -> list[bytes]:
        """Take received bytes; the complete lines among them. Raises ClientError, ProtocolError."""
        self._lines.feed(data)
        lines = []
        while (line := self._lines.next_line()) is not None:
            lines.append(line)
            self._take(messages.decode_server(line))
        return lines

    def _take(self, message: messages.ServerMessage) -> None:
        if message.kind == "response":
            self.responses.append(message.value)
        elif message.kind == "notification":
            self.notifications.append(Notification.from_wire(message.value))
        elif message.kind == "connect_ack":
            self.established = True
        elif message.value == "permission_denied":
            raise PermissionDenied("notifications")
        else:
            raise ProtocolVersion(message.value["invalid_protocol_version"]["version"])


def result(response: Any, kind: str) -> Any:
    """The value of a response of a kind. Raises PermissionDenied, Refused, ClientError."""
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
        error = value["error"]
        raise Refused(error["error"])
    return value["ok"]
