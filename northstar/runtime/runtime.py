# SPDX-License-Identifier: Apache-2.0
"""The runtime: what can be done with containers, whoever asks for it.

Everything runs in one thread on one event loop; only mounting, loading and other blocking work goes to
threads. What changes mounts or the set of containers holds one mutex, so such operations have a serial
order. A start leaves the mutex as soon as all its packages are mounted and the container is marked as
running; from there any number of starts proceeds at the same time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from northstar.config.model import BootConfig
from northstar.errors import (
    ApiError,
    InstallDuplicate,
    InvalidRepository,
    StartContainerFailed,
    StartContainerResource,
    StartContainerStarted,
    StopContainerNotStarted,
    Unexpected,
)
from northstar.manifest import dump
from northstar.runtime import binds, devices, filters, log, persist, plan, users
from northstar.runtime.containers import Containers, Record
from northstar.runtime.loop import Future, Mutex, Timeout
from northstar.runtime.mounts import Mounts
from northstar.runtime.run import Host, Run, planned
from northstar.runtime.startlimit import START_LIMIT, within_limit
from northstar.runtime.supervision import supervisor
from northstar.runtime.supervision.bootwatch import BootWatch
from northstar.runtime.supervision.ordering import Ordering
from northstar.runtime.supervision.supervisor import Supervisor
from northstar.runtime.text import duration
from northstar.supervision import state as s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from northstar.manifest import Manifest
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.protocol import messages
    from northstar.runtime.metrics import Metrics
    from northstar.runtime.mounter import Mounter
    from northstar.runtime.notifications import Notifications
    from northstar.runtime.repository import Insert, Repository
    from northstar.runtime.sessions import Session

_log = log.Logger("runtime::state")

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
"""Who sends one of these wants the end of a container."""

AUTOSTART_PARALLEL = 1 + (os.cpu_count() or 1)
"""Starts at a time; more only wait for each other in the kernel."""


class Runtime:
    """Containers and repositories, and the operations on them. Errors are `ApiError`s."""

    def __init__(
        self,
        repositories: Mapping[str, Repository],
        mounter: Mounter,
        notifications: Notifications,
        mount_parallel: int | None,
        boot: BootConfig = BootConfig(),  # noqa: B008
    ) -> None:
        self.containers = Containers()
        self.repositories = repositories
        self.up = False
        self.stopping = Future()
        """Done when the runtime shall end; the result is the reason if it is a failure."""
        self.metrics: Metrics | None = None
        """Hears of starts and ends, if there is monitoring."""
        self._host: Host
        self._notifications = notifications
        self._mutex = Mutex()
        self.mounts = Mounts(self.containers, mounter, self._mutex, mount_parallel)
        self.supervisor = Supervisor(self.containers, notifications, AUTOSTART_PARALLEL)
        self.boot = BootWatch(self.containers, boot)
        self._ordering: Ordering
        self._publishing = Mutex()
        self._up = Future()

    # --- life of the runtime

    def attach(self, host: Host) -> None:
        """Give it what runs need. Before anything is started."""
        self._host = host
        self.mounts.attach(host.loop, host.places.run_dir)
        self.supervisor.attach(host.loop, self._start_again, self.request_shutdown)
        self.supervisor.check = self._check_health
        self.supervisor.moved = self._moved
        self._ordering = Ordering(self.containers, self.supervisor, host.loop)

    def _moved(self, record: Record, before: s.State) -> None:
        self._ordering.moved(record, before)
        self.boot.look()

    async def wait_until_up(self) -> None:
        """Wait until repositories are loaded and autostarts are done."""
        await self._up

    async def set_up(self) -> None:
        """Start-up is complete."""
        await self._warn_of_users()
        self.up = True
        self._up.set_result()

    async def _warn_of_users(self, only: int | None = None) -> None:
        manifests = [record.manifest for record in self.containers]
        # Looked up in a thread: a directory service may take its time.
        for warning in await self._host.loop.in_thread(_collect, manifests, only):
            _log.warn(warning)

    def request_shutdown(self, failure: str | None = None) -> None:
        """Let the runtime end, after the requests at hand."""
        self.stopping.set_result(failure)

    async def add_repository(self, repository: Repository) -> None:
        """Make the packages of a loaded repository known."""
        packages = list(repository.packages.items())
        compiled = await self._host.loop.in_thread(
            filters.application_filters, [package.manifest for _, package in packages]
        )
        for (container, package), outcome in zip(packages, compiled, strict=True):
            if container in self.containers:
                other = self.containers.get(container).repository.id
                _log.warn(
                    f"Skipping duplicate container {container} "
                    f"which is already loaded from repository {other}"
                )
                continue
            record = Record(container, repository, package)
            if isinstance(outcome, bytes):
                record.filter = outcome
            else:
                record.problem = str(outcome)
                _log.warn(f"{container} cannot be started: {outcome}")
            self.containers.add(record)

    async def autostart(self) -> None:
        """Start all containers that ask for it; raises the error of a critical one."""
        wanted = [record for record in self.containers if record.manifest.autostart]
        if not wanted:
            return
        began = time.monotonic()
        for record in wanted:
            _log.info(f"Autostarting {record.container} ({str(record.manifest.autostart).capitalize()})")
        await self.mounts.mount_for(wanted)
        free = self._ordering.hold(wanted)
        results = await self._host.loop.gather(
            *(self._autostart_one(record) for record in free), limit=AUTOSTART_PARALLEL
        )
        critical: Exception | None = None
        for record, result in zip(free, results, strict=True):
            if not isinstance(result, Exception):
                continue
            if record.manifest.autostart == "critical" and record.state.phase != s.WAITING:
                _log.error(f"Failed to autostart critical {record.container}: {result}")
                critical = critical or result
            else:
                _log.warn(f"Failed to autostart relaxed {record.container}: {result}")
        if critical is not None:
            raise critical
        started = sum(not isinstance(result, Exception) for result in results)
        _log.info(f"Successfully started {started} container(s) in {duration(time.monotonic() - began)}")

    async def _autostart_one(self, record: Record) -> None:
        """Who is not waited for any more, because of a shutdown, is ended by that as all others are."""
        self.supervisor.happen(record, s.Start(asked=False))
        generation = record.state.generation
        await self._host.loop.spawn(self.start(record.container, None, (), {}, generation))

    async def _start_again(self, record: Record, generation: int) -> None:
        """A start that the supervisor has begun; what fails is in the log, and a matter of its policy."""
        with contextlib.suppress(ApiError):
            await self.start(record.container, *record.command, generation)

    async def stop_all_runs(self) -> None:
        """Stop in order what is to be stopped so; `end_all_runs` kills the rest."""
        await self._ordering.stop_all()

    async def end_all_runs(self, limit: float) -> list[Container]:
        """Let no operation begin any more and kill everything that runs.

        Those that have not ended after `limit` seconds.
        """
        deadline = time.monotonic() + limit
        try:
            # Never released.
            await self._host.loop.wait_for(self._host.loop.spawn(self._mutex.__aenter__()), limit)
        except Timeout:
            _log.error(f"an operation has not ended within {limit:.0f} s")
        runs = self.containers.runs()
        for run in runs:
            _log.info(f"Killing {run.record.container} with SIGKILL")
        while runs and time.monotonic() < deadline:
            for run in runs:
                # More than once, as its start may be under way.
                run.process.kill()
            await self._host.loop.sleep(0.002)
            runs = [run for run in runs if not run.ended.done]
        return [run.record.container for run in runs]

    # --- inspect and kill

    async def inspect(self, container: Container) -> dict[str, Any]:
        """The data object of an inspect response."""
        record = self.containers.get(container)
        process = None
        run = record.run
        if run is not None:
            processes = await run.processes()
            statistics = await self._host.loop.in_thread(run.statistics)
            process = _process_data(run, processes, statistics)
        return {
            "manifest": dump.to_json(record.manifest),
            "repository": record.repository.id,
            "mounted": record.mounted,
            "process": process,
            "supervision": supervisor.describe(record.state, time.monotonic()),
        }

    def kill(self, container: Container, number: signal.Signals) -> None:
        """Send a signal to a running container."""
        record = self.containers.get(container)
        if record.run is None and record.state.phase == s.WAITING and number in _ENDING:
            _log.info(f"{container} is not started again")
            self.supervisor.happen(record, s.Killed())
            return
        run = self.containers.running(container)
        _log.info(f"Killing {container} with {number.name}")
        try:
            if not run.process.kill(number) and run.process.pid:
                _log.debug(f"Process {run.process.pid} already exited")
        except OSError as error:
            _log.error(f"failed to kill {container} with {number.name}: {error.strerror}")
            raise Unexpected(f"failed to kill {container}: {error.strerror}") from None
        if number in _ENDING:
            self.supervisor.happen(record, s.Killed())

    async def stop(self, container: Container, number: int | None, timeout: float | None) -> s.Last | None:
        """Stop a container, or cancel its next start; how it ended."""
        record = self.containers.get(container)
        if record.state.phase not in (*s.ALIVE, s.WAITING):
            raise StopContainerNotStarted(container)
        _log.info(f"Stopping {container}")
        self.supervisor.happen(record, s.Stop(number, timeout))
        await self.supervisor.until(lambda: record.state.phase not in s.ALIVE)
        return record.state.last

    def withdraw(self, containers: Sequence[Container]) -> None:
        """Cancel the next starts of containers that are down now."""
        for record in self.containers:
            if record.state.phase == s.WAITING and record.container in containers:
                self.supervisor.happen(record, s.Stop())

    def reset(self, container: Container) -> None:
        """Forget the failures of a container, and lift its quarantine."""
        _log.info(f"Resetting {container}")
        self.supervisor.happen(self.containers.get(container), s.Reset())

    async def execute(self, request: messages.Exec, descriptors: Sequence[int]) -> Session:
        """Begin a command in a running container. Raises OSError, too."""
        from northstar.runtime import sessions

        self._executing(request.container)
        await self._host.loop.in_thread(sessions.check, request, descriptors)
        return sessions.Session(self._host, self._executing(request.container), request, descriptors)

    def _executing(self, container: Container) -> Run:
        run = self.containers.get(container).run
        if run is None or not run.process.executing or run.process.pidfd < 0:
            raise Unexpected(f"{container} is not running")
        return run

    # --- install and uninstall

    async def begin_install(self, repository: str, size: int) -> Insert:
        """Make room for a package of `size` bytes."""
        if repository not in self.repositories:
            raise InvalidRepository(repository)
        insert = self.repositories[repository].begin_insert(size)
        try:
            await self._host.loop.in_thread(insert.open)
        except BaseException:
            await self.abort_install(insert)
            raise
        return insert

    async def abort_install(self, insert: Insert) -> None:
        """Throw away what has been received of a package."""
        try:
            await self._host.loop.in_thread(insert.discard)
        finally:
            insert.release()

    async def finish_install(self, repository_id: str, insert: Insert) -> Container:
        """Verify and add a package that has been received completely."""
        try:
            package, application_filter = await self._host.loop.in_thread(_verify, insert)
            # One after the other, so that no two of them are the same container or take the same room.
            async with self._publishing:
                self._check_new(repository_id, package.container)
                await self._host.loop.in_thread(insert.publish)
                async with self._mutex:
                    insert.adopt()
                    record = Record(
                        package.container, self.repositories[repository_id], package, application_filter
                    )
                    self.containers.add(record)
        except BaseException:
            await self.abort_install(insert)
            raise
        container = package.container
        _log.info(f"Successfully installed {container}")
        await self._warn_of_users(package.manifest.uid)
        self._notifications.installed(container)
        return container

    def _check_new(self, repository_id: str, container: Container) -> None:
        """Raises InstallDuplicate, Unexpected."""
        self.repositories[repository_id].check_new(container)
        if container in self.containers:
            other = self.containers.get(container).repository.id
            _log.warn(f"Skipping duplicate container {container} which is already in repository {other}")
            raise InstallDuplicate(container)

    async def uninstall(self, container: Container, wipe: bool) -> None:
        """Umount if needed, delete persistent data if `wipe`, remove the package.

        Each step is durable before the next one, so after a failure the whole may be tried again.
        """
        _log.info(f"Trying to uninstall {container}")
        self.withdraw((container,))
        async with self._mutex:
            record = self.containers.get(container)
            try:
                if wipe:
                    self._check_wipe(record)
                if record.mounted or record.run is not None:
                    self.containers.check_umount(record)
                    await self.mounts.umount_record(record)
                if wipe:
                    await self._wipe(container)
                await self._host.loop.in_thread(record.repository.delete, container)
            except ApiError as error:
                _log.warn(f"failed to uninstall {container}: {error}")
                raise
            descriptor = record.repository.forget(container)
            self.supervisor.forget(record)
            self.containers.remove(record)
            # The last one of a deleted file gives back its room.
            await self._host.loop.in_thread(os.close, descriptor)
        _log.info(f"Uninstalled {container}")
        if self.metrics is not None:
            self.metrics.uninstalled(container)
        self._notifications.uninstalled(container)

    def _check_wipe(self, record: Record) -> None:
        """Raises Unexpected if the persistent data is in use by another version."""
        for run in self.containers.runs():
            other = run.record
            if other is not record and other.container.name == record.container.name:
                raise Unexpected(f"the persistent data is in use: {other.container} is running")

    async def _wipe(self, container: Container) -> None:
        """Raises Unexpected."""
        data_dir = self._host.places.data_dir
        path = f"{data_dir}/{container.name}"
        try:
            if await self._host.loop.in_thread(os.path.lexists, path):
                _log.info(f"Wiping persistent data dir {path} of {container}")
            # Also if there is none: an earlier attempt may not have become durable.
            await self._host.loop.in_thread(persist.wipe, data_dir, container.name)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise Unexpected(f"failed to wipe {path}: {error.strerror}{where}") from None

    # --- start

    async def start(
        self,
        container: Container,
        init: str | None,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        generation: int | None = None,
    ) -> None:
        """Start a container; done when its application is executing.

        `generation` is that of a start which the supervisor knows of already.
        """
        began = time.monotonic()
        _log.info(f"Trying to start {container}")
        begun: Record | None = None
        try:
            if generation is not None:
                begun = self.containers.get(container)
            run, command, resources = await self._prepare_start(
                container, init, arguments, environment, generation
            )
            begun = run.record
            try:
                await within_limit(self._host.loop, run, run.start(command, resources), self._start_limit)
            except BaseException:
                run.record.run = None
                run.ended.set_result()
                raise
        except ApiError as failure:
            error = failure
            if isinstance(failure, StartContainerFailed):
                manifest = self.containers.get(container).manifest
                error = await binds.explained(self._host.loop, manifest, failure)
            if isinstance(error, StartContainerStarted):
                _log.warn(f"Application {error.container} is already running")
            elif isinstance(error, StartContainerResource):
                _log.warn(f"Container {error.container} is a resource")
            _log.warn(f"failed to start {container}: {error}")
            if self.metrics is not None:
                self.metrics.start_failed(container)
            if begun is not None:
                self.supervisor.start_failed(begun, str(error))
            raise error from None
        except BaseException:
            if begun is not None:
                self.supervisor.start_failed(begun, "an internal error")
            raise
        spent = time.monotonic() - began
        _log.info(f"Started {container} ({run.process.pid}) in {spent:.3f}s")
        if self.metrics is not None:
            self.metrics.started(container, spent)
        self._notifications.started(container)
        record = run.record
        self.supervisor.happen(record, s.Executing())
        run.listen(lambda message, descriptors: self.supervisor.told(record, message))
        self._host.loop.spawn(self._watch(run))
        self._host.loop.spawn(binds.warn_of_missing(self._host.loop, run.record.manifest))

    @property
    def _start_limit(self) -> float:
        debugger = self._host.debugger
        return START_LIMIT + (debugger.settings.tracer_timeout if debugger is not None else 0.0)

    async def _prepare_start(
        self,
        container: Container,
        init: str | None,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        generation: int | None,
    ) -> tuple[Run, plan.Command, dict[str, Container]]:
        """Everything of a start that needs the mutex; the container counts as running afterwards."""
        async with self._mutex:
            record = self.containers.get(container)
            if generation is None and record.state.phase in s.ALIVE:
                raise StartContainerStarted(container)
            self.containers.check_start(record)
            self._check_generation(record, generation)
            command = self._command(record, init, arguments, environment)
            resources = self.containers.resources_of(record.manifest)
            needed = [record, *(self.containers.get(resource) for resource in set(resources.values()))]
            missing = [needed_record for needed_record in needed if not needed_record.mounted]
            if missing:
                _log.info(f"Mounting {len(missing)} container(s) for the start of {container}")
                for error in await self.mounts.mount_records(missing):
                    if error is not None:
                        raise error
            self._check_generation(record, generation)
            if generation is None:
                self._ordering.warn(record)
                self.supervisor.happen(record, s.Start())
            record.run = Run(self._host, record, resources, Future())
            record.command = (init, arguments, environment)
        _log.info(f"Creating {container}")
        _log.debug(f'Container {container} init is "{command.argv[0]}"')
        _log.debug(f'Container {container} argv is "{" ".join(command.argv)}"')
        _log.debug(f'Container {container} env is "{", ".join(command.env)}"')
        streams = record.manifest.io
        _log.debug(f"Container {container} stdout is {streams.stdout if streams else 'discard'}")
        _log.debug(f"Container {container} stderr is {streams.stderr if streams else 'discard'}")
        return record.run, command, resources

    def _check_generation(self, record: Record, generation: int | None) -> None:
        """Raises StartContainerFailed if a start of the supervisor has been cancelled meanwhile."""
        if generation is None:
            return
        if (record.state.phase, record.state.generation) != (s.STARTING, generation):
            raise StartContainerFailed(record.container, "the start was cancelled")

    def _command(
        self, record: Record, init: str | None, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> plan.Command:
        """What a start would execute. Raises the errors of a start request."""
        if record.problem is not None:
            raise StartContainerFailed(record.container, record.problem)
        plan.check_environment(environment)
        plan.check_arguments(init, arguments, environment)
        return plan.command(record.manifest, init, arguments, environment)

    async def explain(
        self,
        container: Container,
        init: str | None,
        arguments: Sequence[str],
        environment: Mapping[str, str],
    ) -> dict[str, Any]:
        """What a start would do: the data object of the response. Raises the errors of a start request."""
        # Nobody asks for it on most devices.
        from northstar.programs import explanation

        record = self.containers.get(container)
        manifest, host = record.manifest, self._host
        command = self._command(record, init, arguments, environment)
        resources = self.containers.resources_of(manifest)
        group_roles = host.cgroups.entrance_roles(container, manifest)
        # A directory service, or the source of a bind, may take its time.
        numbers = await host.loop.in_thread(plan.groups, manifest, _log.warn)
        try:
            tree = await host.loop.in_thread(devices.path_for, host.places.devices, manifest)
        except OSError as error:
            raise Unexpected(f"{error.filename}: {error.strerror}") from None
        order = planned(host, record, command, resources, group_roles, numbers, tree)
        return {"lines": explanation.lines(order)}

    async def _watch(self, run: Run) -> None:
        """Deal with the end of a run."""
        record = run.record
        container = record.container
        status = await run.process.exited()
        critical = record.settings.critical and not status.success and not self.stopping.done
        lived = duration(time.monotonic() - run.process.started)
        message = f"exited after {lived} with status {status}"
        if critical:
            _log.error(f"Critical process {container} {message}")
        else:
            _log.info(f"Process {container} {message}")
        if self.metrics is not None:
            self.metrics.exited(run, status)
        await run.finish()
        record.run = None
        run.ended.set_result()
        self._notifications.exited(container, status)
        _log.info(f"Container {container} exited with status {status}")
        self.supervisor.exited(record, status)

    async def _check_health(self, record: Record) -> None:
        """One check of a container that is ready."""
        from northstar.runtime.supervision import health

        run, wanted = record.run, record.settings.health
        if run is None or wanted is None or not run.process.executing or run.process.pidfd < 0:
            return
        generation = record.state.generation
        outcome = await health.check(self._host, run, wanted.exec, wanted.timeout)
        if record.state.generation == generation:
            self.supervisor.happen(record, outcome)


def _process_data(
    run: Run | None, processes: list[dict[str, Any]], statistics: dict[str, Any]
) -> dict[str, Any] | None:
    """What a run does, None if there is none, or it has not got a process yet."""
    if run is None or not run.process.started:
        return None
    return {
        "pid": run.process.pid,
        "uptime": int((time.monotonic() - run.process.started) * 1e9),
        "statistics": statistics | {"processes": processes},
    }


def _collect(manifests: list[Manifest], only: int | None) -> list[str]:
    return list(users.warnings(manifests, only))


def _verify(insert: Insert) -> tuple[Package, bytes]:
    """A package that has been received, and the filter of its application. Blocks."""
    package = insert.verify()
    return package, filters.application_filter(package.manifest)
