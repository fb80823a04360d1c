# SPDX-License-Identifier: Apache-2.0
"""What must be there after a fault: everything that was acknowledged before it, and nothing else.

An operation under way may have been done or not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_AFTER = {"install": True, "uninstall": False, "wipe": False}


class Event(NamedTuple):
    """A line of the workload: an operation begins, or has been acknowledged."""

    stage: str
    kind: str
    name: str


class Expected(NamedTuple):
    """Which packages and which persistent data must and may be there."""

    must: set[str]
    may: set[str]
    data_must_not: set[str]
    """Names of containers whose data was wiped and not written since."""


def parse(lines: list[str]) -> list[Event]:
    """Complete lines only."""
    words = (line.split() for line in lines)
    return [Event(*parts) for parts in words if len(parts) == 3 and parts[0] in ("begin", "done")]


def expected(installed: set[str], before: list[Event], later: list[Event] = ()) -> Expected:  # type: ignore[assignment]
    """`installed` at first; `before` the fault, and `later`, which may have been done as well."""
    states = {name: {True} for name in installed}
    wiped: set[str] = set()
    for certain, event in [*((True, event) for event in before), *((False, event) for event in later)]:
        state = states.setdefault(event.name, {False})
        name = event.name.partition(":")[0]
        if event.kind == "run":
            wiped.discard(name)
        elif certain and event.stage == "done":
            states[event.name] = {_AFTER[event.kind]}
            if event.kind == "wipe":
                wiped.add(name)
        else:
            state.add(_AFTER[event.kind])
    return Expected(
        {name for name, state in states.items() if state == {True}},
        {name for name, state in states.items() if True in state},
        wiped,
    )


def complaint(wanted: Expected, found: dict[str, Any], besides: frozenset[str] = frozenset()) -> str | None:
    """What is wrong with what is there (`workload.found`), where packages `besides` these do not matter."""
    installed = set(found["installed"])
    missing, extra = wanted.must - installed, installed - wanted.may - besides
    wrong = {
        "missing": missing,
        "not expected": extra,
        "data came back": wanted.data_must_not & set(found["data"]),
        **{key: found[key] for key in ("rubbish", "failed", "problems")},
    }
    return "; ".join(f"{what}: {value}" for what, value in wrong.items() if value) or None
