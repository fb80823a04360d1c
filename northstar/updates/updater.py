# SPDX-License-Identifier: Apache-2.0
"""The updates of a device: requests, the one that is on trial, and what they forbid meanwhile."""

from __future__ import annotations

import os
import time

from northstar.errors import InvalidArguments, StartContainerFailed, Unexpected, UpdateRejected
from northstar.names import Container
from northstar.runtime.eventloop.loop import Mutex
from northstar.updates import check, data, journaltext, machine, records, versions
from northstar.updates import journal as journals
from northstar.updates.actions import Actions
from northstar.updates.journal import COPY, GOOD, KEEP, Update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.config.model import UpdatesConfig
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.log import Logger
    from northstar.updates.check import Order
    from northstar.updates.device import Device
    from northstar.updates.ledger import Ledger


class _Work:
    """An update under way. `claimed`: its trial has begun, or it was cancelled."""

    __slots__ = ("claimed", "state")

    def __init__(self, state: machine.State, *, claimed: bool = False) -> None:
        self.state = state
        self.claimed = claimed


class Updater:
    """All updates of this device. One trial at a time: a small machine has enough to do with it."""

    def __init__(
        self, loop: Loop, device: Device, ledger: Ledger, settings: UpdatesConfig, log: Logger
    ) -> None:
        self._loop = loop
        self._device = device
        self.ledger = ledger
        self._settings = settings
        self._log = log
        self._works: dict[str, _Work] = {}
        self._turn = Mutex()
        self._actions = Actions(loop, device, ledger, settings, log)

    # --- which version

    def current(self, name: str) -> Container | None:
        """The version that a name stands for."""
        version = versions.current(self._device.versions_of(name), self.ledger.get(name))
        return None if version is None else Container(name, version)

    def is_usable(self, container: Container) -> bool:
        """Whether it may run, or be used, without somebody who asks for just this version."""
        found = versions.find(self._device.versions_of(container.name), container.version)
        return found is not None and versions.is_usable(found, self.ledger.get(container.name))

    def held(self, name: str) -> str | None:
        """The update that a name takes part in."""
        for key, work in self._works.items():
            if any(change.name == name for change in work.state.update.changes):
                return key
        return None

    def is_usable_resource(self, container: Container) -> bool:
        """Whether a start may choose it as a resource: nothing of an update before its trial."""
        update = self.held(container.name)
        if update is not None:
            now = self._works[update].state.update
            if now.phase in (journals.STAGED, journals.ROLLING_BACK):
                return container.version != now.change(container.name).new
        return self.is_usable(container)

    def check_free(self, container: Container) -> None:
        """Raises Unexpected while the name is being updated."""
        update = self.held(container.name)
        if update is not None:
            raise Unexpected(f"{container.name} is being updated ({update})")

    def check_uninstall(self, container: Container) -> None:
        """Raises Unexpected while an update needs the package."""
        update = self.held(container.name)
        if update is None:
            return
        change = self._works[update].state.update.change(container.name)
        if container.version in (change.old, change.new):
            raise Unexpected(f"{container} is part of update {update}")

    def check_floor(self, container: Container) -> None:
        """Raises StartContainerFailed if the versions that have proved themselves do not allow this one."""
        known = self.ledger.get(container.name)
        if not versions.is_above_floor(container.version, known):
            raise StartContainerFailed(container, f"it is below the floor {known.floor} of its name")

    async def before_install(self, container: Container, directory: str | None) -> None:
        """A package is about to be added: if it is a second version, it must not become the one that counts.

        `directory` is that of its repository, if it has one. Raises Unexpected.
        """
        known = self.ledger.get(container.name)
        current = self.current(container.name)
        if current is not None and known.active != current.version:
            known = known._replace(active=current.version)
            await self.ledger.write(container.name, known, directory)

    async def after_uninstall(self, container: Container) -> None:
        """A person has removed a package. Raises Unexpected."""
        known = self.ledger.get(container.name)
        changed = journals.uninstalled(known, container.version, forget=True)
        if changed != known:
            await self.ledger.write(container.name, changed, None)

    # --- requests

    async def begin(self, order: Order) -> str:
        """Begin an update; its id, when it is accepted and durable.

        Raises InvalidArguments, InvalidContainer, UpdateRejected, Unexpected.
        """
        check.arguments(order)
        changes = check.changes(order, self._device, self.ledger.get, self.held)
        settle = self._settings.settle if order.settle is None else order.settle
        update = Update(
            _new_id(),
            changes,
            order.reference,
            attempts=order.attempts,
            settle=settle,
            data=order.data,
        )
        try:
            records.check_room(update, self.ledger.all(), self._actions.facts(update))
        except journals.JournalError as error:
            raise InvalidArguments(str(error)) from None
        step = machine.begin(update)
        # From here on the names are taken.
        work = self._works[update.id] = _Work(step[0])
        try:
            await self._check_space(update)
        except BaseException:
            del self._works[update.id]
            raise
        await self._follow(work, step, pause=True)
        if work.state.stage != machine.WAITING:
            raise Unexpected(work.state.trouble)
        self._loop.spawn(self._run(work))
        return update.id

    async def _check_space(self, update: Update) -> None:
        if update.data != COPY:
            return
        for change in update.changes:
            room = await self._loop.in_thread(data.room, self._device.data_dir, change.name)
            if not room.enough:
                raise UpdateRejected(
                    Container(change.name, change.new),
                    f"a copy of its data takes {room.needed} bytes, and {room.free} are free",
                )

    async def cancel(self, key: str) -> str:
        """Give up an update whose trial has not begun; its id. Raises InvalidArguments, Unexpected."""
        work = self._works.get(key)
        if work is None:
            raise InvalidArguments(f"there is no open update {key[:40]!r}")
        if work.claimed or not machine.may_cancel(work.state):
            raise Unexpected(f"the trial of update {key} has begun")
        work.claimed = True
        await self._follow(work, machine.react(work.state, machine.Cancel()))
        return key

    async def acknowledge(self, key: str) -> str:
        """Forget how an update has ended; its id. Raises InvalidArguments, Unexpected."""
        for name, known in self.ledger.all().items():
            if known.last is not None and known.last.id == key:
                await self.ledger.write(name, known._replace(last=None), None)
                return key
        raise InvalidArguments(f"there is no update {key[:40]!r} that has ended")

    def open(self) -> int:
        """How many updates have not come to their end."""
        return len(self._works)

    def describe(self) -> dict[str, Any]:
        """Open updates, and those that have ended and are not acknowledged."""
        ended = [journal.last for journal in self.ledger.all().values() if journal.last is not None]
        return {
            "open": [records.update_to_json(work.state.update) for work in self._works.values()],
            "last": [journaltext.last_to_json(last) for last in ended],
        }

    def describe_name(self, name: str) -> dict[str, Any]:
        """What is known about the versions of a name, and the update that it takes part in."""
        found: dict[str, Any] = {"versions": records.versions_to_json(self.ledger.get(name))}
        update = self.held(name)
        if update is not None:
            found["update"] = records.update_to_json(self._works[update].state.update)
        return found

    def roll_back(self, name: str, reason: str) -> bool:
        """Go back to the versions before the last update of a name, if that is not long ago; whether so."""
        update, when = self._actions.committed.get(name, (None, 0.0))
        if (
            update is None
            or time.monotonic() - when > self._settings.late_rollback
            or not self._may_go_back(update)
        ):
            return False
        for change in update.changes:
            self._actions.committed.pop(change.name, None)
        self._resume(machine.revert(update._replace(data=KEEP), reason, name))
        return True

    def replace(self, container: Container, reason: str) -> bool:
        """Go back from a version that is no good any more to an older one that was; whether there is one."""
        name = container.name
        known = self.ledger.get(name)
        older = [version for version in known.previous if self.is_usable(Container(name, version))]
        if self.held(name) is not None or not older:
            return False
        change = journals.Change(name, older[0], container.version)
        self._resume(machine.revert(Update(_new_id(), (change,)), reason, name))
        return True

    def _may_go_back(self, update: Update) -> bool:
        for change in update.changes:
            if change.old is None or self.held(change.name) is not None:
                return False
            if not self.is_usable(Container(change.name, change.old)):
                return False
        return True

    # --- start of the runtime

    async def recover(self) -> None:
        """Deal with what was open when the runtime ended. Trials go on in the background."""
        updates, writes = records.recover(self.ledger.all())
        try:
            await self.ledger.write_all(writes, lambda name: None)
        except Unexpected as error:
            self._log.error(str(error))
        for update, when in records.committed(self.ledger.all()):
            # The clock may have been set back, or not been set yet.
            self._actions.remember(update, max(0.0, time.time() - when))
        settings = self._settings
        for update in updates:
            step = machine.resume(update, max_boots=settings.max_boots, abort=settings.abort_on_power_loss)
            self._log.info(f"Update {update.id} was {update.phase} when the runtime ended")
            if update.phase == GOOD or (update.phase == journals.STAGED and settings.abort_on_power_loss):
                # Autostart is to come, and takes the version that this leaves.
                await self._follow(self._claimed(step), step)
            else:
                self._resume(step)
        for name in self.ledger.all():
            if self.held(name) is None:
                await self._actions.remove_unneeded(name)

    # --- the machine

    async def _run(self, work: _Work) -> None:
        async with self._turn:
            if not work.claimed:
                work.claimed = True
                await self._follow(work, machine.react(work.state, machine.Done()))

    def _resume(self, step: machine.Step) -> None:
        """Go on from a step, in the background, when the others are done."""
        self._loop.spawn(self._take_turn(self._claimed(step), step))

    def _claimed(self, step: machine.Step) -> _Work:
        """The names are taken from here on, and nobody can cancel it."""
        work = self._works[step[0].update.id] = _Work(step[0], claimed=True)
        return work

    async def _take_turn(self, work: _Work, step: machine.Step) -> None:
        async with self._turn:
            await self._follow(work, step)

    async def _follow(self, work: _Work, step: machine.Step, *, pause: bool = False) -> None:
        """Do what the machine asks for, to the end, or until the trial would begin.

        A shutdown leaves it as it is; the next start of the runtime goes on.
        """
        work.state, action = step
        while action is not None:
            event = await self._actions.carry_out(work.state.update, action)
            if self._device.stopping:
                return
            if pause and work.state.stage == machine.WAITING and not work.state.todo:
                return
            work.state, action = machine.react(work.state, event)
        self._works.pop(work.state.update.id, None)


def _new_id() -> str:
    """Unlike all others, also those before a restart."""
    return f"u-{os.urandom(4).hex()}"
