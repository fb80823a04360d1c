# SPDX-License-Identifier: Apache-2.0
"""From a tree to a validated manifest."""

from __future__ import annotations

import re

from northstar import names, sizes
from northstar.kernel.capabilities import NAMES as CAPABILITIES
from northstar.manifest import controlgroups, encodings, model, tree, validate
from northstar.manifest.tree import Scalar, fail, integer, is_null, join, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

MAX_INIT = 4096
MAX_GROUPS = 64
MAX_GROUP_NAME = 64
MAX_NETWORK_NAME = 256
MAX_CONTEXT = 65535
MAX_ENV = 64
MAX_ENV_NAME = 64
MAX_ENV_VALUE = 1024
MAX_VALUES = 50
MAX_U16 = (1 << 16) - 1
MAX_U32 = (1 << 32) - 1

_CONTEXT = r"[A-Za-z0-9:_]+"


def parse(data: bytes) -> model.Manifest:
    """The manifest in `data` (YAML, JSON or TOML); raises ManifestError naming field and value."""
    return from_tree(encodings.parse(data))


def from_tree(value: Any) -> model.Manifest:
    """The manifest of a tree as `encodings.parse` makes it; raises ManifestError."""
    manifest = _manifest(value)
    validate.check(manifest)
    return manifest


def _manifest(value: Any) -> model.Manifest:
    members = tree.struct(value, "", model.Manifest._fields)
    for required in ("name", "version", "uid", "gid"):
        if required not in members:
            fail(required, "missing field")

    def optional(key: str, read: Callable[[Any, str], T]) -> T | None:
        return None if is_null(members.get(key)) else read(members[key], key)

    return model.Manifest(
        name=_checked(names.check_name, members["name"], "name"),
        version=_checked(names.Version.parse, members["version"], "version"),
        console=optional("console", _console),
        init=optional("init", _init),
        args=tuple(_strings(members.get("args", []), "args")),
        env=_env(members.get("env", {}), "env"),
        uid=integer(members["uid"], "uid", 1, MAX_U16),
        gid=integer(members["gid"], "gid", 1, MAX_U16),
        sched=optional("sched", _sched),
        mounts=_mounts(members.get("mounts", {}), "mounts"),
        autostart=optional("autostart", lambda v, path: tree.choice(v, path, model.AUTOSTARTS)),
        cgroups=optional("cgroups", controlgroups.read),
        network=optional("network", _network),
        seccomp=optional("seccomp", _seccomp),
        selinux=optional("selinux", _selinux),
        capabilities=_capabilities(members.get("capabilities", []), "capabilities"),
        suppl_groups=_groups(members.get("suppl_groups", []), "suppl_groups"),
        rlimits=_rlimits(members.get("rlimits", {}), "rlimits"),
        sockets=_sockets(members.get("sockets", {}), "sockets"),
        io=optional("io", _io),
        custom=optional("custom", tree.plain),
    )


def _checked(convert: Callable[[str], T], value: Any, path: str, *, resolved: bool = False) -> T:
    try:
        return convert(string(value, path, resolved=resolved))
    except ValueError as error:
        fail(path, str(error))


def _strings(value: Any, path: str) -> list[str]:
    return [string(item, f"{path}[{index}]") for index, item in enumerate(tree.sequence(value, path))]


def _check_distinct(items: list[str], path: str) -> None:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item in seen:
            fail(f"{path}[{index}]", f"duplicate element {tree.show(item)}")
        seen.add(item)


def _limited(text: str, path: str, low: int, high: int) -> str:
    size = len(text.encode())
    if not low <= size <= high:
        fail(path, f"{tree.show(text)} has {size} bytes, {low}..{high} are allowed")
    return text


def _init(value: Any, path: str) -> str:
    return _limited(string(value, path), path, 1, MAX_INIT)


def _console(value: Any, path: str) -> model.Console:
    members = tree.struct(value, path, ("permissions",))
    if "permissions" not in members:
        fail(join(path, "permissions"), "missing field")
    permissions, path = members["permissions"], join(path, "permissions")
    if isinstance(permissions, list):
        chosen = [
            tree.choice(item, f"{path}[{index}]", model.PERMISSIONS) for index, item in enumerate(permissions)
        ]
        return model.Console(frozenset(chosen))
    if isinstance(permissions, str | Scalar) and string(permissions, path).strip() == "full":
        return model.Console(frozenset(model.PERMISSIONS))
    fail(path, f"'full' or a list of permissions is expected, not {tree.show(permissions)}")


def _env(value: Any, path: str) -> dict[str, str]:
    members = tree.mapping(value, path, last_wins=True)
    if len(members) > MAX_ENV:
        fail(path, f"{len(members)} variables, at most {MAX_ENV} are allowed")
    for name in members:
        _limited(string(name, path), join(path, name), 0, MAX_ENV_NAME)
    return {
        name: _limited(string(text, join(path, name)), join(path, name), 0, MAX_ENV_VALUE)
        for name, text in members.items()
    }


def _sched(value: Any, path: str) -> model.Sched:
    members = tree.struct(value, path, ("policy",), strict=False)
    if "policy" not in members:
        fail(join(path, "policy"), "missing field")
    path = join(path, "policy")
    policy, body = tree.variant(members["policy"], path)
    if policy in ("other", "batch"):
        nice = _body(body, join(path, policy), "nice")
        return model.Sched(policy, nice=integer(nice, join(path, f"{policy}.nice"), -20, 19))
    if policy in ("fifo", "round_robin"):
        priority = _body(body, join(path, policy), "priority")
        return model.Sched(policy, priority=integer(priority, join(path, f"{policy}.priority"), 1, 99))
    return model.Sched(tree.choice(members["policy"], path, model.POLICIES))


def _body(body: Any, path: str, key: str) -> Any:
    members = tree.struct(body, path, (key,), strict=False) if body is not None else {}
    if key not in members:
        fail(join(path, key), "missing field")
    return members[key]


def _network(value: Any, path: str) -> model.NetworkHost | model.NetworkNamespace:
    kind, body = tree.variant(value, path)
    if kind == "namespace" and body is not None:
        name = _limited(string(body, path), path, 0, MAX_NETWORK_NAME)
        return model.NetworkNamespace(name)
    tree.choice(value, path, ("host",))
    return model.NetworkHost()


def _seccomp(value: Any, path: str) -> model.Seccomp:
    members = tree.struct(value, path, ("profile", "allow"))
    profile = members.get("profile")
    listed = members.get("allow")
    allow = None
    if not is_null(listed):
        calls = tree.mapping(listed, join(path, "allow"), last_wins=True)
        allow = {string(name, path): _rule(rule, join(path, f"allow.{name}")) for name, rule in calls.items()}
    return model.Seccomp(
        None if is_null(profile) else tree.choice(profile, join(path, "profile"), ("default",)), allow
    )


def _rule(value: Any, path: str) -> model.ArgRule | None:
    kind, body = tree.variant(value, path)
    if kind != "args" or body is None:
        tree.choice(value, path, ("any", "args"))
        if kind == "args":
            fail(path, "args needs index and values or mask")
        return None
    members = tree.struct(body, path, ("index", "values", "mask"))
    if "index" not in members:
        fail(join(path, "index"), "missing field")
    index = integer(members["index"], join(path, "index"), 0, 5)
    values = None
    if not is_null(members.get("values")):
        items = tree.sequence(members["values"], join(path, "values"))
        if len(items) > MAX_VALUES:
            fail(join(path, "values"), f"{len(items)} values, at most {MAX_VALUES} are allowed")
        values = tuple(integer(item, join(path, "values"), 0, sizes.MAX_U64) for item in items)
    mask = None
    if not is_null(members.get("mask")):
        mask = integer(members["mask"], join(path, "mask"), 0, sizes.MAX_U64)
    if values is None and mask is None:
        fail(path, "neither values nor mask")
    return model.ArgRule(index, values, mask)


def _selinux(value: Any, path: str) -> model.Selinux:
    members = tree.struct(value, path, model.Selinux._fields)

    def context(key: str) -> str | None:
        if is_null(members.get(key)):
            return None
        text = _limited(string(members[key], join(path, key)), join(path, key), 1, MAX_CONTEXT)
        if not re.fullmatch(_CONTEXT, text, re.ASCII):
            fail(join(path, key), f"{text!r} has other characters than letters, digits, : and _")
        return text

    return model.Selinux(context("mount_context"), context("exec"))


def _capabilities(value: Any, path: str) -> frozenset[str]:
    chosen = [
        tree.choice(item, f"{path}[{index}]", CAPABILITIES)
        for index, item in enumerate(tree.sequence(value, path))
    ]
    _check_distinct(chosen, path)
    return frozenset(chosen)


def _groups(value: Any, path: str) -> tuple[str, ...]:
    items = _strings(value, path)
    if len(items) > MAX_GROUPS:
        fail(path, f"{len(items)} groups, at most {MAX_GROUPS} are allowed")
    _check_distinct(items, path)
    return tuple(_limited(item, f"{path}[{index}]", 0, MAX_GROUP_NAME) for index, item in enumerate(items))


def _rlimits(value: Any, path: str) -> dict[str, model.Rlimit]:
    limits = {}
    for name, limit in tree.mapping(value, path).items():
        tree.choice(name, path, model.RLIMITS)
        members = tree.struct(limit, join(path, name), ("soft", "hard"), strict=False)
        soft, hard = (
            None
            if is_null(members.get(key))
            else integer(members[key], join(path, f"{name}.{key}"), 0, sizes.MAX_U64)
            for key in ("soft", "hard")
        )
        limits[name] = model.Rlimit(soft, hard)
    return limits


def _sockets(value: Any, path: str) -> dict[str, model.Socket]:
    members = tree.mapping(value, path, last_wins=True)
    return {string(name, path): _socket(socket, join(path, name)) for name, socket in members.items()}


def _socket(value: Any, path: str) -> model.Socket:
    members = tree.struct(value, path, model.Socket._fields)
    for required in ("type", "mode"):
        if required not in members:
            fail(join(path, required), "missing field")

    def number(key: str) -> int | None:
        # The last one means "unchanged" in chown(2).
        return None if is_null(members.get(key)) else integer(members[key], join(path, key), 0, MAX_U32 - 1)

    passcred = members.get("passcred")
    return model.Socket(
        tree.choice(members["type"], join(path, "type"), model.SOCKET_TYPES),
        integer(members["mode"], join(path, "mode"), 0, MAX_U32),
        number("uid"),
        number("gid"),
        None if is_null(passcred) else tree.boolean(passcred, join(path, "passcred")),
    )


def _io(value: Any, path: str) -> model.Io:
    members = tree.struct(value, path, model.Io._fields)
    for required in model.Io._fields:
        if required not in members:
            fail(join(path, required), "missing field")
    return model.Io(*(tree.choice(members[key], join(path, key), model.OUTPUTS) for key in model.Io._fields))


# --- mounts

_MOUNT_KEYS: dict[str, tuple[str, ...]] = {
    "bind": ("type", "host", "options"),
    "resource": ("type", "name", "version", "dir", "options"),
    "tmpfs": ("type", "size"),
    "dev": ("type",),
    "persist": ("type",),
    "proc": ("type",),
    "sockets": ("type",),
    "sysfs": ("type",),
}
_BARE: dict[str, model.Mount] = {
    "dev": model.Dev(),
    "persist": model.Persist(),
    "proc": model.Proc(),
    "sockets": model.Sockets(),
    "sysfs": model.Sysfs(),
}


def _mounts(value: Any, path: str) -> dict[str, model.Mount]:
    mounts: dict[str, model.Mount] = {}
    for text, body in tree.mapping(value, path).items():
        mount = _mount(body, join(path, text))
        target = _target(string(text, path), mount, join(path, text))
        if target in mounts:
            fail(join(path, text), f"duplicate mount point {target}")
        mounts[target] = mount
    return mounts


def _target(text: str, mount: model.Mount, path: str) -> str:
    """The mount point as everything after parsing sees it."""
    if isinstance(mount, model.Bind) and not text.startswith("/"):
        fail(path, "the mount point of a bind has to be absolute")
    target = model.mount_point(text)
    if ".." in target.split("/"):
        fail(path, "the mount point contains '..'")
    if target == "/":
        fail(path, "the root of the container cannot be a mount point")
    return target


def _mount(value: Any, path: str) -> model.Mount:
    members = tree.mapping(value, path)
    if "type" not in members:
        fail(join(path, "type"), "missing field")
    kind = tree.choice(members["type"], join(path, "type"), _MOUNT_KEYS)
    if kind in _BARE:
        return _BARE[kind]
    tree.struct(value, path, _MOUNT_KEYS[kind])
    for required in _MOUNT_KEYS[kind]:
        if required not in members and required != "options":
            fail(join(path, required), "missing field")
    if kind == "tmpfs":
        return model.Tmpfs(_size(members["size"], join(path, "size")))
    options = _options(members["options"], join(path, "options")) if "options" in members else frozenset()
    if kind == "bind":
        return model.Bind(string(members["host"], join(path, "host"), resolved=True), options)
    return model.Resource(
        _checked(names.check_name, members["name"], join(path, "name"), resolved=True),
        _checked(names.VersionReq.parse, members["version"], join(path, "version"), resolved=True),
        string(members["dir"], join(path, "dir"), resolved=True),
        options,
    )


def _size(value: Any, path: str) -> int:
    number = value.value if isinstance(value, Scalar) else value
    if isinstance(number, int) and not isinstance(number, bool):
        return integer(value, path, 0, sizes.MAX_U64)
    return _checked(sizes.parse_tmpfs_size, value, path, resolved=True)


def _options(value: Any, path: str) -> frozenset[str]:
    text = string(value, path, resolved=True).strip()
    if not text:
        return frozenset()
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in model.MOUNT_OPTIONS:
            fail(path, f"unknown option {word!r}; known are {', '.join(model.MOUNT_OPTIONS)}")
    return frozenset(words)
