# SPDX-License-Identifier: Apache-2.0
"""The plan of a start: everything that a container needs, as numbers and texts (types only)."""

from __future__ import annotations

from typing import TypedDict


class MountPlan(TypedDict):
    """One mount of a container."""

    kind: str
    """`bind` (host path), `resource` (path inside another image), `tree` (a prepared tree, with
    all its submounts), or the name of a file system."""
    target: str
    source: str
    directory: str
    """Only `resource`: the directory below `source`."""
    recursive: bool
    optional: bool
    """Skip it if the source does not exist."""
    attributes: int
    """MOUNT_ATTR_* to set; attributes of the source are kept."""
    options: dict[str, str]
    """Only file systems: their options."""


class Plan(TypedDict):
    """A start, or a command in a running container (then without name, root and mounts)."""

    name: str
    """Process name of init (PR_SET_NAME, cut to 15 bytes by the kernel)."""
    root: str
    """Mount point of the container's image."""
    hold: bool
    """Wait for one byte on the channel before doing anything."""
    terminal: bool
    """Standard input is a terminal, which becomes the controlling one."""
    mounts: list[MountPlan]
    """Sorted by target."""
    uid: int
    gid: int
    groups: list[int]
    """Sorted."""
    rlimits: list[tuple[str, int, int, int]]
    """(name, RLIMIT_*, soft, hard), -1 for unlimited."""
    capabilities: int
    """Bit mask of all five sets of the application."""
    available: int
    """Bit mask of the capabilities that the runtime has."""
    last_capability: int
    """The highest one that the kernel knows."""
    scheduling: tuple[int, int, int] | None
    """(policy, priority, nice) for the application."""
    selinux_exec: str | None
    oom_score_adj: tuple[int, int] | None
    """That of the application, and that of the runtime's own processes."""
    argv: list[str]
    env: list[str]
    descriptors: list[str | int]
    """Roles of the descriptors that travel with the program, in their order; a number means: the
    application gets it under that number."""
    application_filter: bytes
    """BPF program, see seccomp(2); none if empty."""
    init_filter: bytes
    notify: str
    """Name of the socket for notifications that init makes; nothing if it makes none."""
