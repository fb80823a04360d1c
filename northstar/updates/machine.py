# SPDX-License-Identifier: Apache-2.0
"""An update as a state machine: what has happened -> what to do next.

The machine asks for one action at a time and is told whether it was done or has failed. It knows no time, no
files and no processes; whoever carries out the actions does. So every order of events, and a power cut
between any two of them, can be tried without a container. The numbers of steps are those of docs/updates.md.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.names import Container
from northstar.updates.journal import (
    ABORTED,
    CANCELLED,
    COPY,
    GOOD,
    ROLLBACK_FAILED,
    ROLLED_BACK,
    ROLLING_BACK,
    STAGED,
    TRYING,
    Update,
)

# --- what the machine asks for


class Record(NamedTuple):
    """Make the update's phase durable, in the leader's journal; with `STAGED` in all of them."""

    update: Update


class Close(NamedTuple):
    """Make the result durable: in the journals of the others first, at last in the leader's."""

    update: Update
    result: str
    reason: str


class Prepare(NamedTuple):
    """Do what containers need for their starts while others run; a start tells what has gone wrong."""

    containers: tuple[Container, ...]


class Stop(NamedTuple):
    """End a container; done at once if it does not run."""

    container: Container


class Start(NamedTuple):
    """Start a container, done when it executes. `trial`: it has to prove itself."""

    container: Container
    trial: bool


class AwaitReady(NamedTuple):
    """Wait until a container that was started is ready. Fails if it ends before, or takes too long."""

    container: Container


class Settle(NamedTuple):
    """Wait `seconds`; fails as soon as one of the containers fails, or has failed since its start."""

    containers: tuple[Container, ...]
    seconds: float


class CopyData(NamedTuple):
    """Put a copy of the persistent data aside, unless there is one already."""

    container: Container


class RestoreData(NamedTuple):
    """Put the copy back into its place, if there is one."""

    container: Container


class DropData(NamedTuple):
    """The copy is not needed any more."""

    container: Container


class Report(NamedTuple):
    """Tell whoever listens."""

    update: Update
    phase: str
    reason: str = ""


class CleanUp(NamedTuple):
    """Remove packages that nothing needs any more; what cannot be removed is tried at the next start."""

    update: Update


Action = (
    Record
    | Close
    | Prepare
    | Stop
    | Start
    | AwaitReady
    | Settle
    | CopyData
    | RestoreData
    | DropData
    | Report
    | CleanUp
)


# --- what the machine is told


class Done(NamedTuple):
    """The action was carried out."""


class Failed(NamedTuple):
    """It was not. `culprit` is the name of the container that is to blame, if one is."""

    reason: str
    culprit: str = ""


class Cancel(NamedTuple):
    """A client does not want the update any more."""


Event = Done | Failed | Cancel

# --- states

STAGING = "staging"
"""Step 3: nobody knows of it yet."""
WAITING = "waiting"
"""It is accepted, and nothing has been touched."""
MARKING = "marking"
"""Step 4: the trial becomes durable."""
TRIAL = "trial"
"""Step 5."""
COMMITTING = "committing"
"""Step 6."""
MARKING_BAD = "marking_bad"
"""Step 7: the failure becomes durable."""
REVERTING = "reverting"
CLOSING = "closing"
"""Step 8, and what is cancelled or aborted."""
ENDING = "ending"
"""Step 9, and the report."""
OVER = "over"


class State(NamedTuple):
    """Where an update is. `todo` are the actions behind the one at hand; `trouble` is what went wrong while
    the old versions were brought back."""

    update: Update
    stage: str
    todo: tuple[Action, ...] = ()
    attempt: int = 1
    trouble: str = ""
    result: str = ""
    resumed: bool = False
    """Whether it was open when the runtime was started, so that nothing of it runs."""


Step = tuple[State, Action | None]
"""The new state, and what to do next: nothing if it is over, or if the last action goes on."""


def begin(update: Update) -> Step:
    """A new update, which was checked."""
    return _enter(State(update._replace(phase=STAGED), STAGING), (Record(update._replace(phase=STAGED)),))


def resume(update: Update, *, max_boots: int, abort: bool = False) -> Step:
    """An update that was open when the runtime ended, in order or by a power cut.

    `abort`: what was only staged is given up. A trial goes on in `max_boots` starts of the runtime.
    """
    state = State(update, STAGING, resumed=True)
    if update.phase == GOOD:
        return _commit(state)
    if update.phase == ROLLING_BACK:
        return _revert(state)
    if update.phase == TRYING:
        if update.boots >= max_boots:
            return _give_up(state, Failed(f"not good after {update.boots} restarts of the runtime"))
        return _mark(state, update.boots + 1)
    if abort:
        return _close(state, ABORTED, "the runtime was restarted before the trial began")
    return _mark(state, 0)


def revert(update: Update, reason: str, culprit: str) -> Step:
    """Go back to the previous versions after the new ones had been found good."""
    return _give_up(State(update, TRIAL, attempt=update.attempts), Failed(reason, culprit))


def react(state: State, event: Event) -> Step:
    """What follows from an event."""
    if isinstance(event, Cancel):
        return _cancel(state)
    if isinstance(event, Failed):
        return _failed(state, event)
    if state.todo:
        return state._replace(todo=state.todo[1:]), state.todo[0]
    return _next_stage(state)


def may_cancel(state: State) -> bool:
    """Whether nothing has been touched yet."""
    return state.stage in (STAGING, WAITING)


def _enter(state: State, actions: tuple[Action, ...]) -> Step:
    return state._replace(todo=actions[1:]), actions[0]


def _cancel(state: State) -> Step:
    if not may_cancel(state):
        return state, None
    return _close(state, CANCELLED, "a client has cancelled it")


def _next_stage(state: State) -> Step:
    if state.stage == STAGING:
        return _enter(state._replace(stage=WAITING), (Report(state.update, STAGED),))
    if state.stage == WAITING:
        return _mark(state, 0)
    if state.stage == MARKING:
        return _try(state)
    if state.stage == TRIAL:
        return _commit(state)
    if state.stage == COMMITTING:
        return _end(state._replace(result=GOOD), GOOD)
    if state.stage == MARKING_BAD:
        return _revert(state)
    if state.stage == REVERTING:
        result = ROLLBACK_FAILED if state.trouble else ROLLED_BACK
        return _close(state, result, "; ".join(filter(None, (state.update.reason, state.trouble))))
    if state.stage == CLOSING:
        return _end(state, state.result)
    return state._replace(stage=OVER), None


def _failed(state: State, event: Failed) -> Step:
    if state.stage in (STAGING, WAITING, MARKING):
        return _close(state, ABORTED, event.reason)
    if state.stage == TRIAL:
        if state.attempt < state.update.attempts:
            return _try(state._replace(attempt=state.attempt + 1), again=True)
        return _give_up(state, event)
    if state.stage == COMMITTING:
        if state.todo or len(state.update.changes) == 1:
            # What is not durable is not good.
            return _give_up(state, event)
        # The leader's record says that it is good; the next start completes the others.
        state = state._replace(trouble=event.reason)
    if state.stage == MARKING_BAD:
        # The journal still says `trying`: the next start tries once more. Now the old version has to run.
        return _revert(state)
    if state.stage == CLOSING:
        # The record may say `trying` still; then no journal must say that it is over.
        state = state._replace(todo=tuple(action for action in state.todo if isinstance(action, Start)))
    if state.stage == REVERTING:
        state = state._replace(trouble="; ".join(filter(None, (state.trouble, event.reason))))
    return react(state, Done())


# --- the stages


def _mark(state: State, boots: int) -> Step:
    update = state.update._replace(phase=TRYING, boots=boots)
    return _enter(state._replace(update=update, stage=MARKING), (Record(update),))


def _try(state: State, *, again: bool = False) -> Step:
    update = state.update
    actions: list[Action] = [] if again else [Report(update, TRYING), Prepare(_new(update))]
    if again:
        actions += [Stop(container) for container in reversed(_new(update))]
    # Also after a restart, in which somebody may have started them.
    actions += [Stop(container) for container in reversed(_old(update))]
    if update.data == COPY:
        actions += [CopyData(container) for container in _old(update)]
    for container in _new(update):
        actions += [Start(container, trial=True), AwaitReady(container)]
    actions.append(Settle(_new(update), update.settle))
    return _enter(state._replace(stage=TRIAL), tuple(actions))


def _commit(state: State) -> Step:
    """For a group the leader's record says it first: from there on each of the others is to become active."""
    update = state.update._replace(phase=GOOD)
    actions: list[Action] = [] if len(update.changes) == 1 else [Record(update)]
    actions.append(Close(update, GOOD, ""))
    return _enter(state._replace(update=update, stage=COMMITTING), tuple(actions))


def _give_up(state: State, event: Failed) -> Step:
    update = state.update._replace(phase=ROLLING_BACK, reason=event.reason, culprit=event.culprit)
    return _enter(state._replace(update=update, stage=MARKING_BAD), (Record(update),))


def _revert(state: State) -> Step:
    update = state.update
    actions: list[Action] = [Report(update, ROLLING_BACK, update.reason)]
    actions += [Stop(container) for container in reversed(_new(update))]
    if update.data == COPY:
        actions += [RestoreData(container) for container in _old(update)]
    for container in _old(update):
        actions += [Start(container, trial=False), AwaitReady(container)]
    return _enter(state._replace(stage=REVERTING), tuple(actions))


def _close(state: State, result: str, reason: str) -> Step:
    """Of a failure the leader's record says it first, also if that was not possible in step 7."""
    update = state.update
    actions: list[Action] = []
    if update.phase == ROLLING_BACK and len(update.changes) > 1:
        actions.append(Record(update))
    actions.append(Close(update, result, reason))
    if state.resumed and result == ABORTED and state.stage == MARKING:
        # The time of autostarts is over.
        actions += [Start(container, trial=False) for container in _old(update)]
    return _enter(state._replace(stage=CLOSING, result=result, trouble=reason), tuple(actions))


def _end(state: State, result: str) -> Step:
    update = state.update
    actions: list[Action] = []
    if update.data == COPY and result != ROLLBACK_FAILED:
        actions += [DropData(container) for container in _old(update)]
    # Told last, so that whoever hears of it finds everything as it will stay.
    actions += [CleanUp(update), Report(update, result, state.trouble)]
    return _enter(state._replace(stage=ENDING), tuple(actions))


def _old(update: Update) -> tuple[Container, ...]:
    return tuple(Container(change.name, change.old) for change in update.changes if change.old is not None)


def _new(update: Update) -> tuple[Container, ...]:
    return tuple(Container(change.name, change.new) for change in update.changes)
