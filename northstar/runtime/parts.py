# SPDX-License-Identifier: Apache-2.0
"""The daemon's parts, put together: who knows whom."""

from __future__ import annotations

import os
import time

from northstar.engine import binary
from northstar.errors import NorthstarError
from northstar.kernel import capabilities
from northstar.protocol import tokens
from northstar.runtime import log
from northstar.runtime.console.handlers import Handlers
from northstar.runtime.console.notifications import Notifications
from northstar.runtime.console.server import ConsoleServer
from northstar.runtime.containers import devices
from northstar.runtime.containers.events import Events
from northstar.runtime.containers.host import Host, Site
from northstar.runtime.containers.plan import Facts, Places
from northstar.runtime.containers.runtime import Runtime
from northstar.runtime.controlgroups import detection
from northstar.runtime.spawning.enginelink import Engine
from northstar.runtime.storage import sweep
from northstar.runtime.storage.directory import DirectoryRepository
from northstar.runtime.storage.memory import MemoryRepository
from northstar.runtime.storage.mounter import DEVICES_DIR, Mounter, prepare_run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.config import Config
    from northstar.runtime.controlgroups.cgroups import Cgroups
    from northstar.runtime.debugging.debugger import Debugger
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.storage.repository import Repository

_log = log.Logger("runtime")

OOM_SCORE_ADJ = -900
"""Of all processes of the runtime."""


class Parts:
    """What exists as long as the daemon does. Nothing is started yet but the engine."""

    def __init__(
        self,
        config: Config,
        loop: Loop,
        on_engine_death: Callable[[], None],
        *,
        host_root: int,
        private_mounts: bool,
    ) -> None:
        """Clear what an earlier daemon has left, and prepare the directories. Raises NorthstarError."""
        self.cgroups = detection.detect(config.cgroup, config.pids_max)
        _sweep(config, self.cgroups)
        self.site = _site(config, host_root)
        _prepare(config, self.site.places, private_mounts)
        self.engine = _spawn_engine(loop, on_engine_death)
        self.debugger = _debugger(config, loop)
        self.mounter = Mounter(config, selinux=self.site.facts.selinux, log=_log)
        self.events = Events()
        host = Host(
            loop,
            self.engine,
            self.cgroups,
            self.site,
            connect=lambda manifest: self.console.connect_container(manifest),
            on_memory_event=self.events.memory_event,
            debugger=self.debugger,
        )
        repositories = _repositories(config)
        self.runtime = Runtime(
            host,
            repositories,
            self.mounter,
            config.mount_parallel,
            self.events,
            config.updates,
            config.boot,
        )
        self.console = self._console(config, loop)

    def _console(self, config: Config, loop: Loop) -> ConsoleServer:
        notifications = Notifications()
        self.events.add(notifications)
        authority = tokens.TokenAuthority(os.urandom(32), _boot_time)
        handlers = Handlers(loop, self.runtime, authority)
        options, backlog = config.container_console_options, config.notification_buffer_size
        return ConsoleServer(loop, notifications, handlers, options, backlog)


def _sweep(config: Config, cgroups: Cgroups) -> None:
    sweep.sweep(
        run_dir=config.run_dir,
        socket_dir=config.socket_dir,
        repositories=[r.dir for r in config.repositories.values() if r.dir is not None],
        cgroups=cgroups.paths(),
        log=_log,
    )


def _site(config: Config, host_root: int) -> Site:
    places = Places(
        config.run_dir,
        config.data_dir,
        config.socket_dir,
        f"{config.run_dir}/{DEVICES_DIR}",
        config.skip_missing_binds,
        config.persist_noexec,
    )
    network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return Site(places, _facts(), host_root, network, config.output_buffer_size)


def _facts() -> Facts:
    selinux = os.path.exists("/sys/fs/selinux/enforce")
    _log.debug(f"SELinux is {'enabled' if selinux else 'disabled'}")
    previous = _protect_from_oom_killer()
    return Facts(
        available=capabilities.get()[1],
        last_capability=capabilities.last_cap(),
        selinux=selinux,
        oom_score_adj=None if previous is None else (previous, OOM_SCORE_ADJ),
    )


def _protect_from_oom_killer() -> int | None:
    """Make the daemon an unlikely victim; the value that containers are to be reset to, None: their own."""
    path = "/proc/self/oom_score_adj"
    try:
        with open(path, "w") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError as error:
        _log.debug(f"Leaving oom_score_adj alone: {error.strerror}")
        return None
    return 0


def _prepare(config: Config, places: Places, private_mounts: bool) -> None:
    try:
        prepare_run_dir(config.run_dir, own_namespace=private_mounts)
        devices.prepare(places.devices)
    except OSError as error:
        raise NorthstarError(f"failed to prepare run_dir {error.filename}: {error.strerror}") from None


def _spawn_engine(loop: Loop, on_death: Callable[[], None]) -> Engine:
    try:
        return Engine(loop, binary.path(), on_death)
    except OSError as error:
        raise NorthstarError(f"failed to start the engine: {error.strerror}") from None


def _debugger(config: Config, loop: Loop) -> Debugger | None:
    debug = config.debug
    if not (debug.commands or debug.strace or debug.perf):
        return None
    # Devices in the field have no use for this code.
    from northstar.runtime.debugging.debugger import Debugger

    return Debugger(loop, debug, config.log_dir)


def _repositories(config: Config) -> dict[str, Repository]:
    repositories: dict[str, Repository] = {}
    for name, repository in config.repositories.items():
        kind = MemoryRepository if repository.dir is None else DirectoryRepository
        repositories[name] = kind(repository, _log)
    return repositories


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
