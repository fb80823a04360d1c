# SPDX-License-Identifier: Apache-2.0
"""What the daemon knows of each installed container, and the rules that follow from it."""

from __future__ import annotations

from northstar.errors import InvalidContainer, StartContainerStarted, StopContainerNotStarted, UmountBusy
from northstar.manifest import extension, model
from northstar.runtime import log
from northstar.runtime.containers import plan
from northstar.runtime.output.lastoutput import LastOutput
from northstar.supervision.state import IDLE_STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from northstar.manifest.model import Manifest
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.runtime.containers.run import Run
    from northstar.runtime.eventloop.loop import Timer
    from northstar.runtime.storage.repository import Repository
    from northstar.supervision.model import Settings
    from northstar.supervision.state import State

    Request = tuple[str | None, Sequence[str], Mapping[str, str]]

_log = log.Logger("runtime::state")

PLAIN: Request = (None, (), {})
"""A start as the manifest says."""


class Record:
    """An installed container."""

    __slots__ = (
        *("container", "damage", "device", "filter", "left_out", "mount_failure", "mounted", "output"),
        *("package", "repository", "run", "unusable"),
        *("request", "settings", "state", "timer"),
    )

    def __init__(
        self, container: Container, repository: Repository, package: Package, application_filter: bytes = b""
    ) -> None:
        self.container = container
        self.filter = application_filter
        """System call filter of the application, a BPF program."""
        self.unusable: str | None = None
        """Why it cannot be started, if that is known."""
        self.mount_failure: str | None = None
        """Why it could not be mounted when that was last tried."""
        self.device = 0
        """Number of the device that its image is mounted from."""
        self.damage: str | None = None
        """What is wrong with its image, if something has been found since it was mounted."""
        self.left_out: list[str] = []
        """What it has been started without, and why."""
        self.repository = repository
        self.package = package
        self.mounted = False
        self.output = LastOutput()
        """What it has written since its last start."""
        self.run: Run | None = None
        """Set from the moment a start is under way until the exit is dealt with."""
        self.settings: Settings = extension.supervision(package.manifest)
        self.state: State = IDLE_STATE
        """Changed by the supervisor only."""
        self.timer: Timer | None = None
        """For the next time that the state waits for."""
        self.request: Request = PLAIN
        """What the last start request had of its own: init, arguments, environment; for a restart."""

    @property
    def problem(self) -> str | None:
        """Why it is of no use at the moment, None if nothing of that kind is known."""
        return self.unusable or self.mount_failure or self.damage

    @property
    def manifest(self) -> Manifest:
        """The package's manifest."""
        return self.package.manifest


class Containers:
    """All installed containers of all repositories."""

    def __init__(self) -> None:
        self._records: dict[Container, Record] = {}
        self._versions: dict[str, tuple[Record, ...]] = {}
        self._names: list[str] | None = None
        self.usable: Callable[[Container], bool] | None = None
        """Whether a resource may be chosen, if updates have something to say about that."""

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __contains__(self, container: Container) -> bool:
        return container in self._records

    def names(self) -> list[str]:
        """All containers as `name:version`, sorted."""
        if self._names is None:
            self._names = [str(container) for container in sorted(self._records)]
        return self._names

    def named(self, name: str) -> tuple[Record, ...]:
        """All versions of a name."""
        return self._versions.get(name, ())

    def known(self) -> list[Container]:
        """All containers."""
        return list(self._records)

    def get(self, container: Container) -> Record:
        """The record of a container; raises InvalidContainer."""
        record = self._records.get(container)
        if record is None:
            raise InvalidContainer(container)
        return record

    def add(self, record: Record) -> None:
        """A package was loaded or installed."""
        self._records[record.container] = record
        name = record.container.name
        self._versions[name] = (*self.named(name), record)
        self._names = None

    def remove(self, record: Record) -> None:
        """A package was uninstalled."""
        del self._records[record.container]
        name = record.container.name
        self._versions[name] = tuple(other for other in self.named(name) if other is not record)
        if not self._versions[name]:
            del self._versions[name]
        self._names = None
        record.output.remove()

    def runs(self) -> list[Run]:
        """All runs under way."""
        return [record.run for record in self if record.run is not None]

    def check_start(self, record: Record) -> None:
        """Raises StartContainerStarted if it, or another version of the name, is running."""
        if record.run is not None:
            raise StartContainerStarted(record.container)
        for other in self.named(record.container.name):
            if other.run is not None:
                raise StartContainerStarted(other.container)

    def running(self, container: Container) -> Run:
        """The run of a container; raises InvalidContainer or StopContainerNotStarted."""
        run = self.get(container).run
        if run is None:
            raise StopContainerNotStarted(container)
        return run

    def check_umount(self, record: Record) -> None:
        """Raises UmountBusy: not mounted, started, or in use; a resource in use names its user."""
        if not record.mounted or record.run is not None:
            raise UmountBusy(record.container)
        for other in self:
            if other.run is None or record.container not in other.run.resources:
                continue
            if record.manifest.init is None:
                _log.warn(f"Resource container {record.container} is used by {other.container}")
                raise UmountBusy(other.container)
            _log.warn(f"Failed to umount {record.container} because it is used by {other.container}")
            raise UmountBusy(record.container)

    def resources_of(self, manifest: Manifest) -> dict[str, Container]:
        """The resources that a start would use now; raises StartContainerMissingResource."""
        names = {mount.name for mount in manifest.mounts.values() if isinstance(mount, model.Resource)}
        known: Iterable[Container] = [record.container for name in names for record in self.named(name)]
        if self.usable is not None:
            known = filter(self.usable, known)
        return plan.resources(manifest, list(known))
