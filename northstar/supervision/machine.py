# SPDX-License-Identifier: Apache-2.0
"""The life of one container as a pure function: (state, event, clock) -> (state, actions).

    idle -> starting -> started -> ready -> stopping -> idle
                                                     -> waiting -> starting
                                                     -> quarantined

An event that does not fit changes nothing: a timer that is late, a check whose container has ended
meanwhile, a notification of a program that is being killed.
"""

from __future__ import annotations

import signal

from northstar.supervision import ends, model, notification
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from northstar.supervision.model import Settings
    from northstar.supervision.state import Action, Event, State

    Outcome = tuple[State, list[Action]]

LATE = 0.25
"""Part of an interval by which a timer may be late. More: it was we who had no time, or the clock jumped."""
MIN_INTERVAL = 0.1
"""Seconds: the shortest interval that a program can choose for its watchdog."""
SIGTERM, SIGABRT, SIGKILL = signal.SIGTERM, signal.SIGABRT, signal.SIGKILL


def step(state: State, settings: Settings, event: Event, now: float) -> Outcome:
    """What an event makes of a container, and what is to be done, in this order."""
    return _TRANSITIONS[type(event)](state, settings, event, now)


def due(state: State) -> float | None:
    """When the next `Tick` is wanted; None if no time is waited for."""
    times = [t for t in (state.deadline, state.next_start, state.watchdog, state.check) if t is not None]
    return min(times, default=None)


# --- starts


def _start(state: State, settings: Settings, event: s.Start, now: float) -> Outcome:
    """One that somebody asks for always begins, and forgets the failures before it."""
    if state.phase in s.ALIVE:
        return state, []
    kept = s.State(last=state.last, generation=state.generation)
    return _begin(kept._replace(asked=event.asked)), []


def _hold(state: State, _: Settings, event: s.Hold, now: float) -> Outcome:
    if state.phase != s.IDLE:
        return state, []
    deadline = None if event.timeout is None else now + event.timeout
    return state._replace(phase=s.WAITING, held=event.others, deadline=deadline, asked=False), []


def _refused(state: State, _: Settings, event: s.Refused, now: float) -> Outcome:
    if state.phase != s.IDLE:
        return state, []
    return state._replace(last=s.Last(s.Status(), True, event.reason)), []


def _release(state: State, _: Settings, __: s.Release, now: float) -> Outcome:
    if state.phase != s.WAITING or not state.held:
        return state, []
    return _begin(state), [s.Begin()]


def _begin(state: State) -> State:
    """A new run; what concerns the one before is forgotten."""
    return s.State(
        phase=s.STARTING,
        generation=state.generation + 1,
        asked=state.asked,
        attempt=state.attempt,
        history=state.history,
        restarts=state.restarts,
        last=state.last,
    )


def _executing(state: State, settings: Settings, _: s.Executing, now: float) -> Outcome:
    if state.phase != s.STARTING:
        return state, []
    state = state._replace(phase=s.STARTED)
    if settings.ready.by == model.STARTED:
        return _become_ready(state, settings, now)
    timeout = settings.ready.timeout
    deadline = None if timeout is None else now + timeout
    return state._replace(deadline=deadline, limit=now + settings.ready.timeout_max), []


def _become_ready(state: State, settings: Settings, now: float) -> Outcome:
    watchdog, health = settings.watchdog, settings.health
    interval = state.interval or (0.0 if watchdog is None else watchdog.interval)
    state = state._replace(
        phase=s.READY,
        deadline=None,
        was_ready=True,
        ready_since=now,
        interval=interval,
        watchdog=now + interval if watchdog is not None else None,
        check=None if health is None else now + health.period,
    )
    return state, [s.Announce("ready", {})]


# --- what the program tells


def _told(state: State, settings: Settings, event: s.Told, now: float) -> Outcome:
    message = event.message
    if state.phase not in s.ALIVE:
        return state, []
    actions: list[Action] = []
    if message.text is not None and message.text != state.text:
        state = state._replace(text=message.text)
        actions.append(s.Announce("status", {"status": message.text}))
    if message.error is not None:
        state = state._replace(error=message.error)
    if message.restart_reset:
        state = state._replace(attempt=0, history=())
    state = _fed(_extended(state, message, now), settings, message, now)
    if message.reloading and state.phase == s.READY:
        state = state._replace(reloading=True)
    if message.ready:
        state = state._replace(reloading=False)
        if state.phase == s.STARTED and settings.ready.by == model.NOTIFY:
            state, more = _become_ready(state, settings, now)
            actions += more
    if message.stopping and state.phase in s.RUNNING:
        state = _stopping(state, settings, now, settings.stop.timeout)
    if message.watchdog == notification.TRIGGER and state.phase in s.RUNNING:
        state, more = _fail(state, settings, "the program itself has triggered the watchdog", now)
        actions += more
    return state, actions


def _extended(state: State, message: notification.Message, now: float) -> State:
    """More time for starting or stopping, up to the limit."""
    if message.extend is None or state.deadline is None or state.phase not in (s.STARTED, s.STOPPING):
        return state
    wanted = min(now + message.extend, state.limit)
    return state._replace(deadline=max(state.deadline, wanted))


def _fed(state: State, settings: Settings, message: notification.Message, now: float) -> State:
    """A sign of life, or another interval for those that follow."""
    if settings.watchdog is None:
        return state
    if message.interval is not None:
        longest = settings.watchdog.interval_max
        state = state._replace(interval=min(max(message.interval, MIN_INTERVAL), longest))
    fed = message.watchdog == notification.FEED or message.interval is not None
    if fed and state.watchdog is not None:
        state = state._replace(watchdog=now + state.interval)
    return state


def _checked(state: State, settings: Settings, event: s.Checked, now: float) -> Outcome:
    health = settings.health
    if health is None or state.phase != s.READY:
        return state, []
    state = state._replace(check=now + health.period)
    if event.healthy:
        return state._replace(failed_checks=0, healthy=True), []
    if not state.healthy and now < state.ready_since + health.start_period:
        return state, []
    state = state._replace(failed_checks=state.failed_checks + 1)
    if state.failed_checks != health.threshold:
        return state, []
    cause = f": {event.reason}" if event.reason else ""
    reason = f"{health.threshold} checks of its health have failed{cause}"
    if health.on_failure == model.RESTART:
        return _fail(state, settings, reason, now)
    return state, [s.Announce("unhealthy", {"reason": reason})]


# --- ends


def _stop(state: State, settings: Settings, event: s.Stop, now: float) -> Outcome:
    if state.phase == s.WAITING:
        return ends.down(state), []
    if state.phase not in s.ALIVE:
        return state, []
    wanted = state._replace(wanted=True, held="")
    if state.phase == s.STARTING:
        return _stopping(wanted, settings, now, 0.0)._replace(deadline=None), [s.Kill()]
    timeout = settings.stop.timeout if event.timeout is None else event.timeout
    stopping = _stopping(wanted, settings, now, timeout)
    if event.timeout is not None:
        stopping = stopping._replace(limit=now + timeout)
    if state.phase == s.STOPPING and state.deadline is not None:
        stopping = stopping._replace(deadline=min(now + timeout, state.deadline))
    return stopping, [s.Signal(settings.stop.signal if event.signal is None else event.signal)]


def _killed(state: State, settings: Settings, _: s.Killed, now: float) -> Outcome:
    """The signal has been sent; nothing follows, as it is for the client to send more."""
    if state.phase == s.WAITING:
        return ends.down(state), []
    if state.phase not in s.ALIVE:
        return state, []
    if state.phase in s.RUNNING:
        state = _stopping(state, settings, now, 0.0)._replace(deadline=None)
    return state._replace(wanted=True, killed=True, held=""), []


def _unbound(state: State, settings: Settings, event: s.Unbound, now: float) -> Outcome:
    """A run that is about to begin is left alone: it is asked again when it is executing."""
    held = event.other if event.again else ""
    if state.phase == s.STOPPING:
        return state if state.wanted or not held else state._replace(held=held), []
    if state.phase not in s.RUNNING:
        return state, []
    state = _stopping(state, settings, now, settings.stop.timeout)
    return state._replace(held=held, wanted=not event.again), [s.Signal(settings.stop.signal)]


def _ruined(state: State, settings: Settings, event: s.Ruined, now: float) -> Outcome:
    """Who is down, and not about to come back, stays so: nobody starts it without asking."""
    if state.phase == s.WAITING:
        failed = state._replace(last=s.Last(s.Status(), True, event.reason))
        return ends.quarantine(failed, settings, event.reason)
    if state.phase not in s.ALIVE:
        return state, []
    stopping = _stopping(state, settings, now, 0.0)
    return stopping._replace(deadline=None, failure=event.reason, hopeless=True), [s.Kill()]


def _stopping(state: State, settings: Settings, now: float, timeout: float) -> State:
    return state._replace(
        phase=s.STOPPING,
        deadline=now + timeout,
        limit=max(now + timeout, now + settings.stop.timeout_max),
        watchdog=None,
        check=None,
        reloading=False,
    )


def _fail(state: State, settings: Settings, reason: str, now: float, number: int = 0) -> Outcome:
    """It runs, and must not go on as it is."""
    told, asked = s.Announce("unhealthy", {"reason": reason}), s.Signal(number or settings.stop.signal)
    return _stopping(state, settings, now, settings.stop.timeout)._replace(failure=reason), [told, asked]


def _start_failed(state: State, settings: Settings, event: s.StartFailed, now: float) -> Outcome:
    """Who has asked for it is told, and may ask again; otherwise it counts like any failure."""
    if state.phase not in s.ALIVE:
        return state, []
    state = state._replace(last=s.Last(s.Status(), not state.wanted, event.reason))
    if state.wanted or state.asked:
        return ends.down(state), []
    return ends.after_end(state, settings, True, event.reason, event.spread, now)


def _exited(state: State, settings: Settings, event: s.Exited, now: float) -> Outcome:
    if state.phase not in s.ALIVE:
        return state, []
    reason = ends.reason(state, settings, event.status)
    failed = bool(reason) and not state.wanted
    state = state._replace(last=s.Last(event.status, failed, reason if failed else ""))
    if state.wanted:
        # As upstream: who kills a critical container ends the runtime.
        fatal = settings.critical and state.killed and event.status.code != 0
        return ends.down(state), [s.Shutdown(reason)] if fatal else []
    if state.held and not state.failure:
        return ends.down(state)._replace(phase=s.WAITING, held=state.held, **ends.counters(state)), []
    if state.was_ready and now - state.ready_since >= settings.restart.reset_after:
        state = state._replace(attempt=0, history=())
    return ends.after_end(state, settings, failed, reason, event.spread, now)


def _reset(state: State, _: Settings, __: s.Reset, now: float) -> Outcome:
    if state.phase == s.QUARANTINED:
        return ends.down(state), []
    return state._replace(attempt=0, history=(), restarts=0), []


# --- time


def _tick(state: State, settings: Settings, _: s.Tick, now: float) -> Outcome:
    if state.next_start is not None and now >= state.next_start:
        return _begin(state), [s.Begin()]
    if state.deadline is not None and now >= state.deadline:
        return _too_late(state, settings, now)
    if state.watchdog is not None and now >= state.watchdog:
        return _starved(state, settings, now)
    if state.check is not None and now >= state.check:
        return state._replace(check=None), [s.Check()]
    return state, []


def _too_late(state: State, settings: Settings, now: float) -> Outcome:
    if state.phase == s.WAITING:
        reason = f"it has waited for {state.held} in vain"
        failed = state._replace(last=s.Last(s.Status(), True, reason))
        after, actions = ends.after_end(failed, settings, True, reason, 0.0, now)
        if after.phase == s.WAITING and after.next_start is not None:
            # The next attempt waits again.
            deadline = after.next_start + (settings.after_timeout or 0.0)
            after = after._replace(next_start=None, held=state.held, deadline=deadline)
        return after, actions
    if state.phase == s.STARTED:
        timeout = settings.ready.timeout or 0.0
        if state.deadline is not None and now - state.deadline > LATE * timeout:
            return state._replace(deadline=now + timeout), []
        return _fail(state, settings, "it was not ready in time", now)
    failure = state.failure or ("" if state.wanted else "it did not stop in time")
    return state._replace(deadline=None, failure=failure), [s.Kill()]


def _starved(state: State, settings: Settings, now: float) -> Outcome:
    """The watchdog. Whoever judges must have been awake himself."""
    if state.watchdog is not None and now - state.watchdog > LATE * state.interval:
        return state._replace(watchdog=now + state.interval), []
    number = settings.watchdog.signal if settings.watchdog is not None else SIGABRT
    return _fail(state, settings, f"no sign of life for {state.interval:g}s", now, number)


_TRANSITIONS: dict[type, Callable[[State, Settings, Any, float], Outcome]] = {
    s.Start: _start,
    s.Hold: _hold,
    s.Refused: _refused,
    s.Release: _release,
    s.Executing: _executing,
    s.StartFailed: _start_failed,
    s.Told: _told,
    s.Checked: _checked,
    s.Stop: _stop,
    s.Killed: _killed,
    s.Unbound: _unbound,
    s.Ruined: _ruined,
    s.Exited: _exited,
    s.Reset: _reset,
    s.Tick: _tick,
}
