# SPDX-License-Identifier: Apache-2.0
"""A policy as data."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

SECCOMP, MEMORY, PIDS, CPU = "seccomp", "memory", "pids", "cpu"
REQUIREMENTS = (SECCOMP, MEMORY, PIDS, CPU)
"""What a manifest can be made to have: a filter of system calls, and limits."""


class Range(NamedTuple):
    """Numbers from `low` to `high`."""

    low: int
    high: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number <= self.high

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


class Policy(NamedTuple):
    """The rules; None, or the default, for one that does not exist.

    `names`, `groups` and `network_namespaces` are patterns (fnmatch), `binds` and `writable_binds` paths of
    the host with all that lies below them, `system_calls` those beyond the default profile. `memory_max` in
    bytes. `require` has words of `REQUIREMENTS`.
    """

    names: tuple[str, ...] | None = None
    uids: tuple[Range, ...] | None = None
    gids: tuple[Range, ...] | None = None
    groups: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None
    permissions: tuple[str, ...] | None = None
    host_network: bool = True
    network_namespaces: tuple[str, ...] | None = None
    binds: tuple[str, ...] | None = None
    writable_binds: tuple[str, ...] | None = None
    autostart: tuple[str, ...] | None = None
    schedulers: tuple[str, ...] | None = None
    system_calls: tuple[str, ...] | None = None
    memory_max: int | None = None
    pids_max: int | None = None
    require: tuple[str, ...] = ()
