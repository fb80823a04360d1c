# SPDX-License-Identifier: Apache-2.0
"""A program that is used again is the one that the plan would give."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from freetuples import none_is_left
from hypothesis import given
from hypothesis import strategies as st

from northstar.engine import instructions as isa
from northstar.errors import StartContainerFailed
from northstar.manifest import parse
from northstar.names import Container, Version
from northstar.programs import start
from northstar.runtime.containers import command, plan, programs
from northstar.runtime.containers.programs import KEPT, RecentPrograms

MANIFEST = parse(
    b'{"name":"a","version":"0.0.1","init":"/a","uid":1,"gid":1,"mounts":{"/tmp":{"type":"tmpfs","size":1000}}}'
)
PLACES = plan.Places("/run", "/data", "/sockets", "/run/.devices")
FACTS = plan.Facts(available=1 << 21, last_capability=40, selinux=False, oom_score_adj=(0, -900))


def order(arguments: tuple[str, ...], roles: list[str | int], numbers: list[int]) -> Any:
    what = command.command(MANIFEST, None, arguments, {})
    return plan.build(
        MANIFEST, what, PLACES, {}, roles, FACTS, group_numbers=numbers, application_filter=b"", hold=False
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2 * KEPT),
            st.tuples(st.sampled_from(["", "x", "y"])),
            st.sampled_from([["mounts"], ["mounts", "cgroup"], [3, "mounts", "procs"]]),
            st.sampled_from([[], [5]]),
        ),
        max_size=60,
    )
)
def test_what_is_kept_is_what_would_be_made(
    starts: list[tuple[int, tuple[str], list[Any], list[int]]],
) -> None:
    recent = RecentPrograms()
    for number, arguments, roles, numbers in starts:
        wanted = (arguments, roles, numbers)
        plan = order(*wanted)
        made = recent.ready(Container(f"c{number}", Version(0, 0, 1)), wanted, partial(order, *wanted))
        assert made == (plan, start.build(plan).encode())
        assert len(recent._kept) <= KEPT


def test_the_same_start_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    recent, container = RecentPrograms(), Container("c", Version(0, 0, 1))
    first = recent.ready(container, (["x"],), lambda: order(("x",), ["mounts"], []))
    monkeypatch.setattr(programs.start, "build", None)
    assert recent.ready(container, (["x"],), lambda: order(("y",), ["mounts"], [])) is first


def test_who_was_started_longest_ago_is_forgotten() -> None:
    """A start counts as well if the program was there already."""
    recent, made = RecentPrograms(), 0

    def plan() -> Any:
        nonlocal made
        made += 1
        return order(("x",), ["mounts"], [])

    def start_of(number: int) -> bool:
        """Whether a plan was asked for."""
        before = made
        recent.ready(Container(f"c{number}", Version(0, 0, 1)), (), plan)
        return made > before

    assert [start_of(number) for number in range(16)] == [True] * 16
    assert [start_of(number) for number in range(16)] == [False] * 16
    assert not start_of(0)
    assert start_of(16)
    assert not start_of(0)
    assert start_of(1)


def test_a_program_that_is_too_large_fails_the_start() -> None:
    with pytest.raises(StartContainerFailed, match=r"hand over the program: a program of [0-9]+ bytes"):
        RecentPrograms().ready(
            Container("c", Version(0, 0, 1)), (), lambda: order(("x" * isa.PROGRAM_LIMIT,), ["mounts"], [])
        )


def test_places_of_starts_leave_no_memory() -> None:
    with none_is_left(100):
        for _ in range(100):
            PLACES._replace(devices="/run/.own")
