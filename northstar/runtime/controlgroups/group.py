# SPDX-License-Identifier: Apache-2.0
"""The control group of one container, in one or in several hierarchies."""

from __future__ import annotations

import _thread
import errno
import os

from northstar.errors import StartContainerFailed
from northstar.kernel import cgroup, cgrouptree
from northstar.runtime import log
from northstar.runtime.controlgroups import delegation, groupsettings, removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.controlgroups.groupsettings import Setting

_log = log.Logger("runtime::cgroups")


class Parents:
    """Groups above those of containers that did not exist before, by root and path."""

    def __init__(self) -> None:
        self.made: set[tuple[int, str]] = set()
        self.lock = _thread.allocate_lock()
        """Held while groups are made and removed: several threads do that."""


class Group:
    """The groups of one running container, by controller; with version 2 there is one, without a name."""

    entrance_role: str
    """What an entrance is to the engine (`programs.plan`)."""

    def __init__(self, container: Container, path: str, parents: Parents, *, ours: bool) -> None:
        """`ours`: it is below the runtime's own group, and not where a manifest says."""
        self._container = container
        self._path = path
        self._fds: dict[str, int] = {}
        self._roots: dict[str, int] = {}
        self._parents = parents
        self._ours = ours
        self._in_use = _thread.allocate_lock()
        """Held while files are read, and while the descriptors are closed: that may be in two threads."""
        self.entrances: list[tuple[str, int]] = []
        """What the application needs to join: roles and descriptors (`programs.plan`)."""

    # --- what the versions differ in

    def _prepare_parents(self, root: int, settings: list[Setting]) -> None:
        """Make the groups above. Raises OSError."""
        self._make_parents(root)

    def _after_creation(self, controller: str, root: int) -> None:
        """Make a new group usable. Raises OSError."""

    def _open_entrance(self, fd: int) -> int:
        """A new descriptor by which a process gets into the group. Raises OSError."""
        raise NotImplementedError

    def _directory(self, setting: Setting) -> int:
        """Descriptor of the group that a setting is written to."""
        raise NotImplementedError

    def open_events(self) -> int | None:
        """A descriptor that polls as exceptional when memory.events changes (version 2)."""
        return None

    def watch_oom(self, eventfd: int) -> None:
        """Let an eventfd count out-of-memory events (version 1). Raises OSError."""

    # --- its life

    def open(self, controller: str, root: int, settings: list[Setting]) -> None:
        """Make the group in one hierarchy. Blocks. Raises OSError.

        What a daemon that was killed has left there is removed first, lest old limits survive, with the
        processes in it, lest they count as the container's. EBUSY: there are processes in a group of somebody
        else, to which a manifest's `parent` leads.
        """
        own = cgroup.own_group(controller)
        if own is not None and delegation.is_below(own, self._path):
            raise OSError(errno.EBUSY, "the runtime itself is in this group")
        with self._parents.lock:
            self._prepare_parents(root, settings)
            parent, name = removal.parent_of(root, self._path)
            try:
                if self._ours:
                    removal.remove_with_processes(parent, name, self._path)
                else:
                    cgrouptree.remove(parent, name)
                self._fds[controller] = cgroup.create(parent, name)
            finally:
                os.close(parent)
        self._roots[controller] = root
        self._after_creation(controller, root)
        self.entrances.append((self.entrance_role, self._open_entrance(self._fds[controller])))
        _log.debug(f"CGroup path of container {self._container} is {self._path}")

    def _make_parents(self, root: int) -> None:
        """Make the groups above, and remember which there were not."""
        parts = self._path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            try:
                os.close(cgroup.open_group(root, above))
            except FileNotFoundError:
                os.close(cgroup.create(root, above))
                self._parents.made.add((root, above))

    def apply(self, setting: Setting) -> None:
        """Write one setting. Raises StartContainerFailed."""
        fd = self._directory(setting)
        alternatives = ((setting.file, setting.value), *setting.others)
        failures: list[tuple[int, str]] = []
        for file, value in alternatives:
            try:
                cgroup.write(fd, file, value)
            except OSError as error:
                failures.append((error.errno or 0, f"{file} = {value}: {error.strerror}"))
        if len(failures) < len(alternatives):
            return
        # A value that was refused tells more than a file that is missing.
        code, reason = min(failures, key=lambda failure: failure[0] == errno.ENOENT)
        if setting.optional and code == errno.ENOENT:
            groupsettings.ignored(setting.file, "this kernel has no such file")
            return
        if setting.others and code == errno.ENOENT:
            reason = "no I/O scheduler of this kernel weighs: " + ", ".join(text for _, text in failures)
        raise StartContainerFailed(self._container, f"cgroup: {reason}")

    def read(self, file: str) -> str | None:
        """Content of a file of the group, None if there is none."""
        with self._in_use:
            for fd in self._fds.values():
                try:
                    return cgroup.read(fd, file).decode("ascii", "replace")
                except OSError:
                    continue
        return None

    def open_entrances(self) -> list[tuple[str, int]]:
        """As `entrances`, for another process of the host; they are the caller's. Raises OSError."""
        return [(self.entrance_role, self._open_entrance(fd)) for fd in self._fds.values()]

    def close_entrances(self) -> None:
        """Close what was handed over."""
        for _, fd in self.entrances:
            os.close(fd)
        self.entrances.clear()

    def remove(self) -> None:
        """Remove the groups, also if somebody has put other processes into them.

        Those of the container have ended. May block for `REMOVE_TIMEOUT`.
        """
        self.close_entrances()
        with self._in_use:
            for fd in self._fds.values():
                os.close(fd)
            controllers = list(self._fds)
            self._fds.clear()
        for controller in controllers:
            removal.remove(self._roots[controller], self._path, removal.remove_with_processes)
        self._remove_parents()

    def _remove_parents(self) -> None:
        """Remove the groups above that were made for containers, if this was the last one below."""
        with self._parents.lock:
            for root, path in sorted(self._parents.made, key=lambda made: made[1], reverse=True):
                if self._path.startswith(f"{path}/") and removal.remove_unused(root, path):
                    self._parents.made.discard((root, path))

    def statistics(self) -> dict[str, Any]:
        """What `inspect` tells, by controller."""
        return groupsettings.statistics(self.read)
