# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom, and what a good boot is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.supervision import boot, order
from northstar.supervision.state import (
    IDLE,
    QUARANTINED,
    READY,
    STARTED,
    STARTING,
    STOPPING,
    WAITING,
    Last,
    State,
    Status,
)

SUCCESS = Last(Status(code=0), False, "")
FAILURE = Last(Status(code=1), True, "exit code 1")

NAMES = st.sampled_from("abcdef")
GRAPHS = st.dictionaries(NAMES, st.frozensets(NAMES, max_size=3), max_size=6)


@pytest.mark.parametrize(
    ("condition", "state", "expected"),
    [
        ("started", State(STARTING), False),
        ("started", State(STARTED), True),
        ("started", State(READY), True),
        ("started", State(STOPPING), False),
        ("ready", State(STARTED), False),
        ("ready", State(READY), True),
        ("ready", State(STOPPING), False),
        ("succeeded", State(IDLE), False),
        ("succeeded", State(IDLE, last=SUCCESS), True),
        ("succeeded", State(IDLE, last=FAILURE), False),
        ("succeeded", State(STARTED, last=SUCCESS), True),
        ("failed", State(QUARANTINED, last=FAILURE), True),
        ("failed", State(IDLE, last=SUCCESS), False),
        ("exited", State(IDLE), False),
        ("exited", State(WAITING, last=FAILURE), True),
    ],
)
def test_conditions(condition: str, state: State, expected: bool) -> None:
    assert order.holds(condition, [state]) is expected
    assert order.holds(condition, []) is False
    assert order.holds(condition, [State(), state]) is expected


def test_what_is_missing() -> None:
    known = {"database": [State(READY)], "bus": [State(STARTED)]}

    def states(name: str) -> Iterable[State]:
        return known.get(name, [])

    after = {"database": "ready", "bus": "ready", "nobody": "exited"}
    assert order.missing(after, states) == {"bus": "ready", "nobody": "exited"}
    assert order.described(order.missing(after, states)) == "bus ready, nobody exited"


def test_cycles_are_named() -> None:
    graph = {"a": ["b"], "b": ["c", "x"], "c": ["a"], "d": ["a"], "x": [], "s": ["s"], "e": ["f"], "f": ["e"]}
    found = order.cycles(graph)
    assert [cycle.names for cycle in found] == [("a", "b", "c"), ("e", "f"), ("s",)]
    assert str(found[0]) == "a waits for b waits for c waits for a"
    assert order.in_cycles(graph) == {"a", "b", "c", "e", "f", "s"}


def test_a_long_chain_has_no_cycle() -> None:
    graph = {str(n): [str(n + 1)] for n in range(300)}
    assert order.cycles(graph) == []


@given(GRAPHS)
def test_cycles_are_cycles_and_nobody_is_forgotten(graph: dict[str, frozenset[str]]) -> None:
    knotted = order.in_cycles(graph)
    for cycle in order.cycles(graph):
        for here, following in zip(cycle.names, (*cycle.names[1:], cycle.names[0]), strict=True):
            assert following in graph[here]
        assert knotted.issuperset(cycle.names)
    assert bool(knotted) == bool(order.cycles(graph))
    # Without them everybody can be started: one after the other has nobody left to wait for.
    left = {name: {other for other in graph[name] if other in graph} - knotted for name in graph}
    left = {name: others for name, others in left.items() if name not in knotted}
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        assert free
        for name in free:
            del left[name]


@given(GRAPHS, st.frozensets(NAMES))
def test_shutdown_ends_and_keeps_the_order(graph: dict[str, frozenset[str]], running: frozenset[str]) -> None:
    left = set(running)
    knotted = order.in_cycles(graph)
    while left:
        stopped = order.free(graph, left)
        assert stopped
        for name in stopped:
            users = {other for other in left if name in graph.get(other, ()) and other != name}
            assert not users or knotted
        left -= set(stopped)


def test_the_longest_shutdown() -> None:
    graph = {"app": ["database", "bus"], "database": ["bus"]}
    times = {"app": 10.0, "database": 5.0, "bus": 1.0, "lonely": 12.0}
    assert order.longest(graph, times) == 16.0
    assert order.longest({}, {}) == 0.0


def decision(*, expired: bool = False, trials: int = 0, **states: State) -> tuple[object, ...]:
    return tuple(boot.decide(states, expired=expired, trials=trials))


def test_boot() -> None:
    ready, done, failed = State(READY), State(IDLE, last=SUCCESS), State(IDLE, last=FAILURE)
    assert decision() == ("good", (), ())
    assert decision(a=ready, b=done) == ("good", (), ())
    assert decision(a=ready, trials=1) == ("pending", (), ())
    assert decision(a=ready, b=State(STARTED)) == ("pending", ("b",), ())
    assert decision(a=State(WAITING, last=FAILURE)) == ("pending", ("a",), ())
    assert decision(a=State(STARTED), expired=True) == ("bad", ("a",), ())
    assert decision(a=ready, expired=True) == ("good", (), ())
    assert decision(a=State(), b=State(QUARANTINED), c=failed) == ("bad", ("a",), ("b", "c"))
