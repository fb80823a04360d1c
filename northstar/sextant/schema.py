# SPDX-License-Identifier: Apache-2.0
"""JSON schema (2020-12) of manifests in JSON, generated from `northstar.manifest.model`.

Editors check and complete manifests with it. What a schema cannot say (limits in bytes, overlapping
mounts) is left to `sextant pack`. In YAML the variants with a body are written with tags; there the
schema fits what a tag-aware editor makes of them.
"""

from __future__ import annotations

import types
import typing
from typing import Any

from northstar.kernel.capabilities import NAMES as CAPABILITIES
from northstar.manifest import model
from northstar.names import Version, VersionReq
from northstar.sextant import extensionschema
from northstar.sizes import MAX_U64

Schema = dict[str, Any]

MAX_U16, MAX_U32 = (1 << 16) - 1, (1 << 32) - 1

_TEXT: Schema = {"type": "string", "pattern": "^[^\\u0000]*$"}
_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]*$", "maxLength": 1024}
_U64: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_U64}
_U32: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_U32}
_OWNER: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_U32 - 1}
_ID: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_U16}
_CONTEXT: Schema = {"type": "string", "pattern": "^[A-Za-z0-9:_]{1,65535}$"}
_NICE: Schema = {"type": "integer", "minimum": -20, "maximum": 19}
_PRIORITY: Schema = {"type": "integer", "minimum": 1, "maximum": 99}


def schema() -> Schema:
    """The schema of a manifest."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Northstar manifest",
        **_struct(model.Manifest),
    }


def fields() -> list[str]:
    """Paths of all fields: `name`, `mounts.bind`, `mounts.bind.host`, `cgroups.memory.attrs` ...

    For maps and lists those of their elements.
    """
    return sorted(_paths(schema(), ""))


# --- from types to schemas


def _struct(kind: Any) -> Schema:
    hints = typing.get_type_hints(kind, localns={"Any": typing.Any})
    name = kind.__name__
    return {
        **({} if kind is model.Manifest else {"description": kind.__doc__}),
        "type": "object",
        "properties": {key: _OVERRIDES.get((name, key)) or _of(hint) for key, hint in hints.items()},
        **({"required": _REQUIRED[name]} if name in _REQUIRED else {}),
        **({} if kind in _LENIENT else {"additionalProperties": False}),
    }


def _of(hint: Any) -> Schema:
    """The schema of a type; optional ones may be absent, which is no matter of their type."""
    if isinstance(hint, types.UnionType):
        (hint,) = (member for member in typing.get_args(hint) if member is not types.NoneType)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if origin in (tuple, frozenset):
        unique = {"uniqueItems": True} if origin is frozenset else {}
        return {"type": "array", "items": _of(arguments[0]), **unique}
    return _struct(hint)


def _enum(values: typing.Iterable[str]) -> Schema:
    return {"enum": list(values)}


def _object(properties: Schema, required: list[str], description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _variant(name: str, body: Schema) -> Schema:
    """An externally tagged variant: `{"name": body}`."""
    return {"type": "object", "properties": {name: body}, "required": [name], "additionalProperties": False}


# --- what the types do not say

_PLAIN: dict[Any, Schema] = {
    Any: {},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    str: _TEXT,
    Version: _TEXT,
    VersionReq: _TEXT,
}

_LENIENT = (
    model.Cgroups,
    model.Blkio,
    model.Cpu,
    model.Memory,
    model.Pids,
    model.WeightDevice,
    model.ThrottleDevice,
)
"""Unknown keys are ignored in these."""

_REQUIRED = {
    "Manifest": ["name", "version", "uid", "gid"],
    "Console": ["permissions"],
    "Io": ["stdout", "stderr"],
    "Socket": ["type", "mode"],
    "Blkio": [name for name in model.Blkio._fields if name.endswith("_device")],
    "Pids": ["max"],
    "WeightDevice": ["major", "minor"],
    "ThrottleDevice": list(model.ThrottleDevice._fields),
}

_WORD = "|".join(model.MOUNT_OPTIONS)
_OPTIONS: Schema = {
    "type": "string",
    "description": "Words separated by commas: " + ", ".join(model.MOUNT_OPTIONS),
    "pattern": f"^ *(({_WORD}) *(, *({_WORD}) *)*)?$",
}

_BODIES: dict[str, tuple[Any, Schema]] = {
    "bind": (model.Bind, {"host": _TEXT, "options": _OPTIONS}),
    "dev": (model.Dev, {}),
    "persist": (model.Persist, {}),
    "proc": (model.Proc, {}),
    "resource": (
        model.Resource,
        {"name": _NAME, "version": _TEXT, "dir": {"type": "string", "pattern": "^/"}, "options": _OPTIONS},
    ),
    "sockets": (model.Sockets, {}),
    "sysfs": (model.Sysfs, {}),
    "tmpfs": (model.Tmpfs, {"size": {"anyOf": [_U64, {"type": "string", "pattern": "^[+]?[0-9]"}]}}),
}

_MOUNTS: Schema = {
    "type": "object",
    "additionalProperties": {
        "oneOf": [
            _object(
                {"type": {"const": name}, **keys},
                ["type", *(key for key in keys if key != "options")],
                kind.__doc__,
            )
            for name, (kind, keys) in _BODIES.items()
        ]
    },
}

_POLICY: Schema = {
    "oneOf": [
        *(_variant(name, _object({"nice": _NICE}, ["nice"], "")) for name in ("other", "batch")),
        *(
            _variant(name, _object({"priority": _PRIORITY}, ["priority"], ""))
            for name in ("fifo", "round_robin")
        ),
        _enum(["idle", "deadline"]),
    ]
}

_RULE: Schema = {
    "oneOf": [
        {"const": "any"},
        _variant(
            "args",
            _object(
                {
                    "index": {"type": "integer", "minimum": 0, "maximum": 5},
                    "values": {"type": "array", "items": _U64},
                    "mask": _U64,
                },
                ["index"],
                model.ArgRule.__doc__ or "",
            ),
        ),
    ]
}

_OVERRIDES: dict[tuple[str, str], Schema] = {
    ("Manifest", "name"): _NAME,
    ("Manifest", "version"): {"type": "string", "pattern": extensionschema.VERSION_PATTERN},
    ("Manifest", "init"): {**_TEXT, "minLength": 1, "maxLength": 4096},
    ("Manifest", "env"): {"type": "object", "additionalProperties": _TEXT, "maxProperties": 64},
    ("Manifest", "uid"): _ID,
    ("Manifest", "gid"): _ID,
    ("Manifest", "sched"): {"type": "object", "properties": {"policy": _POLICY}, "required": ["policy"]},
    ("Manifest", "mounts"): _MOUNTS,
    ("Manifest", "autostart"): _enum(model.AUTOSTARTS),
    ("Manifest", "network"): {"oneOf": [{"const": "host"}, _variant("namespace", _TEXT)]},
    ("Manifest", "capabilities"): {"type": "array", "items": _enum(CAPABILITIES), "uniqueItems": True},
    ("Manifest", "suppl_groups"): {"type": "array", "items": _TEXT, "uniqueItems": True, "maxItems": 64},
    ("Manifest", "rlimits"): {
        "type": "object",
        "properties": {
            name: {"type": "object", "properties": {"soft": _U64, "hard": _U64}} for name in model.RLIMITS
        },
        "additionalProperties": False,
    },
    ("Manifest", "custom"): extensionschema.schema(),
    ("Console", "permissions"): {
        "oneOf": [{"const": "full"}, {"type": "array", "items": _enum(model.PERMISSIONS)}]
    },
    ("Io", "stdout"): _enum(model.OUTPUTS),
    ("Io", "stderr"): _enum(model.OUTPUTS),
    ("Socket", "type"): _enum(model.SOCKET_TYPES),
    ("Socket", "mode"): _U32,
    ("Socket", "uid"): _OWNER,
    ("Socket", "gid"): _OWNER,
    ("Seccomp", "profile"): _enum(["default"]),
    ("Seccomp", "allow"): {"type": "object", "additionalProperties": _RULE},
    ("Selinux", "mount_context"): _CONTEXT,
    ("Selinux", "exec"): _CONTEXT,
}


# --- fields


def _paths(node: Schema, path: str) -> set[str]:
    found = {path} if path else set()
    for name, child in node.get("properties", {}).items():
        if name != "type" or "const" not in child:
            found |= _paths(child, f"{path}.{name}".lstrip("."))
    if isinstance(node.get("additionalProperties"), dict):
        found |= _paths(node["additionalProperties"], path)
    if "items" in node:
        found |= _paths(node["items"], path)
    for child in node.get("oneOf", ()):
        kind = child.get("properties", {}).get("type", {}).get("const")
        found |= _paths(child, f"{path}.{kind}" if kind else path)
    return found


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=2))
