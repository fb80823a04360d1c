# SPDX-License-Identifier: Apache-2.0
"""Random lives of containers, with what must hold after each event."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from supervisedlife import Life

from northstar.supervision import machine, model
from northstar.supervision import state as s
from northstar.supervision.model import Health, Ready, Restart, Settings, Watchdog
from northstar.supervision.notification import Message

_SETTINGS = st.builds(
    lambda **sections: Settings(**sections),  # else the fields that are left out are invented
    restart=st.builds(
        lambda **fields: Restart(**fields),
        policy=st.sampled_from(model.POLICIES),
        delay=st.sampled_from([0.0, 0.5, 5.0]),
        burst=st.integers(1, 4),
        window=st.sampled_from([40.0, 300.0]),
        on_burst=st.sampled_from(model.ON_BURST),
        never_exit=st.sampled_from([(), (78,)]),
    ),
    ready=st.sampled_from([Ready(), Ready("notify", 30.0, 60.0), Ready("exit"), Ready("exit", 5.0)]),
    watchdog=st.none() | st.just(Watchdog(10.0, 20.0, signal.SIGABRT)),
    health=st.none() | st.just(Health(("/c",), threshold=2)),
    after_timeout=st.none() | st.just(15.0),
    critical=st.booleans(),
)
_MESSAGES = st.builds(
    lambda **fields: Message(**fields),
    ready=st.booleans(),
    stopping=st.booleans(),
    reloading=st.booleans(),
    watchdog=st.sampled_from(["", "1", "trigger"]),
    interval=st.none() | st.sampled_from([0.0, 3.0, 1e9]),
    extend=st.none() | st.sampled_from([0.0, 20.0, 1e12]),
    text=st.none() | st.text(max_size=3),
)
_EVENTS = st.one_of(
    st.builds(s.Start, st.booleans()),
    st.builds(s.Hold, st.just("b ready"), st.none() | st.just(15.0)),
    st.just(s.Release()),
    st.just(s.Executing()),
    st.builds(s.StartFailed, st.just("no"), st.floats(-1, 1)),
    st.builds(s.Told, _MESSAGES),
    st.builds(s.Checked, st.booleans()),
    st.builds(s.Stop, st.none() | st.just(2), st.none() | st.just(3.0)),
    st.just(s.Killed()),
    st.builds(s.Unbound, st.just("b"), st.booleans()),
    st.just(s.Ruined("it is damaged")),
    st.builds(
        s.Exited,
        st.sampled_from([s.Status(0), s.Status(1), s.Status(78), s.Status(None, 9)]),
        st.floats(-1, 1),
    ),
    st.just(s.Reset()),
    st.just(s.Tick()),
    st.just(s.Tick()),
    st.just(s.Tick()),
)
_STEPS = st.lists(
    st.tuples(_EVENTS, st.sampled_from([0.0, 0.0, 0.1, 1.0, 12.0, 100.0, 1e6]) | st.just("due")), max_size=40
)


@settings(max_examples=250)
@given(_SETTINGS, _STEPS)
def test_whatever_happens(wanted: Settings, steps: list[tuple[s.Event, Any]]) -> None:
    state, now = s.IDLE_STATE, 1000.0
    begun: list[float] = []
    stopped = False
    for event, pause in steps:
        due = machine.due(state)
        now = max(now, due if due is not None and pause == "due" else now + (0 if pause == "due" else pause))
        before = state
        state, actions = machine.step(before, wanted, event, now)
        _check_step(before, state, event, actions)
        _check_state(state, wanted, now)
        if isinstance(event, s.Start | s.Reset) or (isinstance(event, s.Hold) and state != before):
            stopped, begun = False, []
        if isinstance(event, s.Stop | s.Killed) and before.phase not in (s.IDLE, s.QUARANTINED):
            stopped = True
        restarted = [
            action for action in actions if isinstance(action, s.Announce) and action.kind == "restarting"
        ]
        if restarted:
            begun.append(now)
            assert not stopped, "what was stopped comes back by itself"
        if before.attempt and not state.attempt and before.phase == state.phase:
            begun = []  # the program has said that it is fine
        recent = [time for time in begun if now - time < wanted.restart.window]
        if before.was_ready and now - before.ready_since >= wanted.restart.reset_after:
            begun = begun[-1:] if restarted else []
        else:
            assert len(recent) <= wanted.restart.burst
        if any(isinstance(action, s.Begin) for action in actions):
            assert not stopped


def _check_step(before: s.State, after: s.State, event: s.Event, actions: list[s.Action]) -> None:
    begins = [action for action in actions if isinstance(action, s.Begin)]
    assert len(begins) <= 1
    if begins:
        assert (before.phase, after.phase) == (s.WAITING, s.STARTING), "two runs at a time"
    assert after.generation - before.generation == (after.phase == s.STARTING != before.phase)
    if before.phase == s.QUARANTINED and after.phase != s.QUARANTINED:
        assert isinstance(event, s.Start | s.Reset)
    if before.phase in s.ALIVE and after.phase not in s.ALIVE:
        assert isinstance(event, s.Exited | s.StartFailed), "a run is forgotten"
    signals = [action for action in actions if isinstance(action, s.Signal | s.Kill)]
    if signals:
        assert before.phase in s.ALIVE, "a signal to nobody"


def _check_state(state: s.State, wanted: Settings, now: float) -> None:
    due = machine.due(state)
    if state.phase in (s.IDLE, s.QUARANTINED, s.STARTING):
        assert due is None
        assert not state.held
    if state.phase == s.WAITING:
        assert (state.next_start is None) == bool(state.held), "it waits for nothing"
    if state.deadline is not None and state.phase in (s.STARTED, s.STOPPING):
        assert state.deadline <= state.limit + 1e-6 or state.phase == s.STARTED
    if state.phase == s.READY:
        assert (state.watchdog is None) == (wanted.watchdog is None)
    if state.phase != s.READY:
        assert state.watchdog is None and state.check is None
    assert len(state.history) <= wanted.restart.burst


@settings(max_examples=15)
@given(_SETTINGS, st.floats(1, 1e6))
def test_every_end_comes(wanted: Settings, ahead: float) -> None:
    """A program that ignores everything and extends everything is killed in the end."""
    life = Life(wanted).run()
    life(s.Stop(), ahead)
    for _ in range(1000):
        if any(isinstance(action, s.Kill) for action in life(s.Tick())):
            break
        life.tell(after=1.0, extend=1e9, watchdog="1", ready=True)
    else:
        pytest.fail("it is never killed")
    life.end(number=9)
    assert life.state.phase == s.IDLE
