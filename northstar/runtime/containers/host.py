# SPDX-License-Identifier: Apache-2.0
"""The host as runs see it: what they need of the daemon, and what is the same for all of them."""

from __future__ import annotations

from northstar.errors import StartContainerFailed
from northstar.namedtuple import NamedTuple
from northstar.runtime.containers import plan
from northstar.runtime.containers.programs import RecentPrograms
from northstar.runtime.eventloop.loop import Mutex

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from northstar.manifest import Manifest
    from northstar.names import Container
    from northstar.programs.plan import Plan
    from northstar.runtime.containers.command import Command
    from northstar.runtime.containers.programs import Ready
    from northstar.runtime.controlgroups.cgroups import Cgroups
    from northstar.runtime.debugging.debugger import Debugger
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.output.lastoutput import LastOutput
    from northstar.runtime.spawning.enginelink import Engine
    from northstar.supervision.model import Settings

    class ContainerConnection(Protocol):
        """Our end of a container's connection to the console."""

        def stop(self) -> None:
            """Close it."""

    class Application(Protocol):
        """What can be started."""

        container: Container
        filter: bytes
        """System call filter of the application, a BPF program."""
        settings: Settings
        """About supervision."""
        output: LastOutput
        """What it has written since its last start."""

        @property
        def manifest(self) -> Manifest:
            """Of the package."""


class Site(NamedTuple):
    """What does not change while the daemon runs."""

    places: plan.Places
    facts: plan.Facts
    root: int
    """Descriptor of / in the host's mount namespace."""
    network: int
    """Descriptor of the host's network namespace."""
    output_buffer_size: int
    """Bytes of its last output that are kept for each container."""


class Order(NamedTuple):
    """Everything that tells one start from another, on this host."""

    manifest: Manifest
    filter: bytes
    """System call filter of the application, a BPF program."""
    command: Command
    resources: Mapping[str, Container]
    """The versions that were chosen, by mount point."""
    group_roles: list[str]
    """Of the entrances of its control group."""
    group_numbers: list[int]
    """Its supplementary groups."""
    devices: str
    """Tree that becomes its /dev."""
    notify: plan.Notify | None = None


class Host:
    """What a run needs of the daemon."""

    __slots__ = (
        "_making",
        "_no_mounts",
        "cgroups",
        "connect",
        "debugger",
        "engine",
        "loop",
        "on_memory_event",
        "programs",
        "site",
    )

    def __init__(
        self,
        loop: Loop,
        engine: Engine,
        cgroups: Cgroups,
        site: Site,
        *,
        connect: Callable[[Manifest], tuple[ContainerConnection, socket.socket]],
        on_memory_event: Callable[[Container, dict[str, int | None]], None],
        debugger: Debugger | None,
    ) -> None:
        """`connect` makes a console connection for a container, and its end of it."""
        self.loop = loop
        self.engine = engine
        self.cgroups = cgroups
        self.site = site
        self.connect = connect
        self.on_memory_event = on_memory_event
        self.debugger = debugger
        self.programs = RecentPrograms()
        self._no_mounts = -1
        self._making = Mutex()

    async def no_mounts(self, container: Container) -> int:
        """Descriptor of a mount namespace with nothing in it, made for the first start.

        Raises StartContainerFailed.
        """
        async with self._making:
            if self._no_mounts < 0:
                from northstar.runtime.containers import emptymounts

                try:
                    self._no_mounts = await self.loop.in_thread(emptymounts.make, self.site.places.run_dir)
                except OSError as error:
                    reason = f"make a mount namespace: {error.strerror}"
                    raise StartContainerFailed(container, reason) from None
        return self._no_mounts

    def plan(self, order: Order) -> Plan:
        """The plan of a start, be it to be carried out or explained. Raises StartContainerFailed."""
        return plan.build(
            order.manifest,
            order.command,
            self.site.places._replace(devices=order.devices),
            order.resources,
            plan.roles(order.manifest, order.group_roles, order.notify),
            self.site.facts,
            group_numbers=order.group_numbers,
            application_filter=order.filter,
            hold=self.debugger is not None,
            notify=order.notify,
        )

    def ready(self, container: Container, order: Order) -> Ready:
        """The start of a container, perhaps as it was made the last time. Raises StartContainerFailed."""
        return self.programs.ready(container, order, lambda: self.plan(order))
