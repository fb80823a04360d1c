# SPDX-License-Identifier: Apache-2.0
"""Lines of the console protocol.

What the server sends is built from JSON values, as its parts come from many places; `decode_server` gives
them back to a client.
"""

from __future__ import annotations

import json

from northstar.errors import ProtocolError
from northstar.namedtuple import NamedTuple
from northstar.protocol import requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.names import Version

NOT_A_MESSAGE = "data did not match any variant of untagged enum Message"

_from_json = json.JSONDecoder().decode
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _line(value: Any) -> bytes:
    # File names need not be UTF-8; a message about one must be.
    return _to_json(value).encode(errors="replace") + b"\n"


def encode(message: requests.Connect | requests.Request) -> bytes:
    """The line of a client's message."""
    return _line({"connect" if isinstance(message, requests.Connect) else "request": message.wire()})


def connect_ack() -> bytes:
    """The connection is established."""
    return b'{"connect_ack":null}\n'


def connect_nack_version(version: Version) -> bytes:
    """The client's version is too old; `version` is the server's."""
    return _line({"connect_nack": {"invalid_protocol_version": {"version": str(version)}}})


def connect_nack_permission() -> bytes:
    """Notifications are not permitted."""
    return _line({"connect_nack": "permission_denied"})


def response(value: Any) -> bytes:
    """A response."""
    return _line({"response": value})


def notification(value: Any) -> bytes:
    """A notification."""
    return _line({"notification": value})


class ServerMessage(NamedTuple):
    """What a server sent: the envelope's name and its value."""

    kind: str
    value: Any


def decode_server(line: bytes) -> ServerMessage:
    """The message in a line of a server; raises ProtocolError."""
    try:
        value = _from_json(line.decode())
    except ValueError as error:
        raise ProtocolError(f"invalid JSON: {error}") from None
    if isinstance(value, dict) and len(value) == 1:
        ((kind, body),) = value.items()
        if kind in ("connect_ack", "connect_nack", "response", "notification"):
            return ServerMessage(kind, body)
    raise ProtocolError(NOT_A_MESSAGE)
