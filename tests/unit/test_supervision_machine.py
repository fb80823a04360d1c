# SPDX-License-Identifier: Apache-2.0
"""The life of one container: examples, and random sequences of events with what must hold after each."""

from __future__ import annotations

import signal

import pytest
from supervisedlife import Life

from northstar.supervision import machine, model
from northstar.supervision import state as s
from northstar.supervision.model import Health, Ready, Restart, Settings, Stop, Watchdog

RESTARTING = Settings(restart=Restart("on-failure"))
NOTIFYING = Settings(ready=Ready("notify", 30.0), restart=Restart("on-failure"))
WATCHED = Settings(watchdog=Watchdog(10.0, 20.0, signal.SIGABRT), restart=Restart("on-failure"))
CHECKED = Settings(health=Health(("/c",), threshold=2), restart=Restart("on-failure"))


def test_a_container_that_asks_for_nothing() -> None:
    life = Life(model.DEFAULTS)
    assert life(s.Start()) == []
    assert (life.state.phase, life.state.generation) == (s.STARTING, 1)
    assert life(s.Executing()) == [s.Announce("ready", {})]
    assert life.state.phase == s.READY
    assert machine.due(life.state) is None
    assert life.end(code=3) == []
    assert life.state.phase == s.IDLE
    assert life.state.last == s.Last(s.Status(code=3), True, "exit code 3")


def test_restarts_with_growing_delays_and_quarantine() -> None:
    life = Life(RESTARTING).run()
    for delay in (0.5, 1.0, 2.0, 4.0, 8.0):
        assert life.end(code=1) == [s.Announce("restarting", {"reason": "exit code 1", "delay": delay})]
        assert life.state.phase == s.WAITING
        assert life.state.next_start == life.now + delay
        assert life(s.Tick(), delay / 2) == []
        assert life.wait() == [s.Begin()]
        life(s.Executing())
    assert life.end(number=9) == [s.Announce("quarantined", {"reason": "killed by signal 9"})]
    assert life.state.phase == s.QUARANTINED
    assert (life.state.restarts, machine.due(life.state)) == (5, None)
    assert life(s.Stop()) == []
    assert life.state.phase == s.QUARANTINED
    life(s.Start())
    assert (life.state.phase, life.state.restarts, life.state.history) == (s.STARTING, 0, ())


def test_reset_lifts_the_quarantine() -> None:
    life = Life(Settings(restart=Restart("always", burst=1))).run()
    life.end(code=0)
    life.wait()
    life(s.Executing())
    life.end(code=0)
    assert life.state.phase == s.QUARANTINED
    life(s.Reset())
    assert (life.state.phase, life.state.restarts) == (s.IDLE, 0)


def test_restarts_outside_of_the_window_do_not_count() -> None:
    life = Life(Settings(restart=Restart("always", burst=2, window=10.0, reset_after=1e9))).run()
    for _ in range(20):
        life.now += 6
        life.end(code=0)
        assert life.state.phase == s.WAITING
        life.wait()
        life(s.Executing())


def test_who_is_ready_for_long_starts_with_the_first_delay_again() -> None:
    life = Life(RESTARTING).run()
    life.end(code=1)
    life.wait()
    life(s.Executing())
    life.now += 60
    life.end(code=1)
    assert life.state.next_start == life.now + 0.5
    assert life.state.restarts == 2


def test_delays_are_spread() -> None:
    for spread, delay in ((-1.0, 0.45), (1.0, 0.55)):
        life = Life(RESTARTING).run()
        life(s.Exited(s.Status(code=1), spread))
        assert life.state.next_start == pytest.approx(life.now + delay)


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("never", 1, s.IDLE),
        ("on-failure", 0, s.IDLE),
        ("on-failure", 143, s.IDLE),
        ("on-failure", 78, s.IDLE),
        ("on-failure", 1, s.WAITING),
        ("always", 0, s.WAITING),
        ("always", 78, s.IDLE),
    ],
)
def test_policies(policy: str, code: int, phase: str) -> None:
    life = Life(Settings(restart=Restart(policy, success_exit=(143,), never_exit=(78,)))).run()
    life.end(code=code)
    assert life.state.phase == phase


def test_a_stop_is_no_failure_and_cancels_a_restart() -> None:
    life = Life(RESTARTING).run()
    assert life(s.Stop()) == [s.Signal(signal.SIGTERM)]
    assert (life.state.phase, machine.due(life.state)) == (s.STOPPING, life.now + 10)
    assert life.end(number=15) == []
    assert (life.state.phase, life.state.last) == (s.IDLE, s.Last(s.Status(signal=15), False, ""))
    life.run()
    life.end(code=1)
    generation = life.state.generation
    assert life(s.Stop()) == []
    assert (life.state.phase, machine.due(life.state), life.state.generation) == (s.IDLE, None, generation)
    assert life(s.Tick(), 100) == []


def test_who_does_not_stop_is_killed() -> None:
    life = Life(Settings(stop=Stop(signal.SIGINT, 5.0, 8.0))).run()
    assert life(s.Stop()) == [s.Signal(signal.SIGINT)]
    life.tell(extend=100.0)
    assert machine.due(life.state) == life.now + 8
    assert life.wait() == [s.Kill()]
    assert machine.due(life.state) is None
    life.end(number=9)
    assert life.state.last == s.Last(s.Status(signal=9), False, "")


def test_a_client_sets_the_time_of_a_stop() -> None:
    life = Life(model.DEFAULTS).run()
    assert life(s.Stop(signal.SIGUSR1, 1.0)) == [s.Signal(signal.SIGUSR1)]
    life.tell(extend=100.0)
    assert machine.due(life.state) == life.now + 1
    life(s.Stop(None, 7.0))
    assert machine.due(life.state) == life.now + 1


def test_a_stop_while_it_starts() -> None:
    life = Life(RESTARTING)
    life(s.Start())
    assert life(s.Stop()) == [s.Kill()]
    assert life(s.StartFailed("killed")) == []
    assert life.state.phase == s.IDLE


def test_a_signal_that_a_client_has_sent_is_no_failure() -> None:
    life = Life(RESTARTING).run()
    assert life(s.Killed()) == []
    assert (life.state.phase, machine.due(life.state)) == (s.STOPPING, None)
    life.end(number=15)
    assert life.state.phase == s.IDLE


def test_a_start_that_fails() -> None:
    """Whoever has asked for it is told. Nobody is told about an autostart or a restart."""
    life = Life(RESTARTING)
    life(s.Start())
    life(s.StartFailed("no such file"))
    assert (life.state.phase, life.state.last) == (s.IDLE, s.Last(s.Status(), True, "no such file"))
    life(s.Start(asked=False))
    life(s.StartFailed("no such file"))
    assert life.state.phase == s.WAITING
    assert life.wait() == [s.Begin()]
    life(s.StartFailed("no such file"))
    assert life.state.phase == s.WAITING


# --- readiness


def test_ready_when_it_says_so() -> None:
    life = Life(NOTIFYING).run()
    assert (life.state.phase, machine.due(life.state)) == (s.STARTED, life.now + 30)
    assert life.tell(text="loading") == [s.Announce("status", {"status": "loading"})]
    assert life.tell(text="loading") == []
    assert life.tell(ready=True) == [s.Announce("ready", {})]
    assert (life.state.phase, life.state.text, machine.due(life.state)) == (s.READY, "loading", None)
    assert life.tell(ready=True) == []
    life.tell(reloading=True)
    assert life.state.reloading
    life.tell(ready=True)
    assert not life.state.reloading


def test_ready_without_having_been_asked() -> None:
    life = Life(Settings(ready=Ready("exit"))).run()
    assert life.tell(ready=True) == []
    assert life.state.phase == s.STARTED
    life.end(code=0)
    assert life.state.last == s.Last(s.Status(code=0), False, "")


def test_not_ready_in_time() -> None:
    life = Life(NOTIFYING).run()
    reason = "it was not ready in time"
    assert life.wait() == [s.Announce("unhealthy", {"reason": reason}), s.Signal(signal.SIGTERM)]
    assert life.wait() == [s.Kill()]
    assert life.end(number=9) == [s.Announce("restarting", {"reason": reason, "delay": 0.5})]


def test_an_end_before_ready_is_a_failure() -> None:
    life = Life(NOTIFYING).run()
    life.end(code=0)
    assert life.state.last == s.Last(s.Status(code=0), True, "exit code 0 before it was ready")
    assert life.state.phase == s.WAITING


def test_timeouts_cannot_be_extended_for_ever() -> None:
    life = Life(NOTIFYING).run()
    began = life.now
    for _ in range(100):
        life.tell(after=5, extend=10.0)
        if life.now >= began + 300:
            break
    assert machine.due(life.state) == began + 300
    life(s.Tick())
    assert life.state.phase == s.STOPPING


def test_an_extension_never_shortens() -> None:
    life = Life(NOTIFYING).run()
    life.tell(extend=1.0)
    assert machine.due(life.state) == life.now + 30


def test_stopping_by_itself() -> None:
    life = Life(WATCHED).run()
    life.tell(stopping=True)
    assert (life.state.phase, machine.due(life.state)) == (s.STOPPING, life.now + 10)
    life.end(code=0)
    assert life.state.phase == s.IDLE
    life.run()
    life.tell(stopping=True)
    assert life.wait() == [s.Kill()]
    life.end(number=9)
    assert life.state.last is not None
    assert life.state.last.reason == "it did not stop in time"


def test_errno_is_part_of_the_reason() -> None:
    life = Life(RESTARTING).run()
    life.tell(error=28)
    life.end(code=1)
    assert life.state.last is not None
    assert life.state.last.reason == "exit code 1, errno 28"


def test_a_program_can_reset_its_delay() -> None:
    life = Life(RESTARTING).run()
    life.end(code=1)
    life.wait()
    life(s.Executing())
    life.tell(restart_reset=True)
    life.end(code=1)
    assert life.state.next_start == life.now + 0.5


# --- watchdog and health


def test_watchdog() -> None:
    life = Life(WATCHED).run()
    assert machine.due(life.state) == life.now + 10
    life.tell(after=9, watchdog="1")
    assert machine.due(life.state) == life.now + 10
    reason = "no sign of life for 10s"
    assert life.wait() == [s.Announce("unhealthy", {"reason": reason}), s.Signal(signal.SIGABRT)]
    assert life.wait() == [s.Kill()]
    life.end(number=6)
    assert life.state.last == s.Last(s.Status(signal=6), True, reason)
    assert life.state.phase == s.WAITING


def test_watchdog_is_lenient_when_nobody_had_time() -> None:
    """The loop was late, or the clock jumped in a suspend: the program could not have done better."""
    life = Life(WATCHED).run()
    assert life(s.Tick(), 3600) == []
    assert (life.state.phase, machine.due(life.state)) == (s.READY, life.now + 10)
    life(s.Tick(), 10.1)
    assert life.state.phase == s.STOPPING


def test_start_timeout_is_lenient_too() -> None:
    life = Life(NOTIFYING).run()
    assert life(s.Tick(), 3600) == []
    assert machine.due(life.state) == life.now + 30


def test_a_program_chooses_the_interval_within_limits() -> None:
    life = Life(WATCHED).run()
    for wanted, given_ in ((0.0, 0.1), (5.0, 5.0), (3600.0, 20.0)):
        life.tell(interval=wanted)
        assert machine.due(life.state) == life.now + given_
    unwatched = Life(model.DEFAULTS).run()
    unwatched.tell(interval=1.0, watchdog="1")
    assert machine.due(unwatched.state) is None


def test_a_program_triggers_the_watchdog() -> None:
    life = Life(RESTARTING).run()
    assert s.Signal(signal.SIGTERM) in life.tell(watchdog="trigger")
    life.end(number=15)
    assert life.state.phase == s.WAITING


def test_health() -> None:
    life = Life(CHECKED).run()
    assert machine.due(life.state) == life.now + 30
    assert life.wait() == [s.Check()]
    assert machine.due(life.state) is None
    assert life(s.Checked(False, "exit code 1")) == []
    life.wait()
    life(s.Checked(True))
    life.wait()
    life(s.Checked(False))
    life.wait()
    reason = "2 checks of its health have failed: timeout"
    assert life(s.Checked(False, "timeout")) == [
        s.Announce("unhealthy", {"reason": reason}),
        s.Signal(signal.SIGTERM),
    ]
    life.end(code=0)
    assert life.state.last == s.Last(s.Status(code=0), True, reason)


def test_failed_checks_in_the_start_period_do_not_count() -> None:
    life = Life(Settings(health=Health(("/c",), period=5.0, threshold=1, start_period=12.0))).run()
    for _ in range(2):
        life.wait()
        assert life(s.Checked(False)) == []
    life.wait()
    life(s.Checked(False))
    assert life.state.phase == s.STOPPING
    life = Life(Settings(health=Health(("/c",), period=5.0, threshold=1, start_period=100.0))).run()
    life.wait()
    life(s.Checked(True))
    life.wait()
    life(s.Checked(False))
    assert life.state.phase == s.STOPPING


def test_health_that_is_only_told() -> None:
    life = Life(Settings(health=Health(("/c",), threshold=1, on_failure="none"))).run()
    life.wait()
    assert [type(action) for action in life(s.Checked(False))] == [s.Announce]
    life.wait()
    assert life(s.Checked(False)) == []
    assert life.state.phase == s.READY


def test_a_check_that_comes_too_late() -> None:
    life = Life(CHECKED).run()
    life.wait()
    life(s.Stop())
    assert life(s.Checked(False)) == []
    assert life.state.phase == s.STOPPING


# --- others


def test_waiting_for_others() -> None:
    life = Life(RESTARTING)
    life(s.Hold("database ready"))
    assert (life.state.phase, life.state.held, machine.due(life.state)) == (s.WAITING, "database ready", None)
    assert life(s.Release()) == [s.Begin()]
    assert (life.state.phase, life.state.held) == (s.STARTING, "")
    assert life(s.Release()) == []


def test_waiting_in_vain() -> None:
    life = Life(Settings(restart=Restart("on-failure", burst=2), after_timeout=60.0))
    life(s.Hold("database ready", 60.0))
    for _ in range(2):
        actions = life.wait()
        assert [type(action) for action in actions] == [s.Announce]
        assert (life.state.phase, life.state.held) == (s.WAITING, "database ready")
    life.wait()
    assert life.state.phase == s.QUARANTINED
    assert life.state.last is not None
    assert life.state.last.reason == "it has waited for database ready in vain"


def test_bound_to_another_one() -> None:
    life = Life(RESTARTING).run()
    assert life(s.Unbound("database", again=True)) == [s.Signal(signal.SIGTERM)]
    assert life.end(number=15) == []
    assert (life.state.phase, life.state.held, life.state.history) == (s.WAITING, "database", ())
    assert life(s.Release()) == [s.Begin()]
    life(s.Executing())
    life(s.Unbound("database", again=False))
    life.end(number=15)
    assert life.state.phase == s.IDLE


def test_critical() -> None:
    life = Life(model.CRITICAL).run()
    assert life.end(code=1) == [s.Shutdown("exit code 1")]
    critical = Settings(restart=Restart("on-failure", burst=1, on_burst="shutdown"), critical=True)
    life = Life(critical).run()
    assert [type(action) for action in life.end(code=1)] == [s.Announce]
    life.wait()
    life(s.Executing())
    assert [type(action) for action in life.end(code=1)] == [s.Announce, s.Shutdown]


def test_who_kills_a_critical_container_ends_the_daemon() -> None:
    """As upstream has it. Who stops it wants it down."""
    life = Life(model.CRITICAL).run()
    life(s.Killed())
    assert life.end(number=15) == [s.Shutdown("killed by signal 15")]
    life = Life(model.CRITICAL).run()
    life(s.Killed())
    assert life.end(code=0) == []
    life = Life(model.CRITICAL).run()
    life(s.Stop())
    assert life.end(number=15) == []


def test_a_container_that_is_refused() -> None:
    life = Life(RESTARTING)
    assert life(s.Refused("a circle")) == []
    assert (life.state.phase, life.state.last) == (s.IDLE, s.Last(s.Status(), True, "a circle"))


def test_ruined_while_it_runs() -> None:
    """Killed at once, and no restart is even announced."""
    life = Life(RESTARTING).run()
    assert life(s.Ruined("it is damaged")) == [s.Kill()]
    assert (life.state.phase, machine.due(life.state)) == (s.STOPPING, None)
    assert life.end(number=9) == [s.Announce("quarantined", {"reason": "it is damaged"})]
    assert life.state.phase == s.QUARANTINED
    assert life.state.last == s.Last(s.Status(signal=9), True, "it is damaged")
    life(s.Start())
    life(s.Executing())
    assert [type(action) for action in life.end(code=1)] == [s.Announce]
    assert life.state.phase == s.WAITING


def test_ruined_while_another_is_waited_for() -> None:
    life = Life(RESTARTING).run()
    life(s.Unbound("database", again=True))
    life(s.Ruined("it is damaged"))
    life.end(number=9)
    assert life.state.phase == s.QUARANTINED


def test_ruined_before_its_next_start() -> None:
    life = Life(RESTARTING).run()
    life.end(code=1)
    assert life(s.Ruined("it is damaged")) == [s.Announce("quarantined", {"reason": "it is damaged"})]
    assert life.state.last == s.Last(s.Status(), True, "it is damaged")


def test_ruined_when_it_was_to_end() -> None:
    life = Life(RESTARTING).run()
    life(s.Stop())
    life(s.Ruined("it is damaged"))
    assert life.end(number=9) == []
    assert life.state.phase == s.IDLE
    assert life(s.Ruined("it is damaged")) == []


def test_ruined_while_it_starts() -> None:
    life = Life(RESTARTING).run()
    life.end(code=1)
    life.wait()
    assert life(s.Ruined("it is damaged")) == [s.Kill()]
    assert life(s.Executing()) == []
    life(s.StartFailed("killed"))
    assert life.state.phase == s.QUARANTINED


def test_rollback() -> None:
    life = Life(Settings(restart=Restart("on-failure", burst=1, on_burst="rollback"))).run()
    life.end(code=1)
    life.wait()
    life(s.Executing())
    assert life.end(code=1)[1:] == [s.RollBack("exit code 1")]
