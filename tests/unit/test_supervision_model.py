# SPDX-License-Identifier: Apache-2.0
"""What a manifest asks for: delays, defaults, and who gets a socket for notifications."""

from __future__ import annotations

import pytest

from northstar.supervision import state as s
from northstar.supervision.model import CRITICAL, DEFAULTS, Health, Ready, Restart, Settings, Stop, Watchdog


@pytest.mark.parametrize(
    ("restart", "delays"),
    [
        (Restart(), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
        (Restart(delay=1.0, factor=3.0, max_delay=27.0), [1.0, 3.0, 9.0, 27.0, 27.0]),
        (Restart(delay=1.0, factor=1.0), [1.0, 1.0, 1.0]),
        (Restart(delay=5.0, max_delay=2.0), [2.0, 2.0]),
        (Restart(delay=0.0), [0.0, 0.0, 0.0]),
        (Restart(delay=1.0, factor=2.0, max_delay=3.0), [1.0, 2.0, 3.0, 3.0]),
    ],
)
def test_delays(restart: Restart, delays: list[float]) -> None:
    assert [restart.delay_of(attempt) for attempt in range(len(delays))] == delays
    assert restart.delay_of(10**9) == delays[-1]


WATCHDOG = Watchdog(10.0, 20.0, 6)


@pytest.mark.parametrize(
    ("settings", "notifies"),
    [
        (Settings(), False),
        (CRITICAL, False),
        (Settings(ready=Ready("notify")), True),
        (Settings(ready=Ready("exit")), False),
        (Settings(ready=Ready("started")), False),
        (Settings(watchdog=WATCHDOG), True),
        (Settings(fdstore=1), True),
        (Settings(health=Health(("/c",))), False),
    ],
)
def test_who_gets_a_socket(settings: Settings, notifies: bool) -> None:
    assert settings.notifies is notifies


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (DEFAULTS, False),
        (CRITICAL, False),
        (Settings(), True),
        (Settings(fdstore=1), True),
        (Settings(restart=Restart("always")), True),
        (Settings(critical=True), True),
        (CRITICAL._replace(boot="optional"), True),
    ],
)
def test_who_asks_for_anything(settings: Settings, asked: bool) -> None:
    """Also who asks for what everybody has."""
    assert settings.asked is asked


def test_what_everybody_has() -> None:
    """Nothing happens by itself: docs/supervision.md."""
    assert tuple(Restart()) == ("never", 0.5, 2.0, 30.0, 5, 300.0, 60.0, "quarantine", (), ())
    assert tuple(Ready()) == ("started", None, 300.0, "all")
    assert tuple(Health(("/c",))) == (("/c",), 30.0, 3.0, 3, 0.0, "restart")
    assert tuple(Stop()) == (15, 10.0, 300.0)
    nothing = (Restart(), Ready(), None, None, Stop(), {}, (), None)
    assert tuple(DEFAULTS) == (*nothing, "optional", 0, False)
    assert tuple(CRITICAL) == (*nothing, "required", 0, True)


def test_what_nobody_has_told() -> None:
    state = s.IDLE_STATE
    assert (state.phase, state.generation, state.attempt, state.restarts, state.failed_checks) == (
        *("idle", 0, 0, 0, 0),
    )
    assert (state.limit, state.ready_since, state.interval) == (0.0, 0.0, 0.0)
    assert not any(
        [
            *(state.asked, state.wanted, state.killed, state.hopeless, state.was_ready, state.healthy),
            *(state.reloading, state.failure, state.held, state.text, state.history),
        ]
    )
    assert all(
        time is None
        for time in (
            *(state.deadline, state.next_start, state.watchdog, state.check, state.error, state.last),
        )
    )
    assert (s.StartFailed("").spread, s.Exited(s.Status()).spread, s.Start().asked) == (0.0, 0.0, True)
    assert (tuple(s.Status()), tuple(s.Stop()), s.Hold("").timeout) == ((None, None), (None, None), None)
