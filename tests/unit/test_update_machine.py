# SPDX-License-Identifier: Apache-2.0
"""Updates as a model: every order of failures and power cuts leaves one good version of each container."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from northstar.names import Container, Version
from northstar.updates import journal, journaltext, machine, records, versions
from northstar.updates.journal import Change, Journal, Update
from northstar.updates.machine import Cancel, Done, Failed

OLD, NEW = Version(1, 0, 0), Version(1, 1, 0)
MAX_BOOTS = 2


def update_of(*names: str, attempts: int = 1, data: str = "keep") -> Update:
    changes = tuple(Change(name, OLD, NEW) for name in names)
    return Update("u-1", changes, attempts=attempts, data=data)


def is_open(known: Journal) -> bool:
    """Whether the name takes part in an update."""
    return known.update is not None or known.pointer is not None


class PowerCut(Exception):
    """Whatever was not durable is gone."""


class World:
    """A device: journals that survive, containers that do not. `broken` versions never become ready."""

    def __init__(self, names: tuple[str, ...], broken: frozenset[str] = frozenset()) -> None:
        self.names = names
        self.journals = {name: Journal(active=OLD) for name in names}
        self.installed = {name: {OLD, NEW} for name in names}
        self.data = dict.fromkeys(names, OLD)
        self.copies: set[str] = set()
        self.running: dict[str, Version] = dict.fromkeys(names, OLD)
        self.broken = broken
        self.cut_after: int | None = None
        self.failures: frozenset[int] = frozenset()
        self.count = 0
        self.reports: list[str] = []

    def tick(self) -> None:
        self.count += 1
        if self.cut_after is not None and self.count > self.cut_after:
            raise PowerCut

    def facts(self) -> records.Facts:
        return records.Facts({name: f"{name} {NEW}" for name in self.names}, {"b": NEW})

    def write(self, writes: records.Writes) -> None:
        for name, changed in writes:
            self.tick()
            # What is written has to fit, and to be read again.
            self.journals[name] = journaltext.decode(name, journaltext.encode(name, changed))[0]
            self.tick()

    def carry_out(self, action: machine.Action) -> machine.Event:
        self.tick()
        if self.count in self.failures and not isinstance(action, machine.Report):
            return Failed("something is wrong")
        if isinstance(action, machine.Record):
            self.write(records.recording(action.update, self.journals, self.facts()))
        elif isinstance(action, machine.Close):
            self.write(records.closing(action, self.journals, self.facts()))
        elif isinstance(action, machine.Stop):
            if self.running.get(action.container.name) == action.container.version:
                del self.running[action.container.name]
        elif isinstance(action, machine.Start):
            return self.start(action)
        elif isinstance(action, machine.AwaitReady):
            return self.ready(action.container)
        elif isinstance(action, machine.Settle):
            for container in action.containers:
                if (event := self.ready(container)) != Done():
                    return event
        elif isinstance(action, machine.CopyData):
            self.copies.add(action.container.name)
        elif isinstance(action, machine.RestoreData):
            if action.container.name in self.copies:
                self.data[action.container.name] = action.container.version
        elif isinstance(action, machine.DropData):
            self.copies.discard(action.container.name)
        elif isinstance(action, machine.CleanUp):
            self.clean_up()
        elif isinstance(action, machine.Report):
            self.reports.append(action.phase)
        return Done()

    def start(self, action: machine.Start) -> machine.Event:
        name, version = action.container
        if self.running.get(name, version) != version:
            return Failed("another version runs", name)
        if self.journals[name].bad_entry(f"{name} {version}") is not None:
            raise AssertionError("a bad version was started")
        self.running[name] = version
        if version == NEW:
            assert action.trial
            self.data[name] = NEW
        return Done()

    def ready(self, container: Container) -> machine.Event:
        if container.version == NEW and container.name in self.broken:
            self.running.pop(container.name, None)
            return Failed("not ready", container.name)
        return Done()

    def clean_up(self) -> None:
        for name in self.names:
            known = self.journals[name]
            for version in known.remove:
                assert not is_open(known)
                self.installed[name].discard(version)
                self.journals[name] = journal.uninstalled(self.journals[name], version, forget=False)

    def drive(self, step: machine.Step) -> machine.State:
        state, action = step
        for _ in range(1000):
            if action is None:
                break
            state, action = machine.react(state, self.carry_out(action))
            self.check()
        assert state.stage == machine.OVER
        return state

    def check(self) -> None:
        for name in self.names:
            if is_open(self.journals[name]):
                assert self.installed[name] == {OLD, NEW}

    def reboot(self) -> None:
        """What the runtime does at its start."""
        self.running.clear()
        updates, writes = records.recover(self.journals)
        self.write(writes)
        for update in updates:
            self.drive(machine.resume(update, max_boots=MAX_BOOTS))
        self.clean_up()
        for name in self.names:
            chosen = versions.current(
                [versions.Installed(version, f"{name} {version}") for version in self.installed[name]],
                self.journals[name],
            )
            assert chosen is not None
            self.running.setdefault(name, chosen)


def check_end(world: World, *, broken: bool = False) -> None:
    """All have the new version, or all have the old one; what was found bad does not run."""
    assert not any(is_open(known) for known in world.journals.values())
    assert set(world.running) == set(world.names)
    running = set(world.running.values())
    assert len(running) == 1, world.running
    assert running == {OLD} or not broken
    for name in world.names:
        assert world.journals[name].active == world.running[name]
        assert world.running[name] in world.installed[name]


NAMES = [("a",), ("b", "a", "c")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("data", ["keep", "copy"])
@pytest.mark.parametrize("broken", [None, 0, -1])
@pytest.mark.parametrize("afterwards", [False, True])
def test_a_power_cut_at_every_place(
    names: tuple[str, ...], data: str, broken: int | None, afterwards: bool
) -> None:
    """And another one at every place of the start that follows. Some fail only `afterwards`."""
    bad = frozenset() if broken is None else frozenset({names[broken]})
    cuts = 0
    for first in itertools.count():
        world = World(names, frozenset() if afterwards else bad)
        world.cut_after = first
        try:
            world.drive(machine.begin(update_of(*names, data=data)))
            break
        except PowerCut:
            cuts += 1
        for second in (*range(0, 60, 7), None):
            later = World(names, bad)
            later.__dict__ |= {
                "journals": dict(world.journals),
                "installed": {name: set(known) for name, known in world.installed.items()},
                "data": dict(world.data),
                "copies": set(world.copies),
                "cut_after": second,
            }
            try:
                later.reboot()
            except PowerCut:
                later.cut_after = None
                later.reboot()
            check_end(later, broken=bool(bad) and not afterwards)
            if data == "copy":
                assert all(later.data[name] == later.running[name] for name in names)
    check_end(world, broken=bool(bad) and not afterwards)
    assert cuts > 10


@pytest.mark.parametrize("names", NAMES)
def test_a_trial_that_every_start_interrupts_ends(names: tuple[str, ...]) -> None:
    """The machine that it takes down with it has two more starts, then it is taken back."""
    world = World(names)
    starts = 0
    world.cut_after = 0
    try:
        world.cut_after = 9
        world.drive(machine.begin(update_of(*names)))
    except PowerCut:
        pass
    assert world.journals[min(names)].update is not None
    for _ in range(MAX_BOOTS + 1):
        starts += 1
        world.count, world.cut_after = 0, 4
        try:
            world.reboot()
        except PowerCut:
            continue
        break
    world.count, world.cut_after = 0, None
    world.reboot()
    assert set(world.running.values()) == {OLD}
    assert "not good after 2 restarts" in world.journals[min(names)].bad[0].reason


@settings(max_examples=300)
@given(
    names=st.sampled_from(NAMES),
    failures=st.frozensets(st.integers(0, 60), max_size=4),
    cuts=st.lists(st.integers(1, 40), max_size=4),
    attempts=st.integers(1, 3),
    data=st.sampled_from(["keep", "copy"]),
)
@example(names=("b", "a", "c"), failures=frozenset({13, 14}), cuts=[26], attempts=1, data="keep")
def test_whatever_fails(
    names: tuple[str, ...], failures: frozenset[int], cuts: list[int], attempts: int, data: str
) -> None:
    """At most one version of a name runs, and each name has one in the end."""
    world = World(names)
    world.failures = failures
    step = machine.begin(update_of(*names, attempts=attempts, data=data))
    remaining = [*cuts, None]
    world.cut_after = remaining.pop(0)
    try:
        world.drive(step)
    except PowerCut:
        while True:
            world.count, world.cut_after, world.failures = 0, remaining.pop(0), frozenset()
            try:
                world.reboot()
                break
            except PowerCut:
                continue
        check_end(world)
    for name in names:
        known = world.journals[name]
        if world.running.get(name) == NEW and not is_open(known):
            assert known.active in (NEW, None) or "rollback_failed" in world.reports


def test_the_second_attempt() -> None:
    world = World(("a",))
    world.failures = frozenset({10})
    assert world.drive(machine.begin(update_of("a", attempts=2))).result == "good"
    world = World(("a",))
    world.failures = frozenset({10})
    assert world.drive(machine.begin(update_of("a"))).result == "rolled_back"


@pytest.mark.parametrize("names", NAMES)
def test_a_result_that_cannot_be_written(names: tuple[str, ...]) -> None:
    """Of a group that was found good the next start completes the journals; a single one goes back."""

    class Full(World):
        def write(self, writes: records.Writes) -> None:
            if any(known.last.result == journal.GOOD for _, known in writes if known.last is not None):
                raise OSError
            super().write(writes)

        def carry_out(self, action: machine.Action) -> machine.Event:
            try:
                return super().carry_out(action)
            except OSError:
                return Failed("no room")

    world = Full(names)
    state = world.drive(machine.begin(update_of(*names)))
    expected = {OLD} if len(names) == 1 else {NEW}
    assert (state.result, set(world.running.values())) == (
        "rolled_back" if len(names) == 1 else "good",
        expected,
    )
    again = World(names)
    again.journals, again.installed = world.journals, world.installed
    again.reboot()
    check_end(again)
    assert set(again.running.values()) == expected


def test_only_who_fails_is_bad() -> None:
    world = World(("a", "b", "c"), frozenset({"b"}))
    state = world.drive(machine.begin(update_of("a", "b", "c")))
    assert (state.result, world.reports) == (
        "rolled_back",
        ["staged", "trying", "rolling_back", "rolled_back"],
    )
    assert [name for name in "abc" if world.journals[name].bad] == ["b"]
    assert world.installed == {"a": {OLD, NEW}, "b": {OLD}, "c": {OLD, NEW}}
    assert world.journals["a"].last is not None
    assert world.journals["a"].last.reason == "not ready"


def test_cancelled_in_time() -> None:
    world = World(("a", "b"))
    state, action = machine.begin(update_of("a", "b"))
    while state.stage != machine.WAITING:
        assert action is not None
        state, action = machine.react(state, world.carry_out(action))
    assert machine.may_cancel(state)
    assert world.drive(machine.react(state, Cancel())).result == "cancelled"
    assert world.running == {"a": OLD, "b": OLD}
    check_end(world)


def test_not_cancelled_any_more() -> None:
    world = World(("a",))
    state, action = machine.begin(update_of("a"))
    while state.stage != machine.TRIAL:
        assert action is not None
        state, action = machine.react(state, world.carry_out(action))
    assert not machine.may_cancel(state)
    assert machine.react(state, Cancel()) == (state, None)


def test_staged_and_aborted() -> None:
    world = World(("a",))
    world.journals["a"] = journal.opened(world.journals["a"], "a", update_of("a"))
    state = world.drive(machine.resume(update_of("a"), max_boots=2, abort=True))
    assert (state.result, world.running, world.journals["a"].bad) == ("aborted", {"a": OLD}, ())


def test_back_after_it_was_good() -> None:
    world = World(("a",))
    update = update_of("a")
    assert world.drive(machine.begin(update)).result == "good"
    assert world.journals["a"].previous == (OLD,)
    assert world.drive(machine.revert(update, "it crashes", "a")).result == "rolled_back"
    assert world.running == {"a": OLD}
    known = world.journals["a"]
    assert (known.active, known.previous, known.bad[0].version) == (OLD, (), NEW)


def test_an_old_version_that_does_not_come_back() -> None:
    class Hopeless(World):
        def ready(self, container: Container) -> machine.Event:
            return Failed("nothing works", container.name)

    world = Hopeless(("a",))
    state = world.drive(machine.begin(update_of("a", data="copy")))
    assert (state.result, world.running) == ("rollback_failed", {"a": OLD})
    assert world.copies == {"a"}
    known = world.journals["a"].last
    assert known is not None
    assert known.result == "rollback_failed"
