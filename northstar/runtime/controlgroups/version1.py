# SPDX-License-Identifier: Apache-2.0
"""Control groups version 1: each controller has a hierarchy of its own (cgroups(7)).

A container has groups of pids and of the controllers that its manifest configures, as to move a process
costs 10 ms there.
"""

from __future__ import annotations

import os

from northstar.kernel import cgroup
from northstar.runtime.controlgroups.cgroups import Cgroups
from northstar.runtime.controlgroups.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.names import Container
    from northstar.runtime.controlgroups.groupsettings import Setting

CONTROLLERS = ("cpu", "cpuset", "memory", "blkio", "pids")


class LegacyCgroups(Cgroups):
    """Groups are made where a setting needs them."""

    version = 1
    known = CONTROLLERS

    def _controllers(self, settings: list[Setting]) -> list[str]:
        return sorted({setting.controller for setting in settings})

    def _directories(self) -> dict[str, str]:
        return dict(self._hierarchies.controllers)

    def _new_group(self, container: Container, path: str, *, ours: bool) -> Group:
        return LegacyGroup(container, path, self._parents, ours=ours)


class LegacyGroup(Group):
    """A group for each controller."""

    entrance_role = "procs"

    def _after_creation(self, controller: str, root: int) -> None:
        if controller == "cpuset":
            _inherit_cpuset(root, self._path)

    def _open_entrance(self, fd: int) -> int:
        """To be written to by the process itself."""
        return os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)

    def _directory(self, setting: Setting) -> int:
        return self._fds[setting.controller]

    def watch_oom(self, eventfd: int) -> None:
        """See `Group`."""
        fd = self._fds["memory"]
        control = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        try:
            cgroup.write(fd, "cgroup.event_control", f"{eventfd} {control}")
        finally:
            os.close(control)


def _inherit_cpuset(root: int, path: str) -> None:
    """A new cpuset group of version 1 is empty, and nothing can run in it."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        above = cgroup.open_group(root, "/".join(parts[: depth - 1])) if depth > 1 else os.dup(root)
        group = cgroup.open_group(root, "/".join(parts[:depth]))
        try:
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not cgroup.read(group, file).strip():
                    cgroup.write(group, file, cgroup.read(above, file).strip())
        finally:
            os.close(above)
            os.close(group)
