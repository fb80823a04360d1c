# SPDX-License-Identifier: Apache-2.0
"""What an update asks for, action by action: docs/updates.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from northstar.names import Version
from northstar.updates import machine
from northstar.updates.journal import GOOD, ROLLING_BACK, STAGED, TRYING, Change, Update
from northstar.updates.machine import Cancel, Done, Event, Failed

V1, V2 = Version(1, 0, 0), Version(2, 0, 0)
SINGLE = Update("u", (Change("a", V1, V2),), settle=7.0)
GROUP = Update("u", (Change("b", V1, V2), Change("a", V1, V2), Change("n", None, V2)))
COPYING = Update("u", (Change("a", V1, V2), Change("n", None, V2)), data="copy")


def text(action: machine.Action) -> str:
    """Short, without what is the same all the time."""
    words = [type(action).__name__]
    if isinstance(action, machine.Record):
        words += [action.update.phase, *([f"boots {action.update.boots}"] if action.update.boots else [])]
        words += [f"({action.update.reason})"] if action.update.reason else []
    elif isinstance(action, machine.Close):
        words += [action.result, f"({action.reason})"]
    elif isinstance(action, machine.Report):
        words += [action.phase, f"({action.reason})"]
    elif isinstance(action, machine.Settle):
        words += [*(str(container) for container in action.containers), f"{action.seconds:g}s"]
    elif isinstance(action, machine.Prepare):
        words += [str(container) for container in action.containers]
    elif not isinstance(action, machine.CleanUp):
        words.append(str(action.container))
    if isinstance(action, machine.Start) and action.trial:
        words.append("on trial")
    return " ".join(words)


def asked(step: machine.Step, failing: Callable[[str, int], Event | None] | None = None) -> list[str]:
    """All actions up to the end; `failing` says of each, and its number, what is wrong with it."""
    state, action = step
    found: list[str] = []
    while action is not None:
        found.append(text(action))
        event = failing(found[-1], len(found)) if failing is not None else None
        state, action = machine.react(state, event or Done())
    assert state.stage == machine.OVER
    return found


def at(*wanted: str, culprit: str = "") -> Callable[[str, int], Event | None]:
    """These actions fail, each once."""
    left = list(wanted)

    def failing(action: str, _: int) -> Event | None:
        if left and action == left[0]:
            left.pop(0)
            return Failed("broken", culprit)
        return None

    return failing


BEGIN = ["Record staged", "Report staged ()", "Record trying", "Report trying ()"]
TRIAL = ["Start a:2.0.0 on trial", "AwaitReady a:2.0.0", "Settle a:2.0.0 7s"]
BACK = ["Stop a:2.0.0", "Start a:1.0.0", "AwaitReady a:1.0.0"]


def test_a_good_update() -> None:
    assert asked(machine.begin(SINGLE)) == [
        *BEGIN,
        "Prepare a:2.0.0",
        "Stop a:1.0.0",
        *TRIAL,
        "Close good ()",
        "CleanUp",
        "Report good ()",
    ]


def test_a_good_group() -> None:
    """Stopped in reverse, started in order; the leader's record comes before the others are closed."""
    assert asked(machine.begin(GROUP)) == [
        *BEGIN,
        "Prepare b:2.0.0 a:2.0.0 n:2.0.0",
        *("Stop a:1.0.0", "Stop b:1.0.0"),
        *("Start b:2.0.0 on trial", "AwaitReady b:2.0.0"),
        *("Start a:2.0.0 on trial", "AwaitReady a:2.0.0"),
        *("Start n:2.0.0 on trial", "AwaitReady n:2.0.0"),
        "Settle b:2.0.0 a:2.0.0 n:2.0.0 10s",
        *("Record good", "Close good ()", "CleanUp", "Report good ()"),
    ]


def test_data_is_put_aside() -> None:
    """Of versions that there were."""
    assert asked(machine.begin(COPYING))[5:] == [
        *("Stop a:1.0.0", "CopyData a:1.0.0"),
        *("Start a:2.0.0 on trial", "AwaitReady a:2.0.0"),
        *("Start n:2.0.0 on trial", "AwaitReady n:2.0.0"),
        "Settle a:2.0.0 n:2.0.0 10s",
        *("Record good", "Close good ()", "DropData a:1.0.0", "CleanUp", "Report good ()"),
    ]


def test_data_is_put_back() -> None:
    found = asked(machine.begin(COPYING), at("AwaitReady a:2.0.0"))
    assert found[9:] == [
        *("Record rolling_back (broken)", "Report rolling_back (broken)"),
        *("Stop n:2.0.0", "Stop a:2.0.0", "RestoreData a:1.0.0", "Start a:1.0.0", "AwaitReady a:1.0.0"),
        *("Record rolling_back (broken)", "Close rolled_back (broken)"),
        *("DropData a:1.0.0", "CleanUp", "Report rolled_back (broken)"),
    ]


ROLLED_BACK = [
    "Record rolling_back (broken)",
    "Report rolling_back (broken)",
    *BACK,
    "Close rolled_back (broken)",
    "CleanUp",
    "Report rolled_back (broken)",
]


@pytest.mark.parametrize("action", ["Prepare a:2.0.0", "Stop a:1.0.0", *TRIAL])
def test_a_trial_that_fails(action: str) -> None:
    found = asked(machine.begin(SINGLE), at(action))
    number = found.index(action) + 1
    assert found[number:] == ROLLED_BACK


@pytest.mark.parametrize(
    ("attempts", "failures", "good"), [(1, 1, False), (2, 1, True), (2, 2, False), (3, 2, True)]
)
def test_attempts(attempts: int, failures: int, good: bool) -> None:
    """Each begins with nothing running."""
    settle = TRIAL[-1]
    found = asked(machine.begin(SINGLE._replace(attempts=attempts)), at(*[settle] * failures))
    tries = failures + good
    again = ["Stop a:2.0.0", "Stop a:1.0.0", *TRIAL]
    assert found[4 : 9 + 5 * (tries - 1)] == ["Prepare a:2.0.0", "Stop a:1.0.0", *TRIAL, *again * (tries - 1)]
    assert found[-1] == ("Report good ()" if good else "Report rolled_back (broken)")


@pytest.mark.parametrize("action", ["Record staged", "Report staged ()", "Record trying"])
def test_nothing_was_touched_yet(action: str) -> None:
    found = asked(machine.begin(SINGLE), at(action))
    assert found[found.index(action) + 1 :] == [
        "Close aborted (broken)",
        "CleanUp",
        "Report aborted (broken)",
    ]


def test_the_result_cannot_be_written() -> None:
    """Of a single one: it goes back. Of a group: before its leader's record only."""
    assert asked(machine.begin(SINGLE), at("Close good ()"))[10:] == ROLLED_BACK
    assert "Report rolled_back (broken)" in asked(machine.begin(GROUP), at("Record good"))
    assert asked(machine.begin(GROUP), at("Close good ()"))[-2:] == ["CleanUp", "Report good (broken)"]


def test_what_goes_wrong_on_the_way_back() -> None:
    """All else is done nevertheless, and everything is told."""
    failures = at(TRIAL[0], "Record rolling_back (broken)", "Start a:1.0.0", "AwaitReady a:1.0.0")
    assert asked(machine.begin(SINGLE), failures)[7:] == [
        "Record rolling_back (broken)",
        "Report rolling_back (broken)",
        *BACK,
        "Close rollback_failed (broken; broken; broken)",
        "CleanUp",
        "Report rollback_failed (broken; broken; broken)",
    ]


def test_a_copy_is_kept_if_the_way_back_has_failed() -> None:
    found = asked(machine.begin(COPYING), at("Settle a:2.0.0 n:2.0.0 10s", "RestoreData a:1.0.0"))
    assert found[-2:] == ["CleanUp", "Report rollback_failed (broken; broken)"]
    assert "DropData a:1.0.0" not in found


def test_a_group_goes_back() -> None:
    """The leader's record says it first, also if that was not possible before."""
    found = asked(machine.begin(GROUP), at("AwaitReady a:2.0.0", "Record rolling_back (broken)", culprit="a"))
    assert found[11:] == [
        "Record rolling_back (broken)",
        "Report rolling_back (broken)",
        *("Stop n:2.0.0", "Stop a:2.0.0", "Stop b:2.0.0"),
        *("Start b:1.0.0", "AwaitReady b:1.0.0", "Start a:1.0.0", "AwaitReady a:1.0.0"),
        *("Record rolling_back (broken)", "Close rolled_back (broken)"),
        *("CleanUp", "Report rolled_back (broken)"),
    ]


def test_a_record_that_still_says_trying_is_not_closed() -> None:
    failures = at("AwaitReady a:2.0.0", *["Record rolling_back (broken)"] * 2)
    assert asked(machine.begin(GROUP), failures)[-3:] == [
        "Record rolling_back (broken)",
        "CleanUp",
        "Report rolled_back (broken)",
    ]


def test_who_is_to_blame() -> None:
    state, action = machine.begin(SINGLE)
    while action is not None and not isinstance(action, machine.Settle):
        state, action = machine.react(state, Done())
    state, action = machine.react(state, Failed("w", "a"))
    assert isinstance(action, machine.Record)
    assert (action.update.phase, action.update.reason, action.update.culprit) == (ROLLING_BACK, "w", "a")


# --- after a restart of the runtime


@pytest.mark.parametrize(
    ("phase", "boots", "expected"),
    [
        (STAGED, 0, ["Record trying", "Report trying ()"]),
        (TRYING, 0, ["Record trying boots 1", "Report trying ()"]),
        (TRYING, 1, ["Record trying boots 2", "Report trying ()"]),
        (TRYING, 2, ["Record rolling_back boots 2"]),
        (TRYING, 3, ["Record rolling_back boots 3"]),
        (ROLLING_BACK, 1, ["Report rolling_back ()", "Stop a:2.0.0"]),
        (GOOD, 9, ["Close good ()", "CleanUp"]),
    ],
)
def test_where_it_goes_on(phase: str, boots: int, expected: list[str]) -> None:
    found = asked(machine.resume(SINGLE._replace(phase=phase, boots=boots), max_boots=2))
    reason = f" (not good after {boots} restarts of the runtime)"
    if expected[0].startswith("Record rolling_back"):
        assert found[:2] == [expected[0] + reason, "Report rolling_back" + reason]
    else:
        assert found[:2] == expected


def test_staged_is_given_up_if_that_is_wanted() -> None:
    reason = "(the runtime was restarted before the trial began)"
    assert asked(machine.resume(SINGLE._replace(phase=STAGED), max_boots=2, abort=True)) == [
        *(f"Close aborted {reason}", "CleanUp", f"Report aborted {reason}")
    ]
    on_trial = machine.resume(SINGLE._replace(phase=TRYING), max_boots=2, abort=True)
    assert asked(on_trial)[-1] == "Report good ()"


@pytest.mark.parametrize("boots", [0, 1])
def test_old_versions_run_again_if_a_trial_cannot_be_resumed(boots: int) -> None:
    record = f"Record trying boots {boots + 1}"
    update = GROUP._replace(phase=TRYING, boots=boots)
    assert asked(machine.resume(update, max_boots=2), at(record)) == [
        *(record, "Close aborted (broken)", "Start b:1.0.0", "Start a:1.0.0"),
        *("CleanUp", "Report aborted (broken)"),
    ]
    assert asked(machine.resume(update, max_boots=2), at(record, "Close aborted (broken)")) == [
        *(record, "Close aborted (broken)", "Start b:1.0.0", "Start a:1.0.0"),
        *("CleanUp", "Report aborted (broken)"),
    ]


def test_back_long_after_it_was_good() -> None:
    found = asked(machine.revert(SINGLE._replace(phase=GOOD, attempts=3), "broken", "a"))
    assert found == ROLLED_BACK


# --- cancelled


@pytest.mark.parametrize("done", range(13))
def test_cancelled(done: int) -> None:
    """Until the trial becomes durable; after that it goes on."""
    state, action = machine.begin(SINGLE)
    for _ in range(done):
        if action is not None:
            state, action = machine.react(state, Done())
    assert machine.may_cancel(state) == (done < 2)
    after, following = machine.react(state, Cancel())
    if done >= 2:
        assert (after, following) == (state, None)
        return
    assert following is not None
    assert asked((after, following)) == [
        "Close cancelled (a client has cancelled it)",
        "CleanUp",
        "Report cancelled (a client has cancelled it)",
    ]
