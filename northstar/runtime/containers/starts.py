# SPDX-License-Identifier: Apache-2.0
"""Starts of containers, from the request to the executing application, and what follows from their ends.

What needs the mutex is done first: rules, mounts, and that the container counts as running. From there any
number of starts proceeds at the same time.
"""

from __future__ import annotations

import contextlib
import os
import time

from northstar.errors import (
    ApiError,
    PackageError,
    StartContainerFailed,
    StartContainerResource,
    StartContainerStarted,
    Unexpected,
)
from northstar.kernel import sockets
from northstar.runtime import log
from northstar.runtime.containers import binds, command, devices, plan
from northstar.runtime.containers.host import Order
from northstar.runtime.containers.records import PLAIN
from northstar.runtime.containers.run import Run
from northstar.runtime.containers.startlimit import START_LIMIT, within_limit
from northstar.runtime.duration import duration
from northstar.runtime.eventloop.loop import Future, Timeout
from northstar.runtime.supervision.descriptors import Descriptors
from northstar.runtime.supervision.ordering import Ordering
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.containers.command import Command
    from northstar.runtime.containers.currency import Currency
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.host import Host
    from northstar.runtime.containers.mounts import Mounts
    from northstar.runtime.containers.records import Containers, Record, Request
    from northstar.runtime.eventloop.loop import Mutex
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.runtime.supervision.supervisor import Supervisor
    from northstar.supervision.notification import Message
    from northstar.supervision.state import State

_log = log.Logger("runtime::state")

AUTOSTART_PARALLEL = 6 * (os.cpu_count() or 1)
"""Starts at a time; more only wait for each other in the kernel."""
MOUNTED_AHEAD = 4
"""Packages that are mounted while others start; the mutex is held for so long."""


class Starts:
    """Starts containers and watches them. Errors are `ApiError`s."""

    def __init__(
        self,
        host: Host,
        containers: Containers,
        mounts: Mounts,
        mutex: Mutex,
        events: Events,
        currency: Currency,
        stopping: Future,
        supervisor: Supervisor,
    ) -> None:
        """`stopping` gets the reason why the runtime shall end, and is done if it does."""
        self._host = host
        self._containers = containers
        self._mounts = mounts
        self._mutex = mutex
        self._events = events
        self._currency = currency
        self._stopping = stopping
        self._supervisor = supervisor
        self._ordering = Ordering(containers, supervisor)
        self.descriptors = Descriptors(host.loop)
        """What containers have left for their next runs."""
        supervisor.attach(self._start_again, self._check_health, self._ordering.moved)
        supervisor.watch(self._forget_descriptors)

    async def start(
        self,
        container: Container,
        init: str | None,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        variables: Mapping[str, str] | None = None,
        begun: Record | None = None,
    ) -> None:
        """Start a container; done when its application is executing.

        `variables` come from an update, and no client can set them. While the name is being updated,
        nobody else starts it. `begun` is its record if the supervisor has begun this start.
        """
        began = time.monotonic()
        _log.info(f"Trying to start {container}")
        generation = None if begun is None else begun.state.generation
        try:
            if variables is None and begun is None:
                # A restart of the old version goes on until the trial, for which it is stopped.
                self._currency.check_free(container)
            request = (init, arguments, environment)
            record, chosen, resources = await self._prepare_start(container, request, generation)
            begun = record
            chosen.env.extend(f"{name}={value}" for name, value in (variables or {}).items())
            run = record.run
            assert run is not None
            try:
                await within_limit(self._host.loop, run, run.start(chosen, resources), self._start_limit)
            except BaseException:
                record.run = None
                run.ended.set_result()
                raise
        except ApiError as failure:
            error = failure
            if isinstance(failure, StartContainerFailed):
                manifest = self._containers.get(container).manifest
                error = await binds.explained(self._host.loop, manifest, failure)
            if isinstance(error, StartContainerStarted):
                _log.warn(f"Application {error.container} is already running")
            elif isinstance(error, StartContainerResource):
                _log.warn(f"Container {error.container} is a resource")
            _log.warn(f"failed to start {container}: {error}")
            self._events.start_failed(container)
            if begun is not None:
                self._supervisor.start_failed(begun, str(error))
            raise error from None
        except BaseException:
            if begun is not None:
                self._supervisor.start_failed(begun, "an internal error")
            raise
        spent = time.monotonic() - began
        _log.info(f"Started {container} ({run.process.pid}) in {spent:.3f}s")
        self._events.started(container, spent)
        self._supervisor.happen(record, s.Executing())
        self._host.loop.spawn(self._watch(record, run))
        run.listen(record, self._told)
        self._host.loop.spawn(binds.tell_left_out(self._host.loop, record))

    async def prepare(self, wanted: Sequence[Record]) -> None:
        """What takes long about first starts, and can be done before; they tell what goes wrong."""
        await self._mounts.mount_for(wanted)
        for record in wanted:
            await self._mounts.read_program(record)

    def _told(self, record: Supervised, message: Message, descriptors: list[int]) -> None:
        if record.settings.fdstore:
            self.descriptors.told(record.container.name, record.settings.fdstore, message, descriptors)
        self._supervisor.told(record, message)

    def _forget_descriptors(self, record: Supervised, _: State) -> None:
        """Who has been stopped has no next run that he was to be prepared for."""
        if record.settings.fdstore and record.state.phase == s.IDLE:
            self.descriptors.forget(record.container.name)

    @property
    def _start_limit(self) -> float:
        debugger = self._host.debugger
        return START_LIMIT + (debugger.settings.tracer_timeout if debugger is not None else 0.0)

    async def _prepare_start(
        self,
        container: Container,
        request: Request,
        generation: int | None,
    ) -> tuple[Record, Command, dict[str, Container]]:
        """Everything of a start that needs the mutex; the container counts as running afterwards."""
        async with self._mutex:
            record = self._containers.get(container)
            if generation is None and record.state.phase in s.ALIVE:
                raise StartContainerStarted(container)
            self._containers.check_start(record)
            self._currency.check_floor(container)
            await self._check_trust(record)
            self._check_generation(record, generation)
            chosen = self._command(record, *request)
            resources = self._containers.resources_of(record.manifest)
            needed = [record, *(self._containers.get(resource) for resource in set(resources.values()))]
            missing = [needed_record for needed_record in needed if not needed_record.mounted]
            if missing:
                _log.info(f"Mounting {len(missing)} container(s) for the start of {container}")
                for error in await self._mounts.mount_records(missing):
                    if error is not None:
                        raise error
            record.left_out = []
            stored = await self.descriptors.handed_over(container.name) if record.settings.fdstore else []
            try:
                if missing or stored:
                    # It may have become unusable, and what was left for it changes numbers.
                    chosen = self._command(record, *request, len(stored))
                self._check_generation(record, generation)
            except ApiError:
                sockets.close_all([each.number for each in stored])
                raise
            if generation is None:
                self._ordering.warn(record)
                self._withdraw_others(record)
                self._supervisor.happen(record, s.Start())
            record.run = Run(self._host, record, resources, Future())
            record.request = request
            record.run.stored = stored
        _log.info(f"Creating {container}")
        return record, chosen, resources

    def _withdraw_others(self, record: Record) -> None:
        """Another version that waits for its next start would only find this one running."""
        for other in self._containers.named(record.container.name):
            if other is not record and other.state.phase == s.WAITING:
                self._supervisor.happen(other, s.Stop())

    async def _check_trust(self, record: Record) -> None:
        """Raises StartContainerFailed if the package was revoked since it was loaded."""
        if not record.repository.changes:
            return
        try:
            await self._host.loop.in_thread(record.repository.check, record.package, str(record.container))
        except PackageError as error:
            raise StartContainerFailed(record.container, error.reason) from None

    @staticmethod
    def _check_generation(record: Record, generation: int | None) -> None:
        """Raises StartContainerFailed if a start of the supervisor has been cancelled meanwhile."""
        if generation is None:
            return
        if (record.state.phase, record.state.generation) != (s.STARTING, generation):
            raise StartContainerFailed(record.container, "the start was cancelled")

    def _command(
        self,
        record: Record,
        init: str | None,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stored: int = 0,
    ) -> Command:
        """What a start would execute. Raises the errors of a start request."""
        if record.unusable is not None:
            raise StartContainerFailed(record.container, record.unusable)
        command.check_environment(environment)
        command.check_arguments(init, arguments, environment)
        return command.command(record.manifest, init, arguments, environment, stored)

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

        record = self._containers.get(container)
        manifest, host = record.manifest, self._host
        chosen = self._command(record, init, arguments, environment)
        resources = self._containers.resources_of(manifest)
        group_roles = host.cgroups.entrance_roles(container, manifest)
        # A directory service, or the source of a bind, may take its time.
        numbers = await host.loop.in_thread(plan.groups, manifest, _log.warn)
        try:
            tree = await host.loop.in_thread(devices.path_for, host.site.places.devices, manifest)
        except OSError as error:
            raise Unexpected(f"{error.filename}: {error.strerror}") from None
        notify = plan.expected_notify(manifest, record.settings)
        order = Order(manifest, record.filter, chosen, resources, group_roles, numbers, tree, notify)
        return {"lines": explanation.lines(host.plan(order))}

    async def _watch(self, record: Record, run: Run) -> None:
        """Deal with the end of a run. Whatever fails, it is over in the end."""
        container = record.container
        status = await run.process.exited()
        critical = record.settings.critical and not status.success
        critical = critical and not self._stopping.done
        lived = duration(time.monotonic() - run.process.started)
        message = f"exited after {lived} with status {status}"
        if critical:
            _log.error(f"Critical process {container} {message}")
        else:
            _log.info(f"Process {container} {message}")
        try:
            self._events.ended(run, status)
            await run.finish()
        except Exception as error:
            _log.error(f"the end of {container} failed: {type(error).__name__}: {error}")
        record.run = None
        run.ended.set_result()
        self._events.exited(container, status)
        _log.info(f"Container {container} exited with status {status}")
        self._supervisor.exited(record, status)

    async def _start_again(self, record: Record) -> None:
        """A start that the supervisor has begun; what fails is in the log, and a matter of its policy."""
        with contextlib.suppress(ApiError):
            await self.start(record.container, *record.request, begun=record)

    async def _check_health(self, record: Record) -> None:
        """One check of a container that is ready."""
        from northstar.runtime.containers import health

        run, wanted = record.run, record.settings.health
        if run is None or wanted is None or not run.process.reachable:
            return
        generation = record.state.generation
        outcome = await health.check(self._host, run, wanted.exec, wanted.timeout)
        if record.state.generation == generation:
            self._supervisor.happen(record, outcome)

    async def autostart(self) -> None:
        """Start all containers that ask for it; raises the error of a critical one."""
        wanted = self._currency.autostarts()
        if not wanted:
            return
        began = time.monotonic()
        for record in wanted:
            _log.info(f"Autostarting {record.container} ({str(record.manifest.autostart).capitalize()})")
        if (longest := self._ordering.longest_stop()) > 0:
            _log.info(f"Stopping these containers may take up to {longest:.0f} s")
        free = self._ordering.hold(wanted)
        mounted = {record: Future() for record in wanted}
        mounting = self._host.loop.spawn(self._mount_ahead(mounted))
        try:
            results = await self._host.loop.gather(
                *(self._autostart_one(record, mounted[record]) for record in free), limit=AUTOSTART_PARALLEL
            )
            # Those that are held need theirs later, and a mount must not be left half-way.
            await mounting
        except BaseException:
            mounting.cancel()
            raise
        critical: Exception | None = None
        for record, result in zip(free, results, strict=True):
            if not isinstance(result, Exception):
                continue
            if record.settings.critical and record.state.phase not in (s.WAITING, s.QUARANTINED):
                _log.error(f"Failed to autostart critical {record.container}: {result}")
                critical = critical or result
            else:
                _log.warn(f"Failed to autostart relaxed {record.container}: {result}")
        if critical is not None:
            raise critical
        started = sum(not isinstance(result, Exception) for result in results)
        _log.info(f"Successfully started {started} container(s) in {duration(time.monotonic() - began)}")

    async def _mount_ahead(self, mounted: Mapping[Record, Future]) -> None:
        """Mount some containers while those before them start; what goes wrong is told by their starts."""
        records = list(mounted)
        try:
            for begin in range(0, len(records), MOUNTED_AHEAD):
                some = records[begin : begin + MOUNTED_AHEAD]
                await self._mounts.mount_for(some)
                for record in some:
                    mounted[record].set_result()
                await self._host.loop.turn()
        finally:
            for record in records:
                mounted[record].set_result()

    async def _autostart_one(self, record: Record, mounted: Future) -> None:
        """Who is not waited for any more, because of a shutdown, is ended by that as all others are."""
        await mounted
        self._supervisor.happen(record, s.Start(asked=False))
        await self._host.loop.spawn(self.start(record.container, *PLAIN, begun=record))

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
        runs = self._containers.runs()
        for run in runs:
            _log.info(f"Killing {run.record.container} with SIGKILL")
        while runs and time.monotonic() < deadline:
            for run in runs:
                # More than once, as its start may be under way.
                run.process.kill()
            await self._host.loop.sleep(0.002)
            runs = [run for run in runs if not run.ended.done]
        return [run.record.container for run in runs]
