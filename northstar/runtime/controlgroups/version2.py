# SPDX-License-Identifier: Apache-2.0
"""Control groups version 2: one hierarchy, in which every container is born into its group (cgroups(7))."""

from __future__ import annotations

import contextlib
import errno
import os

from northstar.kernel import cgroup
from northstar.runtime.controlgroups import delegation
from northstar.runtime.controlgroups.cgroups import Cgroups
from northstar.runtime.controlgroups.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.names import Container
    from northstar.runtime.controlgroups.groupsettings import Setting

UNIFIED = ""
"""Stands for all controllers, as in /proc/self/cgroup."""
CONTROLLERS = ("cpu", "cpuset", "memory", "io", "pids")


class UnifiedCgroups(Cgroups):
    """Every container has a group, and they are below what a service manager has handed over, if it has."""

    version = 2
    known = CONTROLLERS

    def _place(self, name: str) -> str:
        place = name
        with contextlib.suppress(OSError):
            place = delegation.place(self._root(UNIFIED), name)
            self._handed_over = place.removesuffix(name)
        return place

    def open(self) -> None:
        """Make the top level group, and leave it to containers. Raises OSError."""
        root = self._root(UNIFIED)
        delegation.make_way(root, self._name)
        os.close(cgroup.create(root, self._name))

    def _controllers(self, settings: list[Setting]) -> list[str]:
        return [UNIFIED]

    def _directories(self) -> dict[str, str]:
        path = self._hierarchies.unified
        return {} if path is None else {UNIFIED: path}

    def _new_group(self, container: Container, path: str, *, ours: bool) -> Group:
        return UnifiedGroup(container, path, self._parents, ours=ours)


class UnifiedGroup(Group):
    """One group for all controllers."""

    entrance_role = "cgroup"

    def _prepare_parents(self, root: int, settings: list[Setting]) -> None:
        if not self._ours:
            delegation.make_way(root, self._path)
        self._make_parents(root)
        self._enable(root, {setting.controller for setting in settings})

    def _enable(self, root: int, needed: set[str]) -> None:
        """Enable the controllers for the group, top down. Those that nobody needs may be missing."""
        available = set(cgroup.available_controllers(root))
        missing = needed - available
        if missing:
            raise OSError(errno.ENODEV, f"controller {', '.join(sorted(missing))} is not available")
        wanted = [controller for controller in CONTROLLERS if controller in available]
        parts = self._path.split("/")
        for depth in range(len(parts)):
            above = cgroup.create(root, "/".join(parts[:depth])) if depth else os.dup(root)
            try:
                for controller, failure in cgroup.enable_controllers(above, wanted):
                    if controller in needed:
                        raise failure
            finally:
                os.close(above)

    def _open_entrance(self, fd: int) -> int:
        """For clone3(2) with CLONE_INTO_CGROUP."""
        return os.dup(fd)

    def _directory(self, setting: Setting) -> int:
        return self._fds[UNIFIED]

    def open_events(self) -> int | None:
        """See `Group`."""
        fd = self._fds.get(UNIFIED)
        if fd is None:
            return None
        try:
            return os.open("memory.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return None
