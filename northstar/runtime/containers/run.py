# SPDX-License-Identifier: Apache-2.0
"""One run of a container: everything that exists only while it runs, and its orderly end."""

from __future__ import annotations

import contextlib
import os

from northstar.errors import StartContainerFailed, StartContainerMissingResource, Unexpected
from northstar.kernel import namespaces, procfs
from northstar.manifest import extension, model
from northstar.programs import attendance, start
from northstar.runtime import log
from northstar.runtime.containers import devices
from northstar.runtime.containers.cleanups import CleanUps
from northstar.runtime.containers.host import Order
from northstar.runtime.containers.plan import Notify, groups
from northstar.runtime.containers.sockets import ContainerSockets
from northstar.runtime.output.streams import Streams
from northstar.runtime.spawning.process import NeverBegan, Process
from northstar.runtime.storage import persist
from northstar.runtime.supervision.descriptors import environment
from northstar.supervision.model import MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from northstar.names import Container
    from northstar.programs.plan import Plan
    from northstar.runtime.containers.command import Command
    from northstar.runtime.containers.host import Application, Host
    from northstar.runtime.containers.programs import Ready
    from northstar.runtime.controlgroups.group import Group
    from northstar.runtime.debugging.debugger import Attached, Debugger
    from northstar.runtime.eventloop.loop import Future
    from northstar.runtime.supervision.descriptors import Stored
    from northstar.runtime.supervision.notifysocket import NotifySocket
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.supervision.notification import Message

    class Session(Protocol):
        """A command of a client in the container, which ends with it."""

        ended: Future

        def hang_up(self) -> None:
            """Let it end."""


_log = log.Logger("runtime::run")
_state_log = log.Logger("runtime::state")
MAX_DRAINED = 1024
"""Notifications that are read after the end of a program."""
_NETWORK_NAMESPACES = "/run/netns"


class Run:
    """A start under way, or a running container."""

    __slots__ = (
        "_attached",
        "_clean_ups",
        "_group",
        "_host",
        "_sockets",
        "_streams",
        "ended",
        "groups",
        "notify",
        "process",
        "record",
        "resources",
        "sessions",
        "stored",
    )

    def __init__(
        self, host: Host, record: Application, resources: Mapping[str, Container], ended: Future
    ) -> None:
        self._host = host
        self._clean_ups = CleanUps()
        self._group: Group | None = None
        self._sockets: ContainerSockets | None = None
        self._streams: Streams | None = None
        self._attached: Attached | None = None
        self.notify: NotifySocket | None = None
        """Through which its program tells how it is."""
        self.stored: list[Stored] = []
        """Copies of what earlier runs have left for this one."""
        self.groups: list[int] = []
        """Numbers of its supplementary groups."""
        self.sessions: set[Session] = set()
        self.record = record
        self.resources = frozenset(resources.values())
        self.process = Process(host.loop, host.engine, record.container)
        self.ended = ended
        """Done when the exit has been dealt with completely."""

    async def start(self, command: Command, resources: Mapping[str, Container]) -> None:
        """From nothing to an executing application. After a failure nothing is left.

        Raises the errors of a start request.
        """
        self._clean_ups.add("close what earlier runs have left", self._close_stored)
        try:
            if self.record.settings.notifies:
                self._make_notify_socket()
            if self._has_to_wait():
                self.groups = await self._host.loop.in_thread(self._prepare_apart)
            with contextlib.ExitStack() as stack:
                no_mounts = await self._host.no_mounts(self.record.container)
                descriptors, order = self._prepare(command, resources, no_mounts, stack)
                ready = self._host.ready(self.record.container, order)
                try:
                    await self._execute(ready, descriptors)
                except NeverBegan:
                    await self._detach()
                    await self._execute(ready, descriptors)
        except BaseException as error:
            await self._clean_ups.run()
            raise self._translate(error) from None
        finally:
            self._host.engine.prepare_when_idle()

    def _close_stored(self) -> None:
        for each in self.stored:
            os.close(each.number)
        self.stored = []

    def _make_notify_socket(self) -> None:
        # Most containers have none.
        from northstar.runtime.supervision.notifysocket import NotifySocket

        self.notify = NotifySocket(self._host.loop)
        self._clean_ups.add("close its socket for notifications", self.notify.close)

    def _has_to_wait(self) -> bool:
        manifest = self.record.manifest
        if self.notify is not None or manifest.sockets:
            return True
        if manifest.suppl_groups or any(isinstance(m, model.Persist) for m in manifest.mounts.values()):
            return True
        return self._host.cgroups.has_group(self.record.container, manifest)

    def _prepare_apart(self) -> list[int]:
        """What may wait for a disk, users' databases or the kernel; for a thread. The group numbers."""
        manifest = self.record.manifest
        self._make_group()
        persist.prepare(self._host.site.places.data_dir, manifest)
        if self.notify is not None:
            run_dir = self._host.site.places.run_dir
            image = f"{run_dir}/{self.record.container}"
            self.notify.make(run_dir, image, extension.reachable_notify_place(manifest))
        if manifest.sockets:
            self._sockets = ContainerSockets(self._host.site.places.socket_dir, manifest)
            self._clean_ups.add("remove its sockets", self._remove_sockets)
        return groups(manifest, _log.warn)

    async def _execute(self, ready: Ready, descriptors: list[int]) -> None:
        await self.process.create(self._host.engine.start, ready.program, descriptors)
        # Only now, while the engine works.
        _tell_details(self.record, ready.plan)
        if self._host.debugger is not None:
            self._clean_ups.add("end the tools that watch it", self._detach)
            await self._attach(self._host.debugger)
        await self.process.running(lambda: start.build(ready.plan))
        self._close_stored()
        if self.notify is not None:
            try:
                self.notify.began()
            except BaseException:
                await self.process.abandon()
                raise

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
        self,
        command: Command,
        resources: Mapping[str, Container],
        no_mounts: int,
        stack: contextlib.ExitStack,
    ) -> tuple[list[int], Order]:
        """Make what the container gets; `stack` closes those ends of it that the engine has copied."""
        host, manifest = self._host, self.record.manifest
        descriptors = [
            *(each.number for each in self.stored),
            *self._connect(stack),
            *self._open_streams(stack),
            *self._open_sockets(stack),
            no_mounts,
            *self._network(),
        ]
        notify = self._plan_notify(descriptors)
        group_roles, entrances = self._enter_group(stack)
        tree = devices.tree_for(host.site.places.devices, manifest)
        order = Order(
            manifest, self.record.filter, command, resources, group_roles, self.groups, tree, notify
        )
        return descriptors + entrances, order

    def _plan_notify(self, descriptors: list[int]) -> Notify | None:
        if self.notify is None:
            return None
        if self.notify.theirs is not None:
            descriptors.append(self.notify.theirs.fileno())
        watchdog = self.record.settings.watchdog
        return Notify(
            self.notify.address,
            0.0 if watchdog is None else watchdog.interval,
            self.notify.abstract_name,
            self.notify.place,
            self.notify.source,
            environment(self.stored, attendance.APPLICATION) if self.stored else {},
            len(self.stored),
        )

    def listen(self, record: Supervised, tell: Callable[[Supervised, Message, list[int]], None]) -> None:
        """The program executes: hear what it tells."""
        if self.notify is not None:
            init = self.process.pid if self.record.settings.ready.access == MAIN else None
            self.notify.serve(record, tell, init)

    def _connect(self, stack: contextlib.ExitStack) -> list[int]:
        manifest = self.record.manifest
        if manifest.console is None:
            return []
        ours, theirs = self._host.connect(manifest)
        self._clean_ups.add("close its console", ours.stop)
        stack.callback(theirs.close)
        return [theirs.fileno()]

    def _open_streams(self, stack: contextlib.ExitStack) -> list[int]:
        output = self.record.output
        output.begin(self._host.site.output_buffer_size)
        self._streams = Streams(self._host.loop, self.record.manifest, output)
        stack.callback(self._streams.close_ends)
        return list(self._streams.descriptors.values())

    def _open_sockets(self, stack: contextlib.ExitStack) -> list[int]:
        if self._sockets is None:
            return []
        stack.callback(self._sockets.close_ends)
        return self._sockets.descriptors

    async def _remove_sockets(self) -> None:
        if self._sockets is not None:
            self._sockets.close_ends()
            await self._host.loop.in_thread(self._sockets.remove)

    def _network(self) -> list[int]:
        network = self.record.manifest.network
        if isinstance(network, model.NetworkHost):
            return [self._host.site.network]
        if not isinstance(network, model.NetworkNamespace):
            return []
        return [self._open_network_namespace(network.name)]

    def _open_network_namespace(self, name: str) -> int:
        """Raises StartContainerFailed."""
        path = f"{_NETWORK_NAMESPACES}/{name}"
        try:
            if "/" in name or name in ("", ".", ".."):
                raise OSError(0, "the name is no single path component")
            flags = os.O_RDONLY | os.O_CLOEXEC
            descriptor = os.open(path.removeprefix("/"), flags, dir_fd=self._host.site.root)
            # Kept, as meanwhile the name may be that of another one.
            self._clean_ups.add("leave its network", lambda: os.close(descriptor))
            if namespaces.nstype(descriptor) != namespaces.CLONE_NEWNET:
                raise OSError(0, "this is no network namespace")
        except OSError as error:
            reason = f"network namespace {path}: {error.strerror}"
            raise StartContainerFailed(self.record.container, reason) from None
        return descriptor

    def _make_group(self) -> None:
        container, manifest = self.record.container, self.record.manifest
        self._host.cgroups.remove_leftover(container, manifest)
        self._group = self._host.cgroups.create(container, manifest)
        if self._group is not None:
            self._clean_ups.add("remove its control group", self._remove_group)

    def _enter_group(self, stack: contextlib.ExitStack) -> tuple[list[str], list[int]]:
        """Roles and descriptors of the entrances of the control group."""
        group, manifest = self._group, self.record.manifest
        if group is None:
            return [], []
        stack.callback(group.close_entrances)
        if manifest.cgroups is not None and manifest.cgroups.memory is not None:
            self._watch_memory(group, manifest.cgroups.memory)
        return [role for role, _ in group.entrances], [descriptor for _, descriptor in group.entrances]

    def _watch_memory(self, group: Group, memory: model.Memory) -> None:
        if memory.oom_monitor:
            from northstar.runtime.controlgroups.oom import OomMonitor

            container, tell = self.record.container, self._host.on_memory_event
            monitor = OomMonitor(self._host.loop, container, group, lambda event: tell(container, event))
            self._clean_ups.add("watch its memory to the end", monitor.finish)

    async def _remove_group(self) -> None:
        if self._group is not None:
            _log.info(f"Destroying cgroup of {self.record.container}")
            group, self._group = self._group, None
            await self._host.loop.in_thread(group.remove)

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
        try:
            if self.notify is not None:
                self.notify.drain(MAX_DRAINED)
            for session in tuple(self.sessions):
                session.hang_up()
                await session.ended
            if self._streams is not None:
                await self._streams.drain()
        finally:
            await self._clean_ups.run()

    def statistics(self) -> dict[str, Any]:
        """Resource usage by cgroup controller."""
        return {} if self._group is None else self._group.statistics()

    async def processes(self) -> list[dict[str, Any]]:
        """What the processes of the container do. There may be hundreds, so a thread looks at them."""
        if self.process.pidfd < 0:
            return []  # its pid may be somebody else's
        found = await self._host.loop.in_thread(procfs.descendants, self.process.pid)
        return [_describe(process) for process in found]

    def read_group(self, file: str) -> str | None:
        """Content of a file of the control group, None if there is none."""
        return None if self._group is None else self._group.read(file)


def _tell_details(record: Application, plan: Plan) -> None:
    container, streams = record.container, record.manifest.io
    _state_log.debug(f'Container {container} init is "{plan["argv"][0]}"')
    _state_log.debug(f'Container {container} argv is "{" ".join(plan["argv"])}"')
    _state_log.debug(f'Container {container} env is "{", ".join(plan["env"])}"')
    _state_log.debug(f"Container {container} stdout is {streams.stdout if streams else 'discard'}")
    _state_log.debug(f"Container {container} stderr is {streams.stderr if streams else 'discard'}")


def _describe(process: procfs.Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "parent": process.parent,
        "name": process.name,
        "state": process.state,
        "threads": process.threads,
        "cpu_time": process.cpu_time,
        "resident": process.resident,
    }
