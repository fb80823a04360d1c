# SPDX-License-Identifier: Apache-2.0
"""The manifest as JSON data: the form of `inspect`, and the text that goes into a package.

Upstream's client refuses unknown keys here, so exactly its keys are emitted, and absent values are left out
where it leaves them out.
"""

from __future__ import annotations

import json

from northstar.manifest import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from northstar.manifest.model import Manifest

_MOUNT_TYPES: dict[type, str] = {
    model.Bind: "bind",
    model.Dev: "dev",
    model.Persist: "persist",
    model.Proc: "proc",
    model.Resource: "resource",
    model.Sockets: "sockets",
    model.Sysfs: "sysfs",
    model.Tmpfs: "tmpfs",
}
_SKIPPED_WHEN_EMPTY = ("args", "env", "mounts", "capabilities", "suppl_groups", "rlimits", "sockets")


def to_text(manifest: Manifest) -> bytes:
    """The manifest as a packer writes it: JSON, which is YAML too and parses a hundred times faster."""
    return json.dumps(to_json(manifest), ensure_ascii=False, indent=1).encode() + b"\n"


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON data, in the order of the fields."""
    data: dict[str, Any] = {"name": manifest.name, "version": str(manifest.version)}
    for field in manifest._fields[2:]:
        value = getattr(manifest, field)
        if field in ("uid", "gid"):
            data[field] = value
        elif value is not None and (value or field not in _SKIPPED_WHEN_EMPTY):
            data[field] = _WRITERS[field](value) if field in _WRITERS else value
    return data


def _console(console: model.Console) -> dict[str, Any]:
    if len(console.permissions) == len(model.PERMISSIONS):
        return {"permissions": "full"}
    return {"permissions": [name for name in model.PERMISSIONS if name in console.permissions]}


def _sched(sched: model.Sched) -> dict[str, Any]:
    if sched.nice is not None:
        return {"policy": {sched.policy: {"nice": sched.nice}}}
    if sched.priority is not None:
        return {"policy": {sched.policy: {"priority": sched.priority}}}
    return {"policy": sched.policy}


def _mounts(mounts: dict[str, model.Mount]) -> dict[str, Any]:
    return {target: _mount(mount) for target, mount in mounts.items()}


def _mount(mount: model.Mount) -> dict[str, Any]:
    data: dict[str, Any] = {"type": _MOUNT_TYPES[type(mount)]}
    for field, value in zip(mount._fields, mount, strict=True):
        if field == "options":
            if value:
                data[field] = _options(value)
        else:
            data[field] = value if isinstance(value, int) else str(value)
    return data


def _options(options: Any) -> str:
    return ",".join(option for option in model.MOUNT_OPTIONS if option in options)


def _present(record: Any) -> dict[str, Any]:
    """The members of a record that are not None."""
    return {key: value for key, value in zip(record._fields, record, strict=True) if value is not None}


def _controller(record: Any) -> dict[str, Any]:
    data = _present(record)
    if not data.get("attrs", True):
        del data["attrs"]
    for key, value in data.items():
        if isinstance(value, tuple):
            data[key] = [_present(device) for device in value]
    return data


def _cgroups(cgroups: model.Cgroups) -> dict[str, Any]:
    return {key: value if key == "parent" else _controller(value) for key, value in _present(cgroups).items()}


def _network(network: model.NetworkHost | model.NetworkNamespace) -> Any:
    return {"namespace": network.name} if isinstance(network, model.NetworkNamespace) else "host"


def _seccomp(seccomp: model.Seccomp) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if seccomp.profile is not None:
        data["profile"] = seccomp.profile
    if seccomp.allow is not None:
        data["allow"] = {
            name: "any" if rule is None else {"args": _present(rule)} for name, rule in seccomp.allow.items()
        }
    return data


_WRITERS: dict[str, Callable[[Any], Any]] = {
    "console": _console,
    "args": list,
    "sched": _sched,
    "mounts": _mounts,
    "cgroups": _cgroups,
    "network": _network,
    "seccomp": _seccomp,
    "selinux": lambda selinux: selinux._asdict(),
    "capabilities": sorted,
    "suppl_groups": list,
    "rlimits": lambda limits: {name: limit._asdict() for name, limit in limits.items()},
    "sockets": lambda sockets: {name: _present(socket) for name, socket in sockets.items()},
    "io": lambda io: io._asdict(),
}
