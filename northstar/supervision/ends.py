# SPDX-License-Identifier: Apache-2.0
"""What follows from the end of a run: a restart, quarantine, or nothing."""

from __future__ import annotations

from northstar.supervision import model
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.supervision.model import Settings
    from northstar.supervision.state import Action, State

    Outcome = tuple[State, list[Action]]

SPREAD = 0.1
"""Part of a delay by which it is spread, so that not all containers come back at once."""


def after_end(state: State, settings: Settings, failed: bool, why: str, spread: float, now: float) -> Outcome:
    """Restart, quarantine, or nothing; `why` is the reason if it is a failure."""
    if state.hopeless:
        return quarantine(state, settings, state.failure)
    restart = settings.restart
    status = state.last.status if state.last is not None else s.Status()
    again = restart.policy == model.ALWAYS or (failed and restart.policy == model.ON_FAILURE)
    if not again or status.code in restart.never_exit:
        actions: list[Action] = [s.Shutdown(why)] if failed and settings.critical else []
        return down(state)._replace(**counters(state)), actions
    history = tuple(time for time in state.history if now - time < restart.window)
    if len(history) >= restart.burst:
        return quarantine(state, settings, why or "it ends again and again")
    delay = restart.delay_of(state.attempt) * (1 + SPREAD * spread)
    counted = counters(state) | {
        "attempt": state.attempt + 1,
        "history": (*history, now),
        "restarts": state.restarts + 1,
    }
    state = down(state)._replace(phase=s.WAITING, next_start=now + delay, **counted)
    return state, [s.Announce("restarting", {"reason": why, "delay": delay})]


def reason(state: State, settings: Settings, status: s.Status) -> str:
    """Why an end is a failure; nothing if it is none."""
    if state.failure:
        return state.failure
    if status.signal is not None:
        return f"killed by signal {status.signal}"
    if status.code not in (0, *settings.restart.success_exit):
        return f"exit code {status.code}" + (f", errno {state.error}" if state.error else "")
    if settings.ready.by == model.NOTIFY and not state.was_ready:
        return f"exit code {status.code} before it was ready"
    return ""


def quarantine(state: State, settings: Settings, why: str) -> Outcome:
    """It has failed, and no restart would help."""
    actions: list[Action] = [s.Announce("quarantined", {"reason": why})]
    if settings.restart.on_burst == model.SHUTDOWN:
        actions.append(s.Shutdown(why))
    elif settings.restart.on_burst == model.ROLLBACK:
        actions.append(s.RollBack(why))
    return down(state)._replace(phase=s.QUARANTINED, **counters(state)), actions


def down(state: State) -> State:
    """Nothing of it runs, and nothing is planned."""
    return s.State(generation=state.generation, last=state.last)


def counters(state: State) -> dict[str, Any]:
    """What outlives a run that nobody asked to end."""
    return {
        "attempt": state.attempt,
        "history": state.history,
        "restarts": state.restarts,
        "text": state.text,
    }
