# SPDX-License-Identifier: Apache-2.0
"""From a line of a client to the record of its message."""

from __future__ import annotations

import json

from northstar.errors import ProtocolError
from northstar.protocol import fields, requests
from northstar.protocol.messages import NOT_A_MESSAGE, ServerMessage
from northstar.sizes import MAX_U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MIN_I32, MAX_I32 = -(1 << 31), (1 << 31) - 1
MAX_DEPTH = 64
"""Levels of objects and arrays in a line."""
MAX_VALUES = 1 << 16
"""Values in a line, roughly. No request that is carried out has that many, and decoding takes its time."""

_UNITS: dict[str, Any] = {
    "boot": requests.Boot(),
    "ident": requests.Ident(),
    "list": requests.List(),
    "problems": requests.Problems(),
    "repositories": requests.Repositories(),
    "shutdown": requests.Shutdown(),
}
_START_FIELDS: dict[str, Callable[[Any], Any]] = {
    "container": fields.container,
    "init": fields.optional_text,
    "arguments": fields.texts,
    "environment": fields.environment,
}
_STRUCTS: dict[str, tuple[Callable[..., Any], dict[str, Callable[[Any], Any]]]] = {
    "boot": (requests.Boot, {"wait": fields.flag, "timeout": fields.optional_seconds}),
    "exec": (
        requests.Exec,
        {
            "container": fields.container,
            "command": fields.texts,
            "environment": fields.environment,
            "terminal": fields.boolean,
        },
    ),
    "explain": (requests.Explain, _START_FIELDS),
    "inspect": (requests.Inspect, {"container": fields.container}),
    "install": (requests.Install, {"repository": fields.string, "size": fields.integer(0, MAX_U64)}),
    "kill": (requests.Kill, {"container": fields.container, "signal": fields.integer(MIN_I32, MAX_I32)}),
    "logs": (requests.Logs, {"container": fields.container, "follow": fields.flag}),
    "mount": (requests.Mount, {"containers": fields.containers}),
    "reset": (requests.Reset, {"container": fields.container}),
    "start": (requests.Start, _START_FIELDS),
    "stop": (
        requests.Stop,
        {
            "container": fields.container,
            "signal": fields.optional_signal,
            "timeout": fields.optional_seconds,
        },
    ),
    "token_create": (requests.TokenCreate, {"target": fields.name, "shared": fields.binary}),
    "token_verify": (
        requests.TokenVerify,
        {"token": fields.token, "user": fields.name, "shared": fields.binary},
    ),
    "umount": (requests.Umount, {"containers": fields.containers}),
    "uninstall": (requests.Uninstall, {"container": fields.container, "wipe": fields.boolean}),
    "update": (
        requests.Update,
        {
            "containers": fields.containers,
            "attempts": fields.count,
            "settle": fields.seconds,
            "allow_downgrade": fields.flag,
            "force": fields.flag,
            "data": fields.word("keep"),
            "reference": fields.word(""),
        },
    ),
    "update_ack": (requests.UpdateAck, {"id": fields.text}),
    "update_cancel": (requests.UpdateCancel, {"id": fields.text}),
    "updates": (requests.Updates, {"follow": fields.flag}),
    "wait": (
        requests.Wait,
        {
            "containers": fields.containers,
            "until": fields.choice(*requests.UNTIL),
            "timeout": fields.optional_seconds,
        },
    ),
}
_CONNECT: tuple[Callable[..., Any], dict[str, Callable[[Any], Any]]] = (
    requests.Connect,
    {"version": fields.version, "subscribe_notifications": fields.boolean, "notifications": fields.kinds},
)
_ADDED = ("notifications",)
"""Fields of ours in messages of upstream, which has arrays without them."""
_ENVELOPES = ("connect", "connect_ack", "connect_nack", "request", "response", "notification")
_FREQUENT: dict[bytes, Any] = {
    json.dumps({"request": name}, separators=(",", ":")).encode(): unit for name, unit in _UNITS.items()
}


class _Members(dict[str, "Any"]):
    """An object whose text has keys more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated: set[str] = set()
        for name, _ in pairs:
            (self.repeated if name in seen else seen).add(name)


def decode_client(line: bytes) -> requests.Connect | requests.Request | ServerMessage:
    """The message in a line of a client; raises ProtocolError.

    A client may also send what only a server should; the first envelope of `_ENVELOPES` that fits counts.
    """
    known = _FREQUENT.get(line)
    if known is not None:
        request: requests.Request = known
        return request
    value = _parse(line)
    if not isinstance(value, dict):
        raise ProtocolError(NOT_A_MESSAGE)
    for envelope in _ENVELOPES:
        if envelope not in value or _repeated(value, envelope):
            continue
        try:
            return _message(envelope, value[envelope])
        except (fields.Invalid, ValueError):
            continue
    raise ProtocolError(NOT_A_MESSAGE)


def _message(envelope: str, body: Any) -> requests.Connect | requests.Request | ServerMessage:
    if envelope == "connect":
        connect: requests.Connect = _struct(_CONNECT, body)
        return connect
    if envelope == "request":
        return _request(body)
    if envelope == "connect_ack" and body is not None:
        raise fields.Invalid
    if envelope == "connect_nack":
        _check_nack(body)
    return ServerMessage(envelope, body)


def _check_nack(body: Any) -> None:
    if body in ("permission_denied", {"permission_denied": None}):
        return
    if not isinstance(body, dict) or list(body) != ["invalid_protocol_version"]:
        raise fields.Invalid
    _struct((lambda version: version, {"version": fields.version}), body["invalid_protocol_version"])


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
        value = _DECODER.decode(text)
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


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant)


def _request(value: Any) -> requests.Request:
    if isinstance(value, str):
        if value not in _UNITS:
            raise fields.Invalid
        unit: requests.Request = _UNITS[value]
        return unit
    if not isinstance(value, dict) or len(value) != 1 or isinstance(value, _Members):
        raise fields.Invalid
    ((name, body),) = value.items()
    if name in _UNITS and body is None:
        unit = _UNITS[name]
        return unit
    if name not in _STRUCTS:
        raise fields.Invalid
    request: requests.Request = _struct(_STRUCTS[name], body)
    return request


def _struct(shape: tuple[Callable[..., Any], dict[str, Callable[[Any], Any]]], body: Any) -> Any:
    """A record from an object, or from an array in the order of its fields."""
    build, readers = shape
    if isinstance(body, list):
        if len(body) not in (len(readers), len(readers) - sum(name in _ADDED for name in readers)):
            raise fields.Invalid
        return build(*(read(value) for read, value in zip(readers.values(), body, strict=False)))
    if not isinstance(body, dict):
        raise fields.Invalid
    values = []
    for name, read in readers.items():
        if _repeated(body, name):
            raise fields.Invalid
        values.append(read(body.get(name)))
    return build(*values)
