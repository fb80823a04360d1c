# SPDX-License-Identifier: Apache-2.0
"""Control groups of containers, version 2 and version 1 (cgroups(7)).

With version 2 every container has a group. With version 1, where each controller has a hierarchy of its own,
a container has groups of pids and of the controllers that its manifest configures: to move a process
costs 10 ms there, while with version 2 it is born in its group.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any

from northstar.errors import StartContainerFailed
from northstar.kernel import cgroup, cgrouptree
from northstar.runtime import cgroupnames, cgroupsettings, delegation, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.manifest import Manifest
    from northstar.names import Container
    from northstar.runtime.cgroupsettings import Setting

_log = log.Logger("runtime::cgroups")

CONTROLLERS = ("cpu", "cpuset", "memory", "io", "pids")
CONTROLLERS_OF_VERSION_1 = ("cpu", "cpuset", "memory", "blkio", "pids")
REMOVE_TIMEOUT = 2.0
"""Seconds that the last processes of a group may take to end."""


class Cgroups:
    """The runtime's top level group; containers' groups are below it, or below `parent` of their manifest."""

    def __init__(self, name: str, pids_max: int) -> None:
        """`name` is the path of the top level group, relative to the hierarchy.

        With version 2 it is relative to the group that a service manager has handed over, if it has.

        `pids_max` limits the processes of each container, 0 for no limit; a manifest can only lower it.
        """
        self._name = name
        self._handed_over = ""
        """Where a manifest's `parent` is relative to, with a final slash if it is not the root."""
        self._pids_max = pids_max
        self._roots: dict[str, int] = {}
        self._made: set[tuple[int, str]] = set()
        try:
            self.hierarchies = cgroup.detect()
        except OSError:
            self.hierarchies = cgroup.Hierarchies("v1", None, {})
        self.unified = self.hierarchies.mode == "v2"
        if self.unified:
            with contextlib.suppress(OSError):
                self._name = delegation.place(self._root("unified"), name)
                self._handed_over = self._name.removesuffix(name)
                name = self._name
        _log.info(f"Initializing cgroups with name {name}")
        _log.debug(f"Using cgroups version {2 if self.unified else 1}")
        known = CONTROLLERS if self.unified else CONTROLLERS_OF_VERSION_1
        missing = [controller for controller in known if controller not in self.hierarchies.controllers]
        if missing:
            _log.warn(f"No cgroup controller {', '.join(missing)}: containers that need it cannot be started")

    def open(self) -> None:
        """Make the top level group, with version 2, and leave it to containers. Raises OSError."""
        if self.unified:
            root = self._root("unified")
            delegation.make_way(root, self._name)
            os.close(cgroup.create(root, self._name))

    def create(self, container: Container, manifest: Manifest) -> Group | None:
        """The container's group with all its settings; None if it has none.

        Raises StartContainerFailed naming the setting that the kernel refuses.
        """
        wanted = manifest.cgroups
        path = self._path(container, wanted.parent if wanted is not None else None)
        settings = self._settings(container, manifest)
        controllers = self._controllers(settings)
        if not controllers:
            return None
        _log.debug(f"Creating cgroups for {container}")
        group = Group(container, path, self._made, ours=path.startswith(f"{self._name}/"))
        try:
            for controller in controllers:
                group.open(controller, self._root(controller), settings)
            for setting in settings:
                group.apply(setting, unified=self.unified)
        except OSError as error:
            _give_back(group)
            raise StartContainerFailed(container, f"cgroup: {path}: {error.strerror}") from None
        except BaseException:
            _give_back(group)
            raise
        return group

    def entrance_roles(self, container: Container, manifest: Manifest) -> list[str]:
        """The roles of the `entrances` that the container's group would have. Raises StartContainerFailed."""
        controllers = self._controllers(self._settings(container, manifest))
        return ["cgroup" if controller == "unified" else "procs" for controller in controllers]

    def _settings(self, container: Container, manifest: Manifest) -> list[Setting]:
        wanted = manifest.cgroups
        try:
            settings = cgroupsettings.settings(wanted, unified=self.unified) if wanted is not None else []
        except ValueError as error:
            raise StartContainerFailed(container, f"cgroup: {error}") from None
        if self._pids_max and "pids" in self.hierarchies.controllers:
            settings = self._limited(container, settings)
        return settings

    def _controllers(self, settings: list[Setting]) -> list[str]:
        return ["unified"] if self.unified else sorted({setting.controller for setting in settings})

    def has_leftover(self, container: Container, manifest: Manifest) -> bool:
        """Whether there is a group that only a daemon that was killed can have left."""
        path = self._own_path(container)
        return any(os.path.exists(f"{root}/{path}") for root in self._hierarchies(manifest).values())

    def remove_leftover(self, container: Container, manifest: Manifest) -> None:
        """Remove such groups, with the processes in them. May block for `REMOVE_TIMEOUT`; for a thread."""
        path = self._own_path(container)
        for controller, root in self._hierarchies(manifest).items():
            if delegation.is_below(cgroup.own_group(controller) or "", path):
                continue
            try:
                descriptor = cgroup.open_root(root)
            except OSError:
                continue
            try:
                _remove(descriptor, path, _remove_with_processes)
            finally:
                os.close(descriptor)

    def _own_path(self, container: Container) -> str:
        return f"{self._name}/{cgroupnames.group_name(container.name, self.hierarchies.controllers)}"

    def _hierarchies(self, manifest: Manifest) -> dict[str, str]:
        """Where the container's group is below our own, by controller."""
        if manifest.cgroups is not None and manifest.cgroups.parent is not None:
            return {}
        roots = {"": self.hierarchies.unified} if self.unified else dict(self.hierarchies.controllers)
        return {controller: root for controller, root in roots.items() if root is not None}

    def _path(self, container: Container, parent: str | None) -> str:
        """`parent/name`. Raises StartContainerFailed."""
        above = f"{self._handed_over}{parent.strip('/')}" if parent else self._name.strip("/")
        for part in above.split("/"):
            if part in ("", ".", ".."):
                raise StartContainerFailed(container, f"cgroup: parent {parent} is not a plain relative path")
            if cgroupnames.is_kernel_file(part, self.hierarchies.controllers):
                reason = f"cgroup: {above}: {part} is the name of a file of the kernel"
                raise StartContainerFailed(container, reason)
        return f"{above}/{cgroupnames.group_name(container.name, self.hierarchies.controllers)}"

    def _limited(self, container: Container, settings: list[Setting]) -> list[Setting]:
        """The settings, with a limit of processes that is not above the runtime's."""
        wanted = next((int(s.value) for s in settings if s.controller == "pids"), self._pids_max)
        if wanted > self._pids_max:
            _log.warn(
                f"{container}: cgroups.pids.max is {wanted}, it is limited to pids_max, {self._pids_max}"
            )
        others = [setting for setting in settings if setting.controller != "pids"]
        return [cgroupsettings.pids(min(wanted, self._pids_max)), *others]

    def close(self) -> None:
        """Remove the top level group, or what is in it if the daemon is there as well."""
        _log.info("Shutting down cgroups")
        for path, root in self._roots.items():
            for name in self._removable(path):
                _remove(root, name, _remove_group)
            os.close(root)
        self._roots.clear()

    def paths(self) -> list[str]:
        """Absolute paths of the groups that are the runtime's, in every hierarchy."""
        roots = {self.hierarchies.unified} if self.unified else set(self.hierarchies.controllers.values())
        return [f"{root}/{name}" for root in sorted(filter(None, roots)) for name in self._removable(root)]

    def _removable(self, root: str) -> list[str]:
        """The top level group, without the daemon's own group if that is in it."""
        controllers = [name for name, path in self.hierarchies.controllers.items() if path == root]
        own = cgroup.own_group("" if self.unified else controllers[0])
        if own is None or not delegation.is_below(own, self._name):
            return [self._name]
        with os.scandir(f"{root}/{self._name}") as entries:
            names = [f"{self._name}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [name for name in names if not delegation.is_below(own, name)]

    def _root(self, controller: str) -> int:
        """Descriptor of a hierarchy's directory, opened once. Raises OSError."""
        path = self.hierarchies.unified if self.unified else self.hierarchies.controllers.get(controller)
        if path is None:
            raise OSError(errno.ENODEV, f"controller {controller} is not available")
        if path not in self._roots:
            self._roots[path] = cgroup.open_root(path)
        return self._roots[path]


class Group:
    """The groups of one running container, by controller; with version 2 one named `unified`."""

    def __init__(self, container: Container, path: str, made: set[tuple[int, str]], *, ours: bool) -> None:
        """`made` are the groups above containers that did not exist before, by root and path.

        `ours`: it is below the runtime's own group, and not where a manifest says.
        """
        self._container = container
        self._path = path
        self._fds: dict[str, int] = {}
        self._roots: dict[str, int] = {}
        self._made = made
        self._ours = ours
        self._in_use = _thread.allocate_lock()
        """Held while files are read, and while the descriptors are closed: that may be in two threads."""
        self.entrances: list[tuple[str, int]] = []
        """What the application needs to join: roles and descriptors (`programs.plan`)."""

    def open(self, controller: str, root: int, settings: list[Setting]) -> None:
        """Make the group in one hierarchy. Raises OSError.

        What a daemon that was killed has left there is removed first, lest old limits survive, with the
        processes in it, lest they count as the container's. EBUSY: there are processes in a group of somebody
        else, to which a manifest's `parent` leads.
        """
        own = cgroup.own_group("" if controller == "unified" else controller)
        if own is not None and delegation.is_below(own, self._path):
            raise OSError(errno.EBUSY, "the runtime itself is in this group")
        if controller == "unified" and not self._ours:
            delegation.make_way(root, self._path)
        self._make_parents(root)
        if controller == "unified":
            self._enable(root, {setting.controller for setting in settings})
        parent, name = _parent_of(root, self._path)
        try:
            if self._ours:
                _remove_with_processes(parent, name, self._path)
            else:
                cgrouptree.remove(parent, name)
            self._fds[controller] = cgroup.create(parent, name)
        finally:
            os.close(parent)
        self._roots[controller] = root
        if controller == "cpuset":
            _inherit_cpuset(root, self._path)
        self.entrances.append(self._open_entrance(controller))
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
                self._made.add((root, above))

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

    def apply(self, setting: Setting, *, unified: bool) -> None:
        """Write one setting. Raises StartContainerFailed."""
        fd = self._fds["unified" if unified else setting.controller]
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
            cgroupsettings.ignored(setting.file, "this kernel has no such file")
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

    def open_events(self) -> int | None:
        """A descriptor that polls as exceptional when memory.events changes (version 2)."""
        fd = self._fds.get("unified")
        if fd is None:
            return None
        try:
            return os.open("memory.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return None

    def watch_oom(self, eventfd: int) -> None:
        """Let an eventfd count out-of-memory events (version 1). Raises OSError."""
        fd = self._fds["memory"]
        control = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        try:
            cgroup.write(fd, "cgroup.event_control", f"{eventfd} {control}")
        finally:
            os.close(control)

    def open_entrances(self) -> list[tuple[str, int]]:
        """As `entrances`, for another process of the host; they are the caller's. Raises OSError."""
        return [self._open_entrance(controller) for controller in self._fds]

    def _open_entrance(self, controller: str) -> tuple[str, int]:
        """With version 2 a process is born in the group, with version 1 it writes to cgroup.procs."""
        fd = self._fds[controller]
        if controller == "unified":
            return "cgroup", os.dup(fd)
        return "procs", os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)

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
            _remove(self._roots[controller], self._path, _remove_with_processes)

    def remove_parents(self) -> None:
        """Remove the groups above that were made for containers, if this was the last one below.

        Not in a thread: a start at the same time relies on the groups above.
        """
        for root, path in sorted(self._made, key=lambda made: made[1], reverse=True):
            if self._path.startswith(f"{path}/") and _remove_unused(root, path):
                self._made.discard((root, path))

    def statistics(self) -> dict[str, Any]:
        """What `inspect` tells, by controller."""
        return cgroupsettings.statistics(self.read)


def _give_back(group: Group) -> None:
    """Nothing has run in the group: this does not block."""
    group.remove()
    group.remove_parents()


def _parent_of(root: int, path: str) -> tuple[int, str]:
    """A new descriptor of the group above, and the last component."""
    above, _, name = path.rpartition("/")
    return (cgroup.open_group(root, above) if above else os.dup(root)), name


def _remove_group(parent: int, name: str, path: str) -> None:
    cgrouptree.remove(parent, name, timeout=REMOVE_TIMEOUT)


def _remove_with_processes(parent: int, name: str, path: str) -> None:
    """Remove a group and kill what is in it and below. Raises OSError."""
    try:
        cgrouptree.remove(parent, name)
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    fd = cgroup.open_group(parent, name)
    try:
        deadline = time.monotonic() + REMOVE_TIMEOUT
        # Processes that just die are not worth a word. One by one, those that fork may escape.
        if not cgrouptree.wait_unpopulated(fd, 0.05):
            _log.warn(f"Killing what is left in cgroup {path}")
            cgrouptree.kill(fd)
            while not cgrouptree.wait_unpopulated(fd, 0.1) and time.monotonic() < deadline:
                cgrouptree.kill(fd)
    finally:
        os.close(fd)
    _remove_group(parent, name, path)


def _remove(root: int, path: str, remove: Callable[[int, str, str], None]) -> None:
    try:
        parent, name = _parent_of(root, path)
        try:
            remove(parent, name, path)
        finally:
            os.close(parent)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warn(f"failed to remove cgroup {path}: {error.strerror}")


def _remove_unused(root: int, path: str) -> bool:
    """Remove a group unless it is used by others; whether it is gone."""
    try:
        parent, name = _parent_of(root, path)
        try:
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


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
