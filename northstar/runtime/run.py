# SPDX-License-Identifier: Apache-2.0
"""One run of a container: everything that exists only while it runs, and its orderly end."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from northstar.errors import StartContainerFailed, StartContainerMissingResource, Unexpected
from northstar.kernel import capabilities, namespaces, proc
from northstar.manifest import model
from northstar.runtime import initfilter, log, persist, plan
from northstar.runtime.output import Streams
from northstar.runtime.process import Process
from northstar.runtime.sockets import ContainerSockets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from northstar.forker.messages import Plan
    from northstar.names import Container
    from northstar.runtime.cgroups import Cgroups, Group
    from northstar.runtime.console import Connection, ConsoleServer
    from northstar.runtime.containers import Record
    from northstar.runtime.debug import Attached, Debugger
    from northstar.runtime.forkerlink import ForkerLink
    from northstar.runtime.loop import Future, Loop
    from northstar.runtime.notifications import Notifications
    from northstar.runtime.oom import OomMonitor
    from northstar.runtime.sessions import Session

_log = log.Logger("runtime::run")
_NETWORK_NAMESPACES = "/run/netns"


class Host:
    """What a run needs of the daemon."""

    __slots__ = (
        "capabilities",
        "cgroups",
        "console",
        "debugger",
        "forker",
        "host_root",
        "loop",
        "notifications",
        "oom_score_adj",
        "output_buffer_size",
        "places",
        "selinux",
    )

    def __init__(
        self,
        loop: Loop,
        forker: ForkerLink,
        places: plan.Places,
        console: ConsoleServer,
        cgroups: Cgroups,
        notifications: Notifications,
        debugger: Debugger | None,
        *,
        host_root: int,
        selinux: bool,
        oom_score_adj: int | None,
        output_buffer_size: int,
    ) -> None:
        self.loop = loop
        self.forker = forker
        self.places = places
        self.console = console
        self.cgroups = cgroups
        self.notifications = notifications
        self.debugger = debugger
        self.host_root = host_root
        self.selinux = selinux
        self.capabilities = capabilities.get()[1]
        self.oom_score_adj = oom_score_adj
        self.output_buffer_size = output_buffer_size


class Run:
    """A start under way, or a running container."""

    __slots__ = (
        "_attached",
        "_connection",
        "_group",
        "_host",
        "_monitor",
        "_network_namespace",
        "_sockets",
        "_streams",
        "ended",
        "process",
        "record",
        "resources",
        "sessions",
    )

    def __init__(self, host: Host, record: Record, resources: Mapping[str, Container], ended: Future) -> None:
        self._host = host
        self._sockets: ContainerSockets | None = None
        self._connection: Connection | None = None
        self._group: Group | None = None
        self._monitor: OomMonitor | None = None
        self._streams: Streams | None = None
        self._attached: Attached | None = None
        self._network_namespace: int | None = None
        """Kept, as meanwhile the name may be that of another one."""
        self.sessions: set[Session] = set()
        self.record = record
        self.resources = frozenset(resources.values())
        self.process = Process(host.loop, host.forker, record.container)
        self.ended = ended
        """Done when the exit has been dealt with completely."""

    async def start(self, command: plan.Command, resources: Mapping[str, Container]) -> None:
        """From nothing to an executing application. After a failure nothing is left.

        Raises the errors of a start request.
        """
        try:
            with contextlib.ExitStack() as stack:
                descriptors, order = self._prepare(command, resources, stack)
                filters = (self.record.filter, initfilter.program())
                await self.process.create(self._host.forker.start, order, descriptors, filters)
            if self._host.debugger is not None:
                await self._attach(self._host.debugger)
            await self.process.running()
        except BaseException as error:
            await self._clean_up()
            raise self._translate(error) from None
        finally:
            self._host.loop.spawn(self._host.forker.prepare())

    async def _attach(self, debugger: Debugger) -> None:
        try:
            self._attached = await debugger.attach(self.record.container, self.process.pid)
        except BaseException:
            await self.process.abandon()
            raise
        self.process.release()

    def _prepare(
        self, command: plan.Command, resources: Mapping[str, Container], stack: contextlib.ExitStack
    ) -> tuple[list[int], Plan]:
        host, manifest = self._host, self.record.manifest
        roles: list[str | int] = ["status"]
        descriptors: list[int] = []

        def hand_over(role: str | int, descriptor: int) -> None:
            roles.append(role)
            descriptors.append(descriptor)

        numbers = iter(range(plan.FIRST_DESCRIPTOR, plan.FIRST_DESCRIPTOR + 256))
        if manifest.console is not None:
            self._connection, theirs = host.console.connect_container(manifest)
            stack.callback(theirs.close)
            hand_over(next(numbers), theirs.fileno())
        self.record.output.begin(host.output_buffer_size)
        self._streams = Streams(host.loop, manifest, self.record.output)
        stack.callback(self._streams.close_ends)
        for role, descriptor in self._streams.descriptors.items():
            hand_over(role, descriptor)
        self._sockets = ContainerSockets(host.places.socket_dir, manifest)
        stack.callback(self._sockets.close_ends)
        for descriptor in self._sockets.descriptors:
            hand_over(next(numbers), descriptor)
        self._open_network_namespace()
        if self._network_namespace is not None:
            hand_over("network", self._network_namespace)
        self._group = host.cgroups.create(self.record.container, manifest)
        if self._group is not None:
            stack.callback(self._group.close_entrances)
            for role, descriptor in self._group.entrances:
                hand_over(role, descriptor)
            if manifest.cgroups is not None and manifest.cgroups.memory is not None:
                self._watch_memory(self._group, manifest.cgroups.memory)
        persist.prepare(host.places.data_dir, manifest)
        order = plan.build(
            manifest,
            command,
            host.places,
            resources,
            roles,
            group_numbers=plan.groups(manifest, _log.warn),
            available=host.capabilities,
            hold=host.debugger is not None,
            selinux=host.selinux,
            oom_score_adj=host.oom_score_adj,
        )
        return descriptors, order

    def _watch_memory(self, group: Group, memory: model.Memory) -> None:
        if memory.oom_monitor:
            from northstar.runtime.oom import OomMonitor

            container = self.record.container
            notify = self._host.notifications.memory_event
            self._monitor = OomMonitor(self._host.loop, container, group, lambda e: notify(container, e))

    def _open_network_namespace(self) -> None:
        network = self.record.manifest.network
        if not isinstance(network, model.NetworkNamespace):
            return
        path = f"{_NETWORK_NAMESPACES}/{network.name}"
        try:
            if "/" in network.name or network.name in ("", ".", ".."):
                raise OSError(0, "the name is no single path component")
            flags = os.O_RDONLY | os.O_CLOEXEC
            self._network_namespace = os.open(path.removeprefix("/"), flags, dir_fd=self._host.host_root)
            if namespaces.nstype(self._network_namespace) != namespaces.CLONE_NEWNET:
                raise OSError(0, "this is no network namespace")
        except OSError as error:
            reason = f"network namespace {path}: {error.strerror}"
            raise StartContainerFailed(self.record.container, reason) from None

    def entrances(self, stack: contextlib.ExitStack) -> list[tuple[str, int]]:
        """What a process of the host needs to come in, by role; valid until `stack` is closed.

        Raises OSError.
        """
        found = [("init", os.dup(self.process.pidfd))]
        if self._network_namespace is not None:
            found.append(("network", os.dup(self._network_namespace)))
        if self._group is not None:
            found += [("procs", descriptor) for descriptor in self._group.procs()]
        for _, descriptor in found:
            stack.callback(os.close, descriptor)
        return found

    def _translate(self, error: BaseException) -> BaseException:
        """A missing directory of a resource has an error variant of its own."""
        if isinstance(error, OSError):
            return Unexpected(
                f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
            )
        if isinstance(error, StartContainerFailed) and error.error.startswith("resource "):
            target = error.error.removeprefix("resource ").split(": ")[0].split(" (")[0]
            mount = self.record.manifest.mounts.get(target)
            if isinstance(mount, model.Resource):
                chosen = [c for c in self.resources if c.name == mount.name]
                _log.warn(f"{error}: directory {mount.dir} of {chosen[0]}")
                return StartContainerMissingResource(self.record.container, mount.name, chosen[0].version)
        return error

    async def finish(self) -> None:
        """The application has ended: pass on its last words and give back what it used."""
        for session in tuple(self.sessions):
            session.hang_up()
            await session.ended
        if self._streams is not None:
            await self._streams.drain()
        await self._clean_up()

    def statistics(self) -> dict[str, Any]:
        """Resource usage by cgroup controller."""
        return {} if self._group is None else self._group.statistics()

    async def processes(self) -> list[dict[str, Any]]:
        """What the processes of the container do. There may be hundreds, so a thread looks at them."""
        if self.process.pidfd < 0:
            return []  # its pid may be somebody else's
        found = await self._host.loop.in_thread(proc.descendants, self.process.pid)
        return [_describe(process) for process in found]

    def read_group(self, file: str) -> str | None:
        """Content of a file of the control group, None if there is none."""
        return None if self._group is None else self._group.read(file)

    async def _clean_up(self) -> None:
        """Remove what belongs to this run."""
        if self._attached is not None:
            await self._attached.stop()
            self._attached = None
        if self._network_namespace is not None:
            os.close(self._network_namespace)
            self._network_namespace = None
        if self._connection is not None:
            self._connection.stop()
            self._connection = None
        if self._monitor is not None:
            self._monitor.check()
            self._monitor.stop()
            self._monitor = None
        if self._group is not None:
            _log.info(f"Destroying cgroup of {self.record.container}")
            group, self._group = self._group, None
            await self._host.loop.in_thread(group.remove)
            group.remove_parents()
        if self._sockets is not None:
            self._sockets.remove()


def _describe(process: proc.Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "parent": process.parent,
        "name": process.name,
        "state": process.state,
        "threads": process.threads,
        "cpu_time": process.cpu_time,
        "resident": process.resident,
    }
