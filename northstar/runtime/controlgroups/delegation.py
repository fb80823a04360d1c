# SPDX-License-Identifier: Apache-2.0
"""Control groups above containers must have no process of their own, be it the daemon (version 2).

That is the "no internal processes" rule of cgroups(7). It meets a daemon whose own group was delegated to it,
as systemd does with Delegate=yes (CGROUP_DELEGATION.md): it has to move itself into a leaf.
"""

from __future__ import annotations

import contextlib
import os

from northstar.kernel import cgroup
from northstar.runtime import log
from northstar.runtime.controlgroups.groupnames import DAEMON

_log = log.Logger("runtime::cgroups")
_ROUNDS = 10
"""So often a process may be forked while others are moved."""


def place(root: int, name: str) -> str:
    """Path for the groups of containers: `name` in what a service manager has handed over to us, if anything.

    The rest of the tree is the manager's. `root` is the hierarchy. Raises OSError.
    """
    own = cgroup.own_group()
    if not own or ".." in own.split("/"):  # the root, or out of sight
        return name
    above, _, last = own.rpartition("/")
    handed_over = above if last == DAEMON else own
    if not handed_over or is_below(name, handed_over):
        return name
    group = cgroup.open_group(root, handed_over)
    try:
        return f"{handed_over}/{name}" if cgroup.is_delegated(group) else name
    finally:
        os.close(group)


def make_way(root: int, path: str) -> None:
    """If the daemon is in a group above `path`, move it with all that is in there into a group beside it.

    `root` is the hierarchy, whose root itself may have processes. Raises OSError.
    """
    own = cgroup.own_group()
    if own is None or not is_below(path, own):
        return
    group = cgroup.open_group(root, own) if own else os.dup(root)
    try:
        if cgroup.is_root(group) or os.getpid() not in cgroup.processes(group):
            return
        leaf = cgroup.create(group, DAEMON)
        try:
            _move(group, leaf)
        finally:
            os.close(leaf)
    finally:
        os.close(group)
    _log.info(f"Moved to cgroup {own}/{DAEMON}, as containers are below {own or 'the root'}")


def is_below(path: str, above: str) -> bool:
    """Whether a group is `above` or below it; the empty path is the root."""
    return not above or path == above or path.startswith(f"{above}/")


def _move(group: int, leaf: int) -> None:
    for _ in range(_ROUNDS):
        pids = [pid for pid in cgroup.processes(group) if pid > 0]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                cgroup.attach(leaf, pid)
