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

from northstar.runtime import log
from northstar.runtime.eventloop.loop import Future, Timeout
from northstar.runtime.spawning.process import ExitStatus
from northstar.supervision import machine
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.spawning.process import Process
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.supervision.notification import Message
    from northstar.supervision.state import Event, State

_log = log.Logger("runtime::supervisor")

WAKE_DELAY = 0.1
"""Seconds from a signal to the one that wakes a program which is stopped."""
STATUS_PAUSE = 0.25
"""Seconds between two notifications about what a program says of itself."""


class Supervisor:
    """The states of all containers, in motion."""

    def __init__(
        self,
        loop: Loop,
        tell: Callable[[str, Container, dict[str, object]], None],
        shut_down: Callable[[str], None],
        parallel: int,
    ) -> None:
        """`tell` hears what observers are to hear: kind, container, details; `shut_down` ends the daemon.

        At most `parallel` starts at a time are begun from here.
        """
        self.roll_back: Callable[[Supervised, str], None]
        """Returns to the version before."""
        self._loop = loop
        self._tell = tell
        self._shut_down = shut_down
        self._parallel = parallel
        self._begun = 0
        self._queue: deque[Supervised] = deque()
        self._telling: set[Supervised] = set()
        """Whose status is told soon."""
        self._movement = Future()
        self._start: Callable[[Any], Coroutine[Any, Any, None]]
        self._check_health: Callable[[Any], Coroutine[Any, Any, None]]
        self._watchers: list[Callable[[Supervised, State], None]] = []
        self._carry_out: dict[type, Callable[[Supervised, s.Action], None]] = {
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
        start: Callable[[Any], Coroutine[Any, Any, None]],
        check_health: Callable[[Any], Coroutine[Any, Any, None]],
        moved: Callable[[Supervised, State], None],
    ) -> None:
        """How a start that was begun here is made, and a check of health; and who hears of other phases."""
        self._start = start
        self._check_health = check_health
        self.watch(moved)

    def watch(self, moved: Callable[[Supervised, State], None]) -> None:
        """Call it, in a later turn, when a container is in another phase; with the state before."""
        self._watchers.append(moved)

    def happen(self, record: Supervised, event: Event) -> None:
        """Something has happened to a container."""
        before = record.state
        record.state, actions = machine.step(before, record.settings, event, time.monotonic())
        for action in actions:
            self._carry_out[type(action)](record, action)
        self._set_timer(record)
        if record.state.phase != before.phase:
            self._tell_of_movement(record, before)

    def exited(self, record: Supervised, status: ExitStatus) -> None:
        """The run of a container is over."""
        self.happen(record, s.Exited(s.Status(*status), _spread()))

    def start_failed(self, record: Supervised, reason: str) -> None:
        """A start of a container has failed."""
        self.happen(record, s.StartFailed(reason, _spread()))

    def told(self, record: Supervised, message: Message) -> None:
        """The program of a container has told something."""
        self.happen(record, s.Told(message))

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so, which only another phase of a container can bring about."""
        while not reached():
            await self._movement

    async def within(self, limit: float | None, reached: Callable[[], bool]) -> bool:
        """The same, at most `limit` seconds: whether it is so."""
        waiting = self._loop.spawn(self.until(reached))
        try:
            if limit is None:
                await waiting
            else:
                await self._loop.wait_for(waiting, limit)
        except Timeout:
            return reached()
        finally:
            waiting.cancel()
        return True

    # --- time and others

    def _set_timer(self, record: Supervised) -> None:
        due, timer = machine.due(record.state), record.timer
        if timer is not None:
            if timer.pending and timer.when == due:
                return
            timer.cancel()
            record.timer = None
        if due is not None:
            record.timer = self._loop.call_at(due, lambda: self._tick(record))

    def _tick(self, record: Supervised) -> None:
        """Before anybody is judged, what he has said is heard."""
        if record.run is not None and record.run.notify is not None:
            record.run.notify.drain()
        self.happen(record, s.Tick())

    def _tell_of_movement(self, record: Supervised, before: State) -> None:
        def tell() -> None:
            for moved in self._watchers:
                moved(record, before)
            self.stir()

        self._loop.call_soon(tell)

    def stir(self) -> None:
        """Let everybody look again who waits in `until`."""
        movement, self._movement = self._movement, Future()
        movement.set_result()

    # --- actions

    def _begin(self, record: Supervised) -> None:
        self._queue.append(record)
        self._next()

    def _next(self) -> None:
        while self._queue and self._begun < self._parallel:
            self._begun += 1
            self._loop.spawn(self._begin_one(self._queue.popleft()))

    async def _begin_one(self, record: Supervised) -> None:
        try:
            await self._start(record)
        finally:
            self._begun -= 1
            self._next()

    def _signal(self, record: Supervised, action: s.Action) -> None:
        assert isinstance(action, s.Signal)
        number = signal.Signals(action.number)
        _log.info(f"Sending {number.name} to {record.container}")
        if record.run is not None:
            try:
                record.run.process.kill(number)
            except OSError as error:
                _log.error(f"failed to send {number.name} to {record.container}: {error.strerror}")
            process = record.run.process
            self._loop.call_later(WAKE_DELAY, lambda: self._wake(process))

    def _wake(self, process: Process) -> None:
        """Who is stopped (SIGSTOP) takes notice of nothing else; who is not has had his chance by now."""
        with contextlib.suppress(OSError):
            process.kill(signal.SIGCONT)

    def _kill(self, record: Supervised) -> None:
        _log.info(f"Killing {record.container} with SIGKILL")
        if record.run is not None:
            with contextlib.suppress(OSError):
                record.run.process.kill()

    def _check(self, record: Supervised) -> None:
        self._loop.spawn(self._check_health(record))

    def _announce(self, record: Supervised, action: s.Action) -> None:
        assert isinstance(action, s.Announce)
        container, details = record.container, action.details
        if action.kind == "status":
            self._announce_status(record)
            return
        if action.kind == "restarting":
            _log.warn(f"{container} is started again in {details['delay']:.2f}s: {_reason(details)}")
        elif action.kind == "quarantined":
            _log.error(f"{container} is quarantined: {_reason(details)}")
        elif action.kind == "unhealthy":
            _log.warn(f"{container} is unhealthy: {_reason(details)}")
        self._tell(action.kind, container, details)

    def _announce_status(self, record: Supervised) -> None:
        """What floods becomes the latest of each pause."""
        if record in self._telling:
            return
        self._telling.add(record)

        def tell() -> None:
            self._telling.discard(record)
            self._tell("status", record.container, {"status": record.state.text})

        self._loop.call_later(STATUS_PAUSE, tell)

    def _end_daemon(self, record: Supervised, action: s.Action) -> None:
        assert isinstance(action, s.Shutdown)
        last = record.state.last
        if last is None or last.status == s.Status():
            self._shut_down(action.reason)
        else:
            status = ExitStatus(*last.status)
            self._shut_down(f"critical container failure: {record.container} exited with {status}")

    def _return(self, record: Supervised, action: s.Action) -> None:
        assert isinstance(action, s.RollBack)
        self.roll_back(record, action.reason)


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
