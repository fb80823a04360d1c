# SPDX-License-Identifier: Apache-2.0
"""What the machine of an update asks for, done with the containers of the device."""

from __future__ import annotations

import time

from northstar.errors import ApiError
from northstar.manifest import extension
from northstar.names import Container
from northstar.text import escape
from northstar.updates import data, machine, records, versions
from northstar.updates import journal as journals
from northstar.updates.device import Failure
from northstar.updates.journal import GOOD, NOBODY, Update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from northstar.config.model import UpdatesConfig
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.log import Logger
    from northstar.updates.device import Device
    from northstar.updates.ledger import Ledger
    from northstar.updates.versions import Installed

_FROM, _TRIAL = "NORTHSTAR_UPDATE_FROM", "NORTHSTAR_TRIAL"


class Actions:
    """Carries out one action after the other."""

    def __init__(
        self, loop: Loop, device: Device, ledger: Ledger, settings: UpdatesConfig, log: Logger
    ) -> None:
        self._loop = loop
        self._device = device
        self._ledger = ledger
        self._settings = settings
        self._log = log
        self._evidence: dict[str, dict[str, Any]] = {}
        """By update: what the container that failed has written last."""
        self.committed: dict[str, tuple[Update, float]] = {}
        """Updates that were good, by names of their members, and when that was."""
        self._handlers: dict[type, Callable[[Update, Any], Coroutine[Any, Any, None]]] = {
            machine.Record: self._record,
            machine.Close: self._close,
            machine.Prepare: self._prepare,
            machine.Stop: self._stop,
            machine.Start: self._start,
            machine.AwaitReady: self._await_ready,
            machine.Settle: self._settle,
            machine.CopyData: self._copy_data,
            machine.RestoreData: self._restore_data,
            machine.DropData: self._drop_data,
            machine.Report: self._report,
            machine.CleanUp: self._clean_up,
        }

    async def carry_out(self, update: Update, action: machine.Action) -> machine.Event:
        """Do it; whether that was possible."""
        try:
            await self._handlers[type(action)](update, action)
        except Failure as failure:
            self._evidence[update.id] = {
                "container": str(failure.container),
                "output": self._device.last_output(failure.container),
            }
            return _failed(f"{failure.container} {failure.reason}", failure.container.name)
        except ApiError as error:
            return _failed(str(error), _culprit(action))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return _failed(f"{where}{error.strerror}", NOBODY)
        except Exception as error:
            self._loop.report(error)
            return _failed(f"internal error: {type(error).__name__}: {error}", NOBODY)
        return machine.Done()

    async def _record(self, update: Update, action: machine.Record) -> None:
        writes = records.recording(update, self._ledger.all(), self.facts(update))
        await self._ledger.write_all(writes, lambda name: self._directory(update, name))

    async def _close(self, update: Update, action: machine.Close) -> None:
        writes = records.closing(action, self._ledger.all(), self.facts(update))
        await self._ledger.write_all(writes, lambda name: self._directory(update, name))
        if action.result == GOOD:
            for change in update.changes:
                self._device.accept(Container(change.name, change.new))
            self.remember(update, 0.0)

    def remember(self, update: Update, age: float) -> None:
        """An update was found good, so many seconds ago."""
        for change in update.changes:
            self.committed[change.name] = (update, time.monotonic() - age)

    async def _prepare(self, update: Update, action: machine.Prepare) -> None:
        await self._device.prepare(action.containers)

    async def _stop(self, update: Update, action: machine.Stop) -> None:
        await self._device.stop(action.container)

    async def _start(self, update: Update, action: machine.Start) -> None:
        container = action.container
        if self._device.manifest(container).init is None:
            return
        environment = {}
        if action.trial:
            old = update.change(container.name).old
            environment = {_TRIAL: "1", **({} if old is None else {_FROM: str(old)})}
        await self._device.start(container, environment, trial=action.trial)

    async def _await_ready(self, update: Update, action: machine.AwaitReady) -> None:
        if self._device.manifest(action.container).init is not None:
            await self._device.wait_ready(action.container)

    async def _settle(self, update: Update, action: machine.Settle) -> None:
        programs = [c for c in action.containers if self._device.manifest(c).init is not None]
        await self._device.wait_failure(programs, action.seconds)

    async def _copy_data(self, update: Update, action: machine.CopyData) -> None:
        await self._loop.in_thread(data.copy, self._device.data_dir, action.container)

    async def _restore_data(self, update: Update, action: machine.RestoreData) -> None:
        await self._loop.in_thread(data.restore, self._device.data_dir, action.container)

    async def _drop_data(self, update: Update, action: machine.DropData) -> None:
        await self._loop.in_thread(data.drop, self._device.data_dir, action.container)

    async def _report(self, update: Update, action: machine.Report) -> None:
        containers = [str(Container(change.name, change.new)) for change in update.changes]
        told: dict[str, Any] = {"id": update.id, "phase": action.phase, "containers": containers}
        if update.reference:
            told["reference"] = update.reference
        if action.reason:
            told["reason"] = action.reason
        if action.phase in (journals.ROLLING_BACK, journals.ROLLED_BACK, journals.ROLLBACK_FAILED):
            evidence = self._evidence.pop(update.id, None) if action.phase != journals.ROLLING_BACK else None
            evidence = evidence or self._evidence.get(update.id)
            told |= {"failed": evidence} if evidence else {}
        reason = f": {action.reason}" if action.reason else ""
        tell = self._log.info if action.phase in (journals.STAGED, journals.TRYING, GOOD) else self._log.warn
        tell(f"Update {update.id} to {', '.join(containers)} is {action.phase.replace('_', ' ')}{reason}")
        self._device.publish(told)

    async def _clean_up(self, update: Update, action: machine.CleanUp) -> None:
        for change in update.changes:
            await self.remove_unneeded(change.name)

    async def remove_unneeded(self, name: str) -> None:
        """What cannot be removed now is tried at the next start of the runtime."""
        for version in self._ledger.get(name).remove:
            container = Container(name, version)
            try:
                found = self._installed(container)
                if found is not None and found.writable:
                    if self._device.running(name) == container:
                        continue
                    await self._device.remove(container)
                changed = journals.uninstalled(self._ledger.get(name), version, forget=False)
                await self._ledger.write(name, changed, None)
            except ApiError as error:
                self._log.warn(f"{container} is not needed any more, and cannot be removed: {error}")

    # --- facts

    def _installed(self, container: Container) -> Installed | None:
        return versions.find(self._device.versions_of(container.name), container.version)

    def _directory(self, update: Update, name: str) -> str | None:
        try:
            return self._device.directory(Container(name, update.change(name).new))
        except ApiError:
            return None

    def facts(self, update: Update) -> records.Facts:
        """What journals need to know of the new packages."""
        digests, floors = {}, {}
        for change in update.changes:
            container = Container(change.name, change.new)
            found = self._installed(container)
            if found is None:
                continue
            digests[change.name] = found.digest
            floor = extension.floor(self._device.manifest(container))
            if floor is not None:
                floors[change.name] = floor
        return records.Facts(digests, floors, int(time.time()), self._settings.keep)


def _failed(reason: str, culprit: str) -> machine.Failed:
    """Names of files may be anything but text that a journal can have."""
    return machine.Failed(escape(reason, kept=""), culprit)


def _culprit(action: machine.Action) -> str:
    """Who cannot be started is to blame. That another one does not end, or a disk, is not their fault."""
    return action.container.name if isinstance(action, machine.Start) else NOBODY
