# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom: the conditions of `after`, cycles among them, and the order of a shutdown.

A graph maps the name of a container to the names that it waits for. Names that are not in it are allowed:
such a container may be installed later.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from northstar.supervision.state import State

    Graph = Mapping[str, Collection[str]]

_HELD_NOW = {"started": s.RUNNING, "ready": (s.READY,)}


class Cycle(NamedTuple):
    """Containers that wait for each other, each for the next one and the last for the first."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return " waits for ".join((*self.names, self.names[0]))


def holds(condition: str, states: Iterable[State]) -> bool:
    """Whether a condition about a name is true, given the states of its versions.

    `started` and `ready` are true while they are; the others speak of the last run that has ended.
    """
    if condition in _HELD_NOW:
        return any(state.phase in _HELD_NOW[condition] for state in states)
    ended = [state.last for state in states if state.last is not None]
    if condition == "exited":
        return bool(ended)
    return any(last.failed == (condition == "failed") for last in ended)


def missing(after: Mapping[str, str], states: Callable[[str], Iterable[State]]) -> dict[str, str]:
    """The conditions that are not true. `states` gives those of the versions of a name."""
    return {name: condition for name, condition in after.items() if not holds(condition, states(name))}


def described(conditions: Mapping[str, str]) -> str:
    """Conditions in words: `database ready, network started`."""
    return ", ".join(f"{name} {condition}" for name, condition in conditions.items())


def cycles(graph: Graph) -> list[Cycle]:
    """Groups of containers that wait for each other: one cycle of each, the shortest from its first name."""
    found: list[Cycle] = []
    covered: set[str] = set()
    for name in sorted(_knotted(graph)):
        if name not in covered and (cycle := _way_back(graph, name)):
            found.append(Cycle(cycle))
            covered.update(_members(graph, name))
    return found


def in_cycles(graph: Graph) -> set[str]:
    """Every container that waits for itself in the end."""
    return {name for name in _knotted(graph) if _way_back(graph, name)}


def free(graph: Graph, running: Collection[str]) -> list[str]:
    """Who of those that run can be stopped now, as nobody else that runs needs it.

    If there is none because of a cycle, all of them: a shutdown must not wait for ever.
    """
    needed = {other for name in running for other in graph.get(name, ()) if other != name}
    return [name for name in running if name not in needed] or list(running)


def longest(graph: Graph, times: Mapping[str, float]) -> float:
    """The longest time that a shutdown in order takes, given that of each container."""
    total: dict[str, float] = {}
    left = dict(times)
    passed = 0.0
    while left:
        stopped = free(graph, left)
        for name in stopped:
            users = [total[other] for other in total if name in graph.get(other, ())]
            total[name] = left[name] + max(users, default=0.0)
            passed = max(passed, total[name])
        for name in stopped:
            del left[name]
    return passed


def _knotted(graph: Graph) -> set[str]:
    """What is left when all without a predecessor or a successor are taken away, again and again."""
    left = {name: {other for other in others if other in graph} for name, others in graph.items()}
    while True:
        needed = set().union(*left.values()) if left else set()
        going = [name for name, others in left.items() if not others or name not in needed]
        if not going:
            return set(left)
        for name in going:
            del left[name]
        for others in left.values():
            others.difference_update(going)


def _way_back(graph: Graph, name: str) -> tuple[str, ...]:
    """The shortest way from a container along those it waits for back to itself; empty if there is none."""
    came_from: dict[str, str] = {}
    edge = [name]
    while edge:
        following = []
        for here in edge:
            for other in sorted(graph.get(here, ())):
                if other == name:
                    way = [here]
                    while way[-1] != name:
                        way.append(came_from[way[-1]])
                    return tuple(reversed(way))
                if other not in came_from:
                    came_from[other] = here
                    following.append(other)
        edge = following
    return ()


def _members(graph: Graph, name: str) -> set[str]:
    """All that reach `name` and are reached by it."""
    users: dict[str, set[str]] = {}
    for here, others in graph.items():
        for other in others:
            users.setdefault(other, set()).add(here)
    return _reached(graph, name) & _reached(users, name)


def _reached(graph: Graph, name: str) -> set[str]:
    found: set[str] = set()
    edge = [name]
    while edge:
        for other in graph.get(edge.pop(), ()):
            if other not in found:
                found.add(other)
                edge.append(other)
    return found
