# SPDX-License-Identifier: Apache-2.0
"""The control groups of the runtime and its containers: what is the same for both versions (cgroups(7)).

`version1` and `version2` have the rest, `detection` says which it is.
"""

from __future__ import annotations

import errno
import os

from northstar.errors import StartContainerFailed
from northstar.kernel import cgroup
from northstar.runtime import log
from northstar.runtime.controlgroups import delegation, groupnames, groupsettings, removal
from northstar.runtime.controlgroups.group import Group, Parents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest import Manifest
    from northstar.names import Container
    from northstar.runtime.controlgroups.groupsettings import Setting

_log = log.Logger("runtime::cgroups")


class Cgroups:
    """The runtime's top level group; containers' groups are below it, or below `parent` of their manifest."""

    version: int
    known: tuple[str, ...]
    """Controllers that settings are written to."""

    def __init__(self, name: str, pids_max: int, hierarchies: cgroup.Hierarchies) -> None:
        """`name` is the path of the top level group, relative to the hierarchy.

        `pids_max` limits the processes of each container, 0 for no limit; a manifest can only lower it.
        """
        self._hierarchies = hierarchies
        self._pids_max = pids_max
        self._roots: dict[str, int] = {}
        self._parents = Parents()
        self._handed_over = ""
        """Where a manifest's `parent` is relative to, with a final slash if it is not the root."""
        self._name = self._place(name)
        _log.info(f"Initializing cgroups with name {self._name}")
        _log.debug(f"Using cgroups version {self.version}")
        missing = [controller for controller in self.known if controller not in hierarchies.controllers]
        if missing:
            _log.warn(f"No cgroup controller {', '.join(missing)}: containers that need it cannot be started")

    # --- what the versions differ in

    def _place(self, name: str) -> str:
        """Path of the top level group."""
        return name

    def open(self) -> None:
        """Make the top level group, where it is needed before a container's. Raises OSError."""

    def _controllers(self, settings: list[Setting]) -> list[str]:
        """The hierarchies in which a container gets a group, by controller."""
        raise NotImplementedError

    def _directories(self) -> dict[str, str]:
        """The hierarchies in which there may be groups of ours, by controller."""
        raise NotImplementedError

    def _new_group(self, container: Container, path: str, *, ours: bool) -> Group:
        raise NotImplementedError

    # --- groups of containers

    def create(self, container: Container, manifest: Manifest) -> Group | None:
        """The container's group with all its settings; None if it has none. Blocks.

        Raises StartContainerFailed naming the setting that the kernel refuses.
        """
        wanted = manifest.cgroups
        path = self._path(container, wanted.parent if wanted is not None else None)
        settings = self._settings(container, manifest)
        controllers = self._controllers(settings)
        if not controllers:
            return None
        _log.debug(f"Creating cgroups for {container}")
        group = self._new_group(container, path, ours=path.startswith(f"{self._name}/"))
        try:
            for controller in controllers:
                group.open(controller, self._root(controller), settings)
            for setting in settings:
                group.apply(setting)
        except OSError as error:
            group.remove()
            raise StartContainerFailed(container, f"cgroup: {path}: {error.strerror}") from None
        except BaseException:
            group.remove()
            raise
        return group

    def entrance_roles(self, container: Container, manifest: Manifest) -> list[str]:
        """The roles of the `entrances` that the container's group would have. Raises StartContainerFailed."""
        group = self._new_group(container, "", ours=True)
        return [group.entrance_role for _ in self._controllers(self._settings(container, manifest))]

    def _settings(self, container: Container, manifest: Manifest) -> list[Setting]:
        wanted = manifest.cgroups
        try:
            settings = groupsettings.settings(wanted, unified=self.version == 2) if wanted is not None else []
        except ValueError as error:
            raise StartContainerFailed(container, f"cgroup: {error}") from None
        if self._pids_max and "pids" in self._hierarchies.controllers:
            settings = self._limited(container, settings)
        return settings

    def has_group(self, container: Container, manifest: Manifest) -> bool:
        """Whether the container gets one. Raises StartContainerFailed."""
        return bool(self._controllers(self._settings(container, manifest)))

    def remove_leftover(self, container: Container, manifest: Manifest) -> None:
        """Remove groups in the way, which only a daemon that was killed can have left, and what is in them.

        May block for `REMOVE_TIMEOUT`.
        """
        path = self._own_path(container)
        for controller, root in self._below_ours(manifest).items():
            if not os.path.exists(f"{root}/{path}"):
                continue
            if delegation.is_below(cgroup.own_group(controller) or "", path):
                continue
            try:
                descriptor = cgroup.open_root(root)
            except OSError:
                continue
            try:
                removal.remove(descriptor, path, removal.remove_with_processes)
            finally:
                os.close(descriptor)

    def _own_path(self, container: Container) -> str:
        return f"{self._name}/{groupnames.group_name(container.name, self._hierarchies.controllers)}"

    def _below_ours(self, manifest: Manifest) -> dict[str, str]:
        """Where the container's group is below our own, by controller."""
        if manifest.cgroups is not None and manifest.cgroups.parent is not None:
            return {}
        return self._directories()

    def _path(self, container: Container, parent: str | None) -> str:
        """`parent/name`. Raises StartContainerFailed."""
        above = f"{self._handed_over}{parent.strip('/')}" if parent else self._name.strip("/")
        for part in above.split("/"):
            if part in ("", ".", ".."):
                raise StartContainerFailed(container, f"cgroup: parent {parent} is not a plain relative path")
            if groupnames.is_kernel_file(part, self._hierarchies.controllers):
                reason = f"cgroup: {above}: {part} is the name of a file of the kernel"
                raise StartContainerFailed(container, reason)
        return f"{above}/{groupnames.group_name(container.name, self._hierarchies.controllers)}"

    def _limited(self, container: Container, settings: list[Setting]) -> list[Setting]:
        """The settings, with a limit of processes that is not above the runtime's."""
        wanted = next((int(s.value) for s in settings if s.controller == "pids"), self._pids_max)
        if wanted > self._pids_max:
            _log.warn(
                f"{container}: cgroups.pids.max is {wanted}, it is limited to pids_max, {self._pids_max}"
            )
        others = [setting for setting in settings if setting.controller != "pids"]
        return [groupsettings.pids(min(wanted, self._pids_max)), *others]

    # --- the groups of all

    def close(self) -> None:
        """Remove the top level group, or what is in it if the daemon is there as well."""
        _log.info("Shutting down cgroups")
        for path, root in self._roots.items():
            for name in self._removable(path):
                removal.remove(root, name, removal.remove_group)
            os.close(root)
        self._roots.clear()

    def paths(self) -> list[str]:
        """Absolute paths of the groups that are the runtime's, in every hierarchy."""
        roots = sorted(set(self._directories().values()))
        return [f"{root}/{name}" for root in roots for name in self._removable(root)]

    def _removable(self, root: str) -> list[str]:
        """The top level group, without the daemon's own group if that is in it."""
        controller = next(name for name, path in self._directories().items() if path == root)
        own = cgroup.own_group(controller)
        if own is None or not delegation.is_below(own, self._name):
            return [self._name]
        with os.scandir(f"{root}/{self._name}") as entries:
            names = [f"{self._name}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [name for name in names if not delegation.is_below(own, name)]

    def _root(self, controller: str) -> int:
        """Descriptor of a hierarchy's directory, opened once. Raises OSError."""
        path = self._directories().get(controller)
        if path is None:
            raise OSError(errno.ENODEV, f"controller {controller} is not available")
        with self._parents.lock:
            if path not in self._roots:
                self._roots[path] = cgroup.open_root(path)
            return self._roots[path]
