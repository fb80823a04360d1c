# SPDX-License-Identifier: Apache-2.0
"""The table `policy` of a repository."""

from __future__ import annotations

from northstar.kernel.capabilities import NAMES as CAPABILITIES
from northstar.manifest.model import AUTOSTARTS, PERMISSIONS, POLICIES
from northstar.policy.model import REQUIREMENTS, Policy, Range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from northstar.config.table import Table

_MAX_ID = (1 << 32) - 2


def read(table: Table) -> Policy:
    """The policy in a table; problems are noted there."""

    def rule(key: str, convert: Callable[[Any], tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
        return table.take(key, "a list of strings", convert, None, needed=False)

    policy = Policy(
        names=rule("names", _texts),
        uids=rule("uids", _ranges),
        gids=rule("gids", _ranges),
        groups=rule("groups", _texts),
        capabilities=rule("capabilities", _words(CAPABILITIES)),
        permissions=rule("permissions", _words(PERMISSIONS)),
        host_network=table.boolean("host_network", True),
        network_namespaces=rule("network_namespaces", _texts),
        binds=rule("binds", _absolute),
        writable_binds=rule("writable_binds", _absolute),
        autostart=rule("autostart", _words(AUTOSTARTS)),
        schedulers=rule("schedulers", _words(POLICIES)),
        system_calls=rule("system_calls", _texts),
        memory_max=table.optional_size("memory_max"),
        pids_max=table.optional_integer("pids_max", 1),
        require=rule("require", _words(REQUIREMENTS)) or (),
    )
    table.finish()
    return policy


def _texts(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return None
    return tuple(value)


def _words(known: Any) -> Callable[[Any], tuple[str, ...] | None]:
    def convert(value: Any) -> tuple[str, ...] | None:
        words = _texts(value)
        for word in words or ():
            if word not in known:
                raise ValueError(f"unknown word {word!r}; known are {', '.join(known)}")
        return words

    return convert


def _absolute(value: Any) -> tuple[str, ...] | None:
    paths = _texts(value)
    for path in paths or ():
        if not path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} is no absolute path without ..")
    return paths


def _ranges(value: Any) -> tuple[Range, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(_range(item) for item in value)


def _range(value: Any) -> Range:
    """A number, or `low-high`."""
    if type(value) is int:
        low = high = value
    elif isinstance(value, str):
        first, _, last = value.partition("-")
        if not (first.strip().isdecimal() and (last or first).strip().isdecimal()):
            raise ValueError(f"{value!r} is no number and no range such as 1000-1999")
        low, high = int(first), int(last or first)
    else:
        raise ValueError(f"{value!r} is no number and no range such as 1000-1999")
    if not 0 <= low <= high <= _MAX_ID:
        raise ValueError(f"{value!r} is no range of numbers from 0 to {_MAX_ID}")
    return Range(low, high)
