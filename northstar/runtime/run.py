# SPDX-License-Identifier: Apache-2.0
"""One run of a container: everything that exists only while it runs, and its orderly end."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from northstar.errors import StartContainerFailed, StartContainerMissingResource, Unexpected
from northstar.kernel import namespaces, proc
from northstar.manifest import extension, model
from northstar.programs import start
from northstar.runtime import devices, log, persist, plan
from northstar.runtime.output import Streams
from northstar.runtime.process import NeverBegan, Process
from northstar.runtime.sockets import ContainerSockets
from northstar.supervision.model import MAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from northstar.engine.assembler import Program
    from northstar.names import Container
    from northstar.programs.plan import Plan
    from northstar.runtime.cgroups import Cgroups, Group
    from northstar.runtime.connection import Connection
    from northstar.runtime.console import ConsoleServer
    from northstar.runtime.containers import Record
    from northstar.runtime.debug import Attached, Debugger
    from northstar.runtime.enginelink import Engine
    from northstar.runtime.loop import Future, Loop
    from northstar.runtime.notifications import Notifications
    from northstar.runtime.oom import OomMonitor
    from northstar.runtime.sessions import Session
    from northstar.runtime.supervision.notifysocket import NotifySocket
    from northstar.supervision.notification import Message

_log = log.Logger("runtime::run")

MAX_DRAINED = 1024
"""Notifications that are read after the end of a program."""
_NETWORK_NAMESPACES = "/run/netns"


class Host:
    """What a run needs of the daemon."""

    __slots__ = (
        "cgroups",
        "console",
        "debugger",
        "engine",
        "facts",
        "host_network",
        "host_root",
        "loop",
        "notifications",
        "output_buffer_size",
        "places",
    )

    def __init__(
        self,
        loop: Loop,
        engine: Engine,
        places: plan.Places,
        console: ConsoleServer,
        cgroups: Cgroups,
        notifications: Notifications,
        debugger: Debugger | None,
        facts: plan.Facts,
        *,
        host_root: int,
        host_network: int,
        output_buffer_size: int,
    ) -> None:
        self.loop = loop
        self.engine = engine
        self.places = places
        self.console = console
        self.cgroups = cgroups
        self.notifications = notifications
        self.debugger = debugger
        self.host_root = host_root
        self.host_network = host_network
        self.facts = facts
        self.output_buffer_size = output_buffer_size


def planned(
    host: Host,
    record: Record,
    command: plan.Command,
    resources: Mapping[str, Container],
    group_roles: list[str],
    group_numbers: list[int],
    devices_tree: str,
    notify: plan.Notify | None = None,
) -> Plan:
    """The plan of a start on this host, be it to be carried out or explained. Raises StartContainerFailed."""
    return plan.build(
        record.manifest,
        command,
        host.places._replace(devices=devices_tree),
        resources,
        plan.roles(record.manifest, group_roles, notify),
        host.facts,
        group_numbers=group_numbers,
        application_filter=record.filter,
        hold=host.debugger is not None,
        notify=notify,
    )


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
        "groups",
        "notify",
        "process",
        "record",
        "resources",
        "sessions",
        "telling",
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
        self.notify: NotifySocket | None = None
        """Through which its program tells how it is."""
        self.telling = False
        """A notification about what it says of itself is on its way."""
        self.groups: list[int] = []
        """Numbers of its supplementary groups."""
        self.sessions: set[Session] = set()
        self.record = record
        self.resources = frozenset(resources.values())
        self.process = Process(host.loop, host.engine, record.container)
        self.ended = ended
        """Done when the exit has been dealt with completely."""

    async def start(self, command: plan.Command, resources: Mapping[str, Container]) -> None:
        """From nothing to an executing application. After a failure nothing is left.

        Raises the errors of a start request.
        """
        try:
            if self.record.settings.notifies:
                # Most containers have none.
                from northstar.runtime.supervision.notifysocket import NotifySocket

                self.notify = NotifySocket(
                    self._host.loop, str(self.record.container), self.record.manifest.uid
                )
            if self._has_to_wait():
                self.groups = await self._host.loop.in_thread(self._prepare_apart)
            with contextlib.ExitStack() as stack:
                descriptors, program = self._prepare(command, resources, stack)
                try:
                    await self._execute(program, descriptors)
                except NeverBegan:
                    await self._detach()
                    await self._execute(program, descriptors)
        except BaseException as error:
            await self._clean_up()
            raise self._translate(error) from None
        finally:
            self._host.loop.spawn(self._host.engine.prepare())

    def _has_to_wait(self) -> bool:
        manifest = self.record.manifest
        if self.notify is not None:
            return True
        if manifest.suppl_groups or any(isinstance(m, model.Persist) for m in manifest.mounts.values()):
            return True
        return self._host.cgroups.has_leftover(self.record.container, manifest)

    def _prepare_apart(self) -> list[int]:
        """What may wait for a disk, users' databases or dying processes; for a thread. The group numbers."""
        manifest = self.record.manifest
        self._host.cgroups.remove_leftover(self.record.container, manifest)
        persist.prepare(self._host.places.data_dir, manifest)
        if self.notify is not None:
            run_dir = self._host.places.run_dir
            image = f"{run_dir}/{self.record.container}"
            self.notify.make(run_dir, image, extension.notify_place(manifest))
        return plan.groups(manifest, _log.warn)

    async def _execute(self, program: Program, descriptors: list[int]) -> None:
        await self.process.create(self._host.engine.start, program, descriptors)
        if self._host.debugger is not None:
            await self._attach(self._host.debugger)
        await self.process.running()
        if self.notify is not None:
            self.notify.began()

    async def _attach(self, debugger: Debugger) -> None:
        try:
            self._attached = await debugger.attach(self.record.container, self.process.pid)
        except BaseException:
            await self.process.abandon()
            raise
        self.process.release()

    async def _detach(self) -> None:
        if self._attached is not None:
            await self._attached.stop()
            self._attached = None

    def _prepare(
        self, command: plan.Command, resources: Mapping[str, Container], stack: contextlib.ExitStack
    ) -> tuple[list[int], Program]:
        host, manifest = self._host, self.record.manifest
        descriptors: list[int] = []
        if manifest.console is not None:
            self._connection, theirs = host.console.connect_container(manifest)
            stack.callback(theirs.close)
            descriptors.append(theirs.fileno())
        self.record.output.begin(host.output_buffer_size)
        self._streams = Streams(host.loop, manifest, self.record.output)
        stack.callback(self._streams.close_ends)
        descriptors += self._streams.descriptors.values()
        self._sockets = ContainerSockets(host.places.socket_dir, manifest)
        stack.callback(self._sockets.close_ends)
        descriptors += self._sockets.descriptors
        self._open_network_namespace()
        if self._network_namespace is not None:
            descriptors.append(self._network_namespace)
        elif isinstance(manifest.network, model.NetworkHost):
            descriptors.append(host.host_network)
        notify = self._notify_plan(descriptors)
        group_roles: list[str] = []
        self._group = host.cgroups.create(self.record.container, manifest)
        if self._group is not None:
            stack.callback(self._group.close_entrances)
            for role, descriptor in self._group.entrances:
                group_roles.append(role)
                descriptors.append(descriptor)
            if manifest.cgroups is not None and manifest.cgroups.memory is not None:
                self._watch_memory(self._group, manifest.cgroups.memory)
        tree = devices.tree_for(host.places.devices, manifest)
        order = planned(host, self.record, command, resources, group_roles, self.groups, tree, notify)
        return descriptors, start.build(order)

    def _notify_plan(self, descriptors: list[int]) -> plan.Notify | None:
        if self.notify is None:
            return None
        if self.notify.theirs is not None:
            descriptors.append(self.notify.theirs.fileno())
        watchdog = self.record.settings.watchdog
        return plan.Notify(
            self.notify.address,
            0.0 if watchdog is None else watchdog.interval,
            self.notify.abstract_name,
            self.notify.place,
            self.notify.source,
        )

    def listen(self, tell: Callable[[Message, list[int]], None]) -> None:
        """The program executes: hear what it tells."""
        if self.notify is not None:
            main = self.process.pid if self.record.settings.ready.access == MAIN else None
            self.notify.serve(tell, main)

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
        if self._group is not None:
            found += self._group.open_entrances()
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
        if self.notify is not None:
            self.notify.drain(MAX_DRAINED)
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
        await self._detach()
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
        if self.notify is not None:
            await self.notify.close()
            self.notify = None
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
