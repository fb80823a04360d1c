# SPDX-License-Identifier: Apache-2.0
"""Tells the machine of each container what happens, and carries out what it answers.

Whatever changes the state of a container goes through `happen`: one event, the actions that follow, the timer
for what comes next, and then everybody who waits for another state.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from northstar.runtime import log
from northstar.runtime.loop import Future
from northstar.runtime.process import ExitStatus
from northstar.supervision import machine
from northstar.supervision import state as s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from northstar.runtime.containers import Containers, Record
    from northstar.runtime.loop import Loop
    from northstar.runtime.metrics import Metrics
    from northstar.runtime.notifications import Notifications
    from northstar.supervision.notification import Message
    from northstar.supervision.state import Event, State

_log = log.Logger("runtime::supervisor")

STATUS_PAUSE = 0.25
"""Seconds between two notifications about what a program says of itself."""


class Supervisor:
    """The states of all containers, in motion."""

    def __init__(self, containers: Containers, notifications: Notifications, parallel: int) -> None:
        """At most `parallel` starts at a time are begun from here."""
        self.containers = containers
        self.metrics: Metrics | None = None
        self.moved: Callable[[Record, State], None] | None = None
        """Hears of another phase, with the state before, in a later turn of the loop."""
        self.check: Callable[[Record], Awaitable[None]]
        self.roll_back: Callable[[Record, str], None] | None = None
        """Returns to the version before, if there are updates."""
        self._notifications = notifications
        self._parallel = parallel
        self._begun = 0
        self._queue: deque[tuple[Record, int]] = deque()
        self._movement = Future()
        self._loop: Loop
        self._start: Callable[[Record, int], Awaitable[None]]
        self._shut_down: Callable[[str], None]
        self._carry_out: dict[type, Callable[[Record, s.Action], None]] = {
            s.Begin: lambda record, _: self._begin(record),
            s.Signal: self._signal,
            s.Kill: lambda record, _: self._kill(record),
            s.Check: lambda record, _: self._check(record),
            s.Announce: self._announce,
            s.Shutdown: self._end_daemon,
            s.RollBack: self._return,
        }

    def attach(
        self,
        loop: Loop,
        start: Callable[[Record, int], Awaitable[None]],
        shut_down: Callable[[str], None],
    ) -> None:
        """Give it the event loop and how a start, of a generation, and a shutdown are made."""
        self._loop = loop
        self._start = start
        self._shut_down = shut_down

    def happen(self, record: Record, event: Event) -> None:
        """Something has happened to a container."""
        before = record.state
        record.state, actions = machine.step(before, record.settings, event, time.monotonic())
        for action in actions:
            self._carry_out[type(action)](record, action)
        self._set_timer(record)
        if record.state.phase != before.phase:
            self._tell_of_movement(record, before)

    def exited(self, record: Record, status: ExitStatus) -> None:
        """The run of a container is over."""
        self.happen(record, s.Exited(s.Status(*status), _spread()))

    def start_failed(self, record: Record, reason: str) -> None:
        """A start of a container has failed."""
        self.happen(record, s.StartFailed(reason, _spread()))

    def told(self, record: Record, message: Message) -> None:
        """The program of a container has told something."""
        self.happen(record, s.Told(message))

    def forget(self, record: Record) -> None:
        """A package is removed."""
        self.happen(record, s.Stop())
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so, which only another phase of a container can bring about."""
        while not reached():
            await self._movement

    # --- time and others

    def _set_timer(self, record: Record) -> None:
        due, timer = machine.due(record.state), record.timer
        if timer is not None:
            if timer.pending and timer.when == due:
                return
            timer.cancel()
            record.timer = None
        if due is not None:
            record.timer = self._loop.call_later(due - time.monotonic(), lambda: self._tick(record))
            record.timer.when = due

    def _tick(self, record: Record) -> None:
        """Before anybody is judged, what he has said is heard."""
        if record.run is not None and record.run.notify is not None:
            record.run.notify.drain()
        self.happen(record, s.Tick())

    def _tell_of_movement(self, record: Record, before: State) -> None:
        def tell() -> None:
            if self.moved is not None:
                self.moved(record, before)
            self.stir()

        self._loop.call_soon(tell)

    def stir(self) -> None:
        """Let everybody look again who waits in `until`."""
        movement, self._movement = self._movement, Future()
        movement.set_result()

    # --- actions

    def _begin(self, record: Record) -> None:
        self._queue.append((record, record.state.generation))
        self._next()

    def _next(self) -> None:
        while self._queue and self._begun < self._parallel:
            self._begun += 1
            self._loop.spawn(self._begin_one(*self._queue.popleft()))

    async def _begin_one(self, record: Record, generation: int) -> None:
        try:
            await self._start(record, generation)
        finally:
            self._begun -= 1
            self._next()

    def _signal(self, record: Record, action: s.Action) -> None:
        assert isinstance(action, s.Signal)
        number = signal.Signals(action.number)
        _log.info(f"Sending {number.name} to {record.container}")
        if record.run is not None:
            try:
                record.run.process.kill(number)
            except OSError as error:
                _log.error(f"failed to send {number.name} to {record.container}: {error.strerror}")

    def _kill(self, record: Record) -> None:
        _log.info(f"Killing {record.container} with SIGKILL")
        if record.run is not None:
            with contextlib.suppress(OSError):
                record.run.process.kill()

    def _check(self, record: Record) -> None:
        self._loop.spawn(_awaited(self.check(record)))

    def _announce(self, record: Record, action: s.Action) -> None:
        assert isinstance(action, s.Announce)
        container, details = record.container, action.details
        if action.kind == "status":
            self._announce_status(record)
            return
        if action.kind == "restarting":
            _log.warn(f"{container} is started again in {details['delay']:.2f}s: {_reason(details)}")
            if self.metrics is not None:
                self.metrics.restarting(container)
        elif action.kind == "quarantined":
            _log.error(f"{container} is quarantined: {_reason(details)}")
        elif action.kind == "unhealthy":
            _log.warn(f"{container} is unhealthy: {_reason(details)}")
        self._notifications.supervised(action.kind, container, details)

    def _announce_status(self, record: Record) -> None:
        """What floods becomes the latest of each pause."""
        run = record.run
        if run is None or run.telling:
            return
        run.telling = True

        def tell() -> None:
            run.telling = False
            self._notifications.supervised("status", record.container, {"status": record.state.text})

        self._loop.call_later(STATUS_PAUSE, tell)

    def _end_daemon(self, record: Record, action: s.Action) -> None:
        assert isinstance(action, s.Shutdown)
        last = record.state.last
        if last is None or last.status == s.Status():
            self._shut_down(action.reason)
        else:
            status = ExitStatus(*last.status)
            self._shut_down(f"critical container failure: {record.container} exited with {status}")

    def _return(self, record: Record, action: s.Action) -> None:
        assert isinstance(action, s.RollBack)
        if self.roll_back is None:
            _log.error(f"{record.container}: there is no version to return to")
        else:
            self.roll_back(record, action.reason)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _reason(details: dict[str, object]) -> object:
    return details["reason"] or "it has ended"


def _spread() -> float:
    """A random number, -1..1; the random module costs memory."""
    return int.from_bytes(os.urandom(2), "little") / 32767.5 - 1


def exit_status(last: s.Last | None) -> ExitStatus | None:
    """How the last run ended, None if nothing was executed."""
    return None if last is None or last.status == s.Status() else ExitStatus(*last.status)


def describe(state: State, now: float) -> dict[str, object]:
    """What `inspect` tells. Times are in seconds."""
    status = exit_status(state.last)
    next_start = None if state.next_start is None else round(max(0.0, state.next_start - now), 3)
    return {
        "state": state.phase,
        "restarts": state.restarts,
        "last_exit": None if status is None else status.to_json(),
        "reason": state.last.reason if state.last is not None and state.last.failed else None,
        "next_start": next_start,
        "waiting_for": state.held or None,
        "quarantined": state.phase == s.QUARANTINED,
        "status": state.text or None,
    }
