# SPDX-License-Identifier: Apache-2.0
"""The messages of the console protocol.

Requests are records with a method `wire`, the JSON value of the request. What the server sends is built from
JSON values, as its parts come from many places; `decode_server` gives them back to a client.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from northstar.errors import ProtocolError
from northstar.names import Container, Version, check_name
from northstar.protocol.supervision import MAX_SECONDS, UNTIL
from northstar.protocol.supervision import Boot as Boot
from northstar.protocol.supervision import Reset as Reset
from northstar.protocol.supervision import Stop as Stop
from northstar.protocol.supervision import Wait as Wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

MIN_I32, MAX_I32 = -(1 << 31), (1 << 31) - 1
MAX_U64 = (1 << 64) - 1
TOKEN_SIZE = 40
MAX_DEPTH = 64
"""Levels of objects and arrays in a line."""
MAX_VALUES = 1 << 16
"""Values in a line, roughly. No request that is carried out has that many, and decoding takes its time."""
MAX_KINDS = 64
MAX_SIGNAL = 31
MAX_CONTAINERS = 1024
"""Containers in one request."""

NOT_A_MESSAGE = "data did not match any variant of untagged enum Message"


class Connect(NamedTuple):
    """First message of a client."""

    version: Version
    subscribe_notifications: bool
    notifications: tuple[str, ...] = ()
    """Kinds that upstream does not have, and that are sent only to those who name them."""

    def wire(self) -> Any:
        """JSON value."""
        value = {"version": str(self.version), "subscribe_notifications": self.subscribe_notifications}
        return value | {"notifications": list(self.notifications)} if self.notifications else value


class Exec(NamedTuple):
    """Run a command in a running container. Its descriptors 0, 1 and 2 travel with the line."""

    container: Container
    command: tuple[str, ...]
    environment: dict[str, str]
    terminal: bool
    """Whether descriptor 0 is a terminal, which becomes the controlling one of the command."""

    def wire(self) -> Any:
        """JSON value."""
        return {
            "exec": {
                "container": str(self.container),
                "command": list(self.command),
                "environment": self.environment,
                "terminal": self.terminal,
            }
        }


class Explain(NamedTuple):
    """What a start would do, without doing it. An extension of upstream's protocol."""

    container: Container
    init: str | None = None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012

    def wire(self) -> Any:
        """JSON value."""
        return {"explain": _start_wire(self)}


class Ident(NamedTuple):
    """Who am I?"""

    def wire(self) -> Any:
        """JSON value."""
        return "ident"


class Inspect(NamedTuple):
    """Manifest and state of a container."""

    container: Container

    def wire(self) -> Any:
        """JSON value."""
        return {"inspect": {"container": str(self.container)}}


class Install(NamedTuple):
    """Install a package of `size` bytes, which follow the line."""

    repository: str
    size: int

    def wire(self) -> Any:
        """JSON value."""
        return {"install": {"repository": self.repository, "size": self.size}}


class Kill(NamedTuple):
    """Send a signal."""

    container: Container
    signal: int

    def wire(self) -> Any:
        """JSON value."""
        return {"kill": {"container": str(self.container), "signal": self.signal}}


class List(NamedTuple):
    """All containers."""

    def wire(self) -> Any:
        """JSON value."""
        return "list"


class Logs(NamedTuple):
    """The last output of a container, and notifications about what comes after it if `follow`.

    An extension of upstream's protocol.
    """

    container: Container
    follow: bool = False

    def wire(self) -> Any:
        """JSON value."""
        return {"logs": {"container": str(self.container), "follow": self.follow}}


class Mount(NamedTuple):
    """Mount containers."""

    containers: tuple[Container, ...]

    def wire(self) -> Any:
        """JSON value."""
        return {"mount": {"containers": [str(container) for container in self.containers]}}


class Repositories(NamedTuple):
    """All repositories."""

    def wire(self) -> Any:
        """JSON value."""
        return "repositories"


class Shutdown(NamedTuple):
    """End the runtime."""

    def wire(self) -> Any:
        """JSON value."""
        return "shutdown"


class Start(NamedTuple):
    """Start a container, with another command if given."""

    container: Container
    init: str | None = None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012

    def wire(self) -> Any:
        """JSON value."""
        return {"start": _start_wire(self)}


def _start_wire(request: Start | Explain) -> Any:
    return {
        "container": str(request.container),
        "init": request.init,
        "arguments": list(request.arguments),
        "environment": request.environment,
    }


class TokenCreate(NamedTuple):
    """A token of the caller for `target`."""

    target: str
    shared: bytes

    def wire(self) -> Any:
        """JSON value."""
        return {"token_create": {"target": self.target, "shared": to_base64(self.shared)}}


class TokenVerify(NamedTuple):
    """Whether `token` was made by `user` for the caller."""

    token: bytes
    user: str
    shared: bytes

    def wire(self) -> Any:
        """JSON value."""
        token, shared = to_base64(self.token), to_base64(self.shared)
        return {"token_verify": {"token": token, "user": self.user, "shared": shared}}


class Umount(NamedTuple):
    """Umount containers."""

    containers: tuple[Container, ...]

    def wire(self) -> Any:
        """JSON value."""
        return {"umount": {"containers": [str(container) for container in self.containers]}}


class Uninstall(NamedTuple):
    """Remove a package, with its persistent data if `wipe`."""

    container: Container
    wipe: bool

    def wire(self) -> Any:
        """JSON value."""
        return {"uninstall": {"container": str(self.container), "wipe": self.wipe}}


Request = (
    Boot
    | Exec
    | Explain
    | Ident
    | Inspect
    | Install
    | Kill
    | List
    | Logs
    | Mount
    | Repositories
    | Reset
    | Shutdown
    | Start
    | Stop
    | TokenCreate
    | TokenVerify
    | Umount
    | Uninstall
    | Wait
)


# --- scalar types


class _Invalid(Exception):
    """Valid JSON, but no valid message."""


def to_base64(data: bytes) -> str:
    """Standard alphabet, padded."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Canonical base64 with padding only; ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"invalid base64: {error}") from None
    if to_base64(data) != text:
        raise ValueError("base64 is not canonical")
    return data


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _Invalid
    return value


def _text(value: Any) -> str:
    if "\0" in _string(value):
        raise _Invalid
    return str(value)


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Invalid
        return value

    return read


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Invalid
    return value


def _flag(value: Any) -> bool:
    """A boolean that may be missing."""
    return value is not None and _boolean(value)


def _name(value: Any) -> str:
    return check_name(_string(value))


def _version(value: Any) -> Version:
    return Version.parse(_string(value))


def _container(value: Any) -> Container:
    return Container.parse(_string(value))


def _containers(value: Any) -> tuple[Container, ...]:
    if not isinstance(value, list):
        raise _Invalid
    if len(value) > MAX_CONTAINERS:
        raise ProtocolError(f"more than {MAX_CONTAINERS} containers in a request")
    return tuple(_container(item) for item in value)


def _bytes(value: Any) -> bytes:
    return from_base64(_string(value))


def _token(value: Any) -> bytes:
    token = _bytes(value)
    if len(token) != TOKEN_SIZE:
        raise _Invalid
    return token


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _Invalid
    return tuple(_text(item) for item in value)


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _Invalid
    return {_text(key): _text(item) for key, item in value.items()}


def _seconds(value: Any) -> float | None:
    """A time that may be missing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        raise _Invalid
    return float(value)


def _optional_signal(value: Any) -> int | None:
    return None if value is None else _integer(1, MAX_SIGNAL)(value)


def _until(value: Any) -> str:
    if value not in UNTIL:
        raise _Invalid
    return str(value)


def _kinds(value: Any) -> tuple[str, ...]:
    """Names of notifications; those that are not known are fine, they never come."""
    kinds = () if value is None else _texts(value)
    if len(kinds) > MAX_KINDS:
        raise _Invalid
    return kinds


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


# --- decoding of what a client sends

_UNITS: dict[str, Any] = {
    "boot": Boot(),
    "ident": Ident(),
    "list": List(),
    "repositories": Repositories(),
    "shutdown": Shutdown(),
}
_START_FIELDS: dict[str, Callable[[Any], Any]] = {
    "container": _container,
    "init": _optional_text,
    "arguments": _texts,
    "environment": _environment,
}
_STRUCTS: dict[str, tuple[Callable[..., Any], dict[str, Callable[[Any], Any]]]] = {
    "boot": (Boot, {"wait": _flag, "timeout": _seconds}),
    "exec": (
        Exec,
        {
            "container": _container,
            "command": _texts,
            "environment": _environment,
            "terminal": _boolean,
        },
    ),
    "explain": (Explain, _START_FIELDS),
    "inspect": (Inspect, {"container": _container}),
    "install": (Install, {"repository": _string, "size": _integer(0, MAX_U64)}),
    "kill": (Kill, {"container": _container, "signal": _integer(MIN_I32, MAX_I32)}),
    "logs": (Logs, {"container": _container, "follow": _flag}),
    "mount": (Mount, {"containers": _containers}),
    "reset": (Reset, {"container": _container}),
    "start": (Start, _START_FIELDS),
    "stop": (Stop, {"container": _container, "signal": _optional_signal, "timeout": _seconds}),
    "token_create": (TokenCreate, {"target": _name, "shared": _bytes}),
    "token_verify": (TokenVerify, {"token": _token, "user": _name, "shared": _bytes}),
    "umount": (Umount, {"containers": _containers}),
    "uninstall": (Uninstall, {"container": _container, "wipe": _boolean}),
    "wait": (Wait, {"containers": _containers, "until": _until, "timeout": _seconds}),
}
_CONNECT: tuple[Callable[..., Any], dict[str, Callable[[Any], Any]]] = (
    Connect,
    {"version": _version, "subscribe_notifications": _boolean, "notifications": _kinds},
)
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ADDED = ("notifications",)
"""Fields of ours in messages of upstream."""
_OPTIONAL = ("init", "follow", "wait", "timeout", "signal", *_ADDED)
_ENVELOPES = ("connect", "connect_ack", "connect_nack", "request", "response", "notification")
_FREQUENT: dict[bytes, Any] = {
    json.dumps({"request": name}, separators=(",", ":")).encode(): unit for name, unit in _UNITS.items()
}


class _Members(dict[str, Any]):
    """An object whose text has keys more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated: set[str] = set()
        for name, _ in pairs:
            (self.repeated if name in seen else seen).add(name)


def decode_client(line: bytes) -> Connect | Request | ServerMessage:
    """The message in a line of a client; raises ProtocolError.

    A client may also send what only a server should; the first envelope of `_ENVELOPES` that fits counts.
    """
    known = _FREQUENT.get(line)
    if known is not None:
        request: Request = known
        return request
    value = _parse(line)
    if not isinstance(value, dict):
        raise ProtocolError(NOT_A_MESSAGE)
    for envelope in _ENVELOPES:
        if envelope not in value or _repeated(value, envelope):
            continue
        try:
            return _message(envelope, value[envelope])
        except (_Invalid, ValueError):
            continue
    raise ProtocolError(NOT_A_MESSAGE)


def _message(envelope: str, body: Any) -> Connect | Request | ServerMessage:
    if envelope == "connect":
        connect: Connect = _struct(_CONNECT, body)
        return connect
    if envelope == "request":
        return _request(body)
    if envelope == "connect_ack" and body is not None:
        raise _Invalid
    if envelope == "connect_nack":
        _check_nack(body)
    return ServerMessage(envelope, body)


def _check_nack(body: Any) -> None:
    if body in ("permission_denied", {"permission_denied": None}):
        return
    if not isinstance(body, dict) or list(body) != ["invalid_protocol_version"]:
        raise _Invalid
    _struct((lambda version: version, {"version": _version}), body["invalid_protocol_version"])


def _repeated(value: Any, name: str) -> bool:
    return isinstance(value, _Members) and name in value.repeated


def _parse(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("Unable to decode input as UTF8") from None
    # What is within strings is counted, too: that is quick, and strings full of commas are rare.
    if sum(map(text.count, ",:[{")) > MAX_VALUES:
        raise ProtocolError(f"more than {MAX_VALUES} values in a line")
    try:
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_constant)
    except RecursionError:
        raise ProtocolError(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise ProtocolError(f"invalid JSON: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if "\\u" in text:
        _check_surrogates(text, value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        members = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list)))
        level = [member for inner in members for member in inner]
    if any(isinstance(v, (dict, list)) for v in level):
        raise ProtocolError(f"nested deeper than {MAX_DEPTH} levels")


def _check_surrogates(text: str, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ProtocolError("lone surrogate in an escape") from None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Members(pairs)


def _request(value: Any) -> Request:
    if isinstance(value, str):
        if value not in _UNITS:
            raise _Invalid
        unit: Request = _UNITS[value]
        return unit
    if not isinstance(value, dict) or len(value) != 1 or isinstance(value, _Members):
        raise _Invalid
    ((name, body),) = value.items()
    if name in _UNITS and body is None:
        unit = _UNITS[name]
        return unit
    if name not in _STRUCTS:
        raise _Invalid
    request: Request = _struct(_STRUCTS[name], body)
    return request


def _struct(shape: tuple[Callable[..., Any], dict[str, Callable[[Any], Any]]], body: Any) -> Any:
    """A record from an object, or from an array in the order of its fields."""
    build, fields = shape
    if isinstance(body, list):
        if len(body) not in (len(fields), len(fields) - sum(name in _ADDED for name in fields)):
            raise _Invalid
        return build(*(read(value) for read, value in zip(fields.values(), body, strict=False)))
    if not isinstance(body, dict):
        raise _Invalid
    values = []
    for name, read in fields.items():
        if (name not in body and name not in _OPTIONAL) or _repeated(body, name):
            raise _Invalid
        values.append(read(body.get(name)))
    return build(*values)


# --- encoding


def _line(value: Any) -> bytes:
    # File names need not be UTF-8; a message about one must be.
    return _to_json(value).encode(errors="replace") + b"\n"


def encode(message: Connect | Request) -> bytes:
    """The line of a client's message."""
    return _line({"connect" if isinstance(message, Connect) else "request": message.wire()})


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
        value = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"invalid JSON: {error}") from None
    if isinstance(value, dict) and len(value) == 1:
        ((kind, body),) = value.items()
        if kind in ("connect_ack", "connect_nack", "response", "notification"):
            return ServerMessage(kind, body)
    raise ProtocolError(NOT_A_MESSAGE)
