# SPDX-License-Identifier: Apache-2.0
"""Does a manifest stay within a policy?"""

from __future__ import annotations

import posixpath
from fnmatch import fnmatchcase

from northstar.manifest import model
from northstar.namedtuple import NamedTuple
from northstar.policy.model import CPU, MEMORY, PIDS, SECCOMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any

    from northstar.manifest.model import Manifest
    from northstar.policy.model import Policy, Range


class Violation(NamedTuple):
    """A field of a manifest, its value, the rule that it breaks, and what that says."""

    field: str
    value: str
    rule: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is against the rule {self.rule} ({self.allowed})"


def refusal(manifest: Manifest, policy: Policy | None, place: str) -> str | None:
    """Why a manifest is not acceptable, None if it is. `place` is where the policy stands."""
    if policy is None:
        return None
    found = [str(violation) for violation in violations(manifest, policy)]
    return f"{place}: {'; '.join(found)}" if found else None


def violations(manifest: Manifest, policy: Policy) -> Iterator[Violation]:
    """Everything in a manifest that is against the policy. Of a resource only the name counts."""
    yield from _outside("name", [manifest.name], "names", policy.names, _matches)
    if manifest.init is None:
        return
    yield from _outside("uid", [manifest.uid], "uids", policy.uids, _in_range)
    yield from _outside("gid", [manifest.gid], "gids", policy.gids, _in_range)
    yield from _outside("suppl_groups", manifest.suppl_groups, "groups", policy.groups, _matches)
    yield from _outside(
        "capabilities", sorted(manifest.capabilities), "capabilities", policy.capabilities, _is_one
    )
    permissions = manifest.console.permissions if manifest.console is not None else ()
    yield from _outside("console", sorted(permissions), "permissions", policy.permissions, _is_one)
    autostart = [manifest.autostart] if manifest.autostart is not None else []
    yield from _outside("autostart", autostart, "autostart", policy.autostart, _is_one)
    scheduler = [manifest.sched.policy] if manifest.sched is not None else []
    yield from _outside("sched", scheduler, "schedulers", policy.schedulers, _is_one)
    yield from _network(manifest, policy)
    yield from _binds(manifest, policy)
    yield from _system_calls(manifest, policy)
    yield from _limits(manifest, policy)


def _outside(
    field: str,
    values: Iterable[object],
    rule: str,
    allowed: Collection[object] | None,
    fits: Callable[[Any, Any], bool],
) -> Iterator[Violation]:
    if allowed is None:
        return
    text = f"allowed: {', '.join(map(str, allowed)) or 'none'}"
    for value in values:
        if not any(fits(value, item) for item in allowed):
            yield Violation(field, str(value), rule, text)


def _matches(value: str, pattern: str) -> bool:
    return fnmatchcase(value, pattern)


def _in_range(value: int, numbers: Range) -> bool:
    return value in numbers


def _is_one(value: str, allowed: str) -> bool:
    return value == allowed


def _is_below(path: str, directory: str) -> bool:
    """As texts: whoever may change links of the host needs no container for that."""
    top = posixpath.normpath(directory)
    if not path.startswith("/") or ".." in path.split("/"):
        return False
    path = posixpath.normpath("/" + path.lstrip("/"))
    return top == "/" or path == top or path.startswith(f"{top}/")


def _network(manifest: Manifest, policy: Policy) -> Iterator[Violation]:
    network = manifest.network
    if isinstance(network, model.NetworkHost) and not policy.host_network:
        yield Violation("network", "host", "host_network", "false")
    if isinstance(network, model.NetworkNamespace):
        yield from _outside(
            "network", [network.name], "network_namespaces", policy.network_namespaces, _matches
        )


def _binds(manifest: Manifest, policy: Policy) -> Iterator[Violation]:
    for target, mount in manifest.mounts.items():
        if not isinstance(mount, model.Bind):
            continue
        field = f"mounts.{target}"
        writable = "rw" in mount.options
        if not writable and policy.binds is None:
            continue
        if not writable:
            # What may be written may be read, too.
            allowed = (*(policy.binds or ()), *(policy.writable_binds or ()))
            yield from _outside(field, [mount.host], "binds", allowed, _is_below)
        elif policy.writable_binds is not None:
            yield from _outside(field, [mount.host], "writable_binds", policy.writable_binds, _is_below)
        elif policy.binds is not None:
            yield from _outside(field, [mount.host], "binds", policy.binds, _is_below)


def _system_calls(manifest: Manifest, policy: Policy) -> Iterator[Violation]:
    if manifest.seccomp is None:
        if SECCOMP in policy.require:
            yield Violation("seccomp", "none", "require", f"{SECCOMP} is needed")
        elif policy.system_calls is not None:
            yield Violation("seccomp", "none", "system_calls", "without a filter all are allowed")
        return
    if policy.system_calls is None:
        return
    from northstar.seccomp import profile

    usual = {*profile.BASE, *profile.X86_64, *profile.BITS_32}
    calls = sorted(set(manifest.seccomp.allow or ()) - usual)
    yield from _outside("seccomp.allow", calls, "system_calls", policy.system_calls, _is_one)


def _limits(manifest: Manifest, policy: Policy) -> Iterator[Violation]:
    groups = manifest.cgroups or model.Cgroups()
    memory = groups.memory.memory_hard_limit if groups.memory is not None else None
    pids = groups.pids.max if groups.pids is not None else None
    cpu = groups.cpu.quota if groups.cpu is not None else None
    yield from _limit("cgroups.memory.memory_hard_limit", memory, MEMORY, policy.memory_max, policy)
    yield from _limit("cgroups.pids.max", pids, PIDS, policy.pids_max, policy)
    yield from _limit("cgroups.cpu.quota", cpu, CPU, None, policy)


def _limit(field: str, value: int | None, kind: str, most: int | None, policy: Policy) -> Iterator[Violation]:
    """A value that is no limit, as cgroups take -1 for, is none."""
    limited = value is not None and value > 0
    if not limited and (kind in policy.require or most is not None):
        rule = "require" if kind in policy.require else f"{kind}_max"
        yield Violation(field, "none" if value is None else str(value), rule, "a limit is needed")
    elif limited and most is not None and value is not None and value > most:
        yield Violation(field, str(value), f"{kind}_max", f"at most {most}")
