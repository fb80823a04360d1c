# SPDX-License-Identifier: Apache-2.0
"""The life of the daemon: start-up, events, shutdown."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time

from northstar.errors import ApiError, NorthstarError, StorageError, Unexpected
from northstar.kernel import libc, scheduling
from northstar.programs import control
from northstar.runtime import log
from northstar.runtime.console.listener import Listener
from northstar.runtime.containers import devices
from northstar.runtime.eventloop.loop import Cancelled, Loop, Timeout
from northstar.runtime.monitoring.servicemanager import ServiceManager
from northstar.runtime.parts import OOM_SCORE_ADJ, Parts
from northstar.runtime.spawning.enginelink import PATIENCE
from northstar.runtime.storage import sweep
from northstar.runtime.storage.mounter import release_run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.config import Config
    from northstar.config.model import MetricsConfig
    from northstar.runtime.containers.damage import DamageWatch
    from northstar.runtime.eventloop.loop import Task
    from northstar.runtime.monitoring.exporter import Exporter

_log = log.Logger("runtime")

CONNECTION_GRACE = 1.0
EXIT_GRACE = 10.0
START_UP_GRACE = 1.0
LOG_RETRY = 0.01
LOG_GRACE = 0.5


class Daemon:
    """One run of the daemon."""

    def __init__(
        self, config: Config, *, host_root: int, open_files: tuple[int, int], private_mounts: bool
    ) -> None:
        """Take over the directories; raises NorthstarError if another daemon has them.

        `host_root` is a descriptor of / in the host's mount namespace, `open_files` are the limits of
        RLIMIT_NOFILE that were in force at first.
        """
        self._config = config
        self._open_files = open_files
        self._private_mounts = private_mounts
        self._locks = sweep.lock_directories(config)
        self._loop = Loop(self._failed)
        _watch(self._loop)
        self._manager = ServiceManager(self._loop)
        log.watch_backlog(self._flush_log)
        self._parts = Parts(
            config, self._loop, self._engine_died, host_root=host_root, private_mounts=private_mounts
        )
        self._runtime = self._parts.runtime
        self._engine = self._parts.engine
        self._console = self._parts.console
        self._listeners: list[Listener] = []
        self._exporter: Exporter | None = None
        self._damage: DamageWatch | None = None

    def degrade(self, place: str, reason: str) -> None:
        """Go on although some storage cannot be used."""
        self._runtime.degraded[place] = reason
        _log.error(reason)

    def run(self) -> int:
        """Run until shutdown; the exit code."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            signal.signal(number, self._on_signal)
        code = self._loop.run(self._main())
        log.finish(LOG_GRACE)
        # Everything is done; a signal while the interpreter ends would only spoil the exit code.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        return code

    async def _main(self) -> int:
        failure: str | None
        start_up = self._loop.spawn(self._start_up())
        try:
            await self._loop.first(start_up, self._runtime.stopping)
            if start_up.done:
                start_up.result()
            failure = await self._runtime.stopping
            await self._end_start_up(start_up)
        except NorthstarError as error:
            failure = f"{error}" + (f" ({error.hint})" if error.hint else "")
        clean = await self._shut_down()
        if failure is not None:
            _log.error(f"Runtime exited with error: {failure}")
        return 0 if clean and failure is None else 1

    # --- start-up

    async def _set_up_engine(self) -> None:
        """Its standard streams are a node that a container cannot change."""
        core_files = resource.getrlimit(resource.RLIMIT_CORE)[1]
        score = None if self._parts.site.facts.oom_score_adj is None else OOM_SCORE_ADJ
        program = control.set_up(os.getpid(), self._open_files, core_files, score)
        null = os.open(f"{self._parts.site.places.devices}/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            await self._engine.set_up(program, null)
        finally:
            os.close(null)

    async def _start_up(self) -> None:
        await self._set_up_engine()
        _be_served_soon()
        try:
            self._parts.cgroups.open()
        except OSError as error:
            # Starts will say the same; containers without an init are of use nevertheless.
            _log.warn(f"cgroup {self._config.cgroup} cannot be made: {error.strerror}")
        for console in self._config.consoles:
            self._listeners.append(Listener(self._loop, self._console, console))
        if self._config.metrics is not None:
            self._exporter = self._export(self._config.metrics)
        verified = any(repository.verified for repository in self._runtime.repositories.values())
        for what, reason in (await self._loop.in_thread(self._missing, verified)).items():
            _log.warn(f"No {what}, packages that need it cannot be mounted: {reason}")
        if verified:
            self._watch_for_damage()
        for repository in self._runtime.repositories.values():
            try:
                await self._loop.in_thread(repository.load)
            except StorageError as error:
                self.degrade(f"repositories.{repository.id}", f"{error}: its containers are not available")
            await self._runtime.packages.add_repository(repository)
        to_mount = {r.id: r.require_mounts for r in self._config.repositories.values() if r.mount_on_start}
        if to_mount:
            _log.info(f"Trying to mount containers from repository {', '.join(to_mount)}")
            await self._runtime.mounts.mount_on_start(to_mount)
        await self._runtime.updating.recover(self._runtime.repositories)
        await self._runtime.starts.autostart()
        self._runtime.boot.begin()
        await self._engine.prepare()
        await self._runtime.set_up()
        self._manager.ready()
        # What start-up needed once, such as the tables of the configuration's parser.
        gc.collect()
        libc.trim_heap()
        _log.info("Runtime up and running")

    def _missing(self, verified: bool) -> dict[str, str]:
        return self._parts.mounter.missing(verified=verified)

    def _watch_for_damage(self) -> None:
        # Without a key nobody notices damage, so there is nothing to watch.
        from northstar.runtime.containers.damage import DamageWatch
        from northstar.runtime.containers.damagecontrol import DamageControl

        runtime = self._runtime
        control = DamageControl(self._loop, runtime.containers, runtime.updating, runtime.supervisor)
        self._parts.events.add(control)
        try:
            self._damage = DamageWatch(self._loop, self._runtime.containers, self._parts.events)
        except OSError as error:
            _log.warn(f"Damaged images are told by the kernel's log only: {error.strerror}")

    async def _end_start_up(self, start_up: Task) -> None:
        """A shutdown does not wait for the rest; starts that have begun end with all other containers."""
        for repository in self._runtime.repositories.values():
            repository.stop_loading()
        start_up.cancel()
        try:
            await self._loop.wait_for(start_up, START_UP_GRACE)
        except (Timeout, Cancelled, NorthstarError):
            return

    def _export(self, config: MetricsConfig) -> Exporter:
        # Most devices are not monitored and have no use for this code.
        from northstar.runtime.monitoring.exporter import Exporter
        from northstar.runtime.monitoring.metrics import Metrics

        runtime = self._runtime
        metrics = Metrics(self._loop, runtime.containers, self._console.count_connections, runtime.problems)
        self._parts.events.add(metrics)
        self._console.watch(metrics.requested)
        return Exporter(self._loop, config, metrics.text)

    # --- shutdown

    async def _shut_down(self) -> bool:
        """Whether nothing is left behind."""
        began = time.monotonic()
        self._manager.stopping()
        _log.debug("Shutting down Northstar runtime")
        if self._listeners:
            _log.debug("Shutting down console")
        for listener in self._listeners:
            listener.close()
        if self._engine.died:
            # Nobody has asked for this end, so clients hear of those of the containers.
            survivors = await self._end_all_runs()
            await self._console.close_clients(CONNECTION_GRACE)
        else:
            await self._console.close_clients(CONNECTION_GRACE)
            survivors = await self._end_all_runs()
        if self._parts.debugger is not None:
            await self._parts.debugger.stop()
        await self._runtime.mounts.umount_all()
        _log.debug(f"Joining engine with pid {self._engine.pid}")
        await self._engine.close()
        self._parts.cgroups.close()
        if self._exporter is not None:
            await self._exporter.stop()
        for repository in self._runtime.repositories.values():
            await self._loop.in_thread(repository.close)
        if self._damage is not None:
            self._damage.close()
        self._parts.mounter.close()
        self._release_run_dir()
        _log.debug(f"Shutdown took {time.monotonic() - began:.3f}s")
        _log.info("Shutdown complete")
        return survivors == 0

    async def _end_all_runs(self) -> int:
        """How many containers are left."""
        if await self._engine.end_if_silent():
            _log.warn(f"The engine has not answered for {PATIENCE:.0f} s and was killed")
        if not self._engine.died:
            await self._runtime.starts.stop_all_runs()
        survivors = await self._runtime.starts.end_all_runs(EXIT_GRACE)
        for container in survivors:
            _log.error(f"{container} did not end within {EXIT_GRACE:.0f} s after SIGKILL")
        return len(survivors)

    def _release_run_dir(self) -> None:
        try:
            devices.remove(self._parts.site.places.devices)
            if not self._private_mounts:
                release_run_dir(self._config.run_dir)
        except OSError as error:
            _log.warn(f"failed to clean up {error.filename}: {error.strerror}")

    # --- events

    def _flush_log(self) -> None:
        if not log.flush():
            self._loop.call_later(LOG_RETRY, self._flush_log)

    def _on_signal(self, number: int, _: object) -> None:
        # This interrupts any other code, so the work is left to the loop.
        self._loop.call_from_outside(lambda: self._stop_on(signal.Signals(number)))

    def _stop_on(self, number: signal.Signals) -> None:
        _log.info(f"Received {number.name}. Stopping Northstar runtime")
        self._runtime.request_shutdown()

    def _engine_died(self) -> None:
        if not self._runtime.stopping.done:
            _log.warn("The engine has died, and all containers with it. Stopping Northstar runtime")
            self._runtime.request_shutdown("the engine has died, and all containers with it")

    def _failed(self, failure: BaseException) -> None:
        if isinstance(failure, ApiError) and not isinstance(failure, Unexpected):
            return
        _log.error(f"Internal error: {type(failure).__name__}: {failure}")
        for line in _traceback(failure):
            _log.debug(line)


def _be_served_soon() -> None:
    """Whoever waits for the daemon shall not wait for what the programs of containers compute."""
    try:
        scheduling.ask_for_slice(scheduling.SHORTEST_SLICE)
    except OSError as error:
        _log.debug(f"The scheduler grants no shorter slices: {error.strerror}")


def _watch(loop: Loop) -> None:
    """Report slow calls, if the environment asks for it."""
    if "NORTHSTAR_SLOW_CALLS" in os.environ:
        from northstar.runtime.eventloop import watch

        if limit := watch.limit():
            loop.observer = watch.LoopWatch(limit, _log.error)


def _traceback(failure: BaseException) -> list[str]:
    import traceback

    return "".join(traceback.format_exception(failure)).splitlines()
