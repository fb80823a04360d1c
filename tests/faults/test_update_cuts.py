# SPDX-License-Identifier: Apache-2.0
"""The power fails at each step of an update: at the next start exactly one good version runs.

A step is over when a certain write is on the disk. The power fails at that write, or some flushes later, as
the seed says: before the step is durable, in its middle, or behind it. The numbers are those of
docs/updates.md. The short form has every other case, NORTHSTAR_FAULTS_SCALE=5 all of them, five times.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from subject import BAD, GOOD, GROUP, OLD, SCALE, SEED, SINGLE, Device

FLUSHES = 5
"""At most so many follow a write until the power fails: a journal takes four."""


class Step(NamedTuple):
    """A step of an update to `version`; it writes one of `marks`, and none of `without`."""

    number: int
    name: str
    version: str
    marks: tuple[bytes, ...] = ()
    without: tuple[bytes, ...] = ()

    def recognises(self, written: bytes) -> bool:
        """Whether this was written by the step."""
        return any(mark in written for mark in self.marks) and not any(
            mark in written for mark in self.without
        )


RESULT = b'"result":"rolled_back"'
STEPS = (
    Step(1, "received", GOOD),
    Step(2, "installed", GOOD, (f'"active":"{OLD}"'.encode(),)),
    Step(3, "staged", GOOD, (b'"phase":"staged"',)),
    Step(4, "trying", GOOD, (b'"phase":"trying"',)),
    Step(5, "on trial", GOOD, (f"{GOOD} runs".encode(),)),
    Step(6, "good", GOOD, (f'"active":"{GOOD}"'.encode(), b'"phase":"good"')),
    Step(7, "rolling back", BAD, (b'"phase":"rolling_back"',)),
    Step(8, "rolled back", BAD, (RESULT,)),
    Step(9, "removed", BAD, (RESULT,), (b'"remove":',)),
)


CASES = [
    pytest.param(step, names, id=f"{step.number} {step.name}-{'single' if names == SINGLE else 'group'}")
    for names in (SINGLE, GROUP)
    for step in STEPS
]


@pytest.mark.parametrize(("step", "names"), CASES if SCALE > 1 else CASES[SEED % 2 :: 2])
def test_update_power_cut(device: Device, step: Step, names: tuple[str, ...]) -> None:
    for number in range(SCALE):
        seed = SEED * 1000 + number
        chance = random.Random(f"{seed} {step.number} {names}")
        flushes = chance.randrange(FLUSHES * len(names))
        try:
            reported = update(device, step, names, flushes, chance)
        finally:
            device.come_back()
        found = json.loads(device.run(device.updating("look", *names))[-1])
        check(found, step, names, reported)
        print(
            f"step {step.number}, {len(names)} updated: cut {flushes} flushes later, {found['running']} run"
        )


def update(
    device: Device, step: Step, names: tuple[str, ...], flushes: int, chance: random.Random
) -> list[str]:
    """What the device has reported of an update before the power failed in it."""
    old, new = ([device.packages[f"{name}-{version}"] for name in names] for version in (OLD, step.version))
    if not step.marks:
        # The first package of the update arrives.
        step = step._replace(marks=(beginning(device.files / Path(new[0]).name),))
    device.run(device.updating("remove", *names))
    device.disk.cut_at(step.recognises, flushes, chance)
    reported: list[str] = []

    def collect(stream: str, data: bytes) -> None:
        if not device.disk.dead:
            reported.append(data.decode())

    assert device.machine.run(device.updating("begin", *old, "--", *new), output=collect) == 0, reported
    assert device.disk.reached, f"step {step.number}, {step.name}, never came"
    if not device.disk.dead:
        device.disk.cut(chance)
    return "".join(reported).split()


def beginning(package: Path) -> bytes:
    """By which a package is known: its headers have a check sum of its manifest."""
    with package.open("rb") as file:
        return file.read(64)


def check(found: dict[str, Any], step: Step, names: tuple[str, ...], reported: list[str]) -> None:
    """Exactly one good version runs, of a group the same one of all; what was reported counts."""
    if step.version == BAD or step.number < 3:
        versions = [OLD]
    elif "accepted" in reported:
        versions = [GOOD]
    else:
        versions = [OLD, GOOD]
    running = [sorted(f"{name}:{version}" for name in names) for version in versions]
    assert sorted(found["running"]) in running, (found, reported)
    assert {f"{name}:{OLD}" for name in names} <= set(found["installed"]), (found, reported)
    assert (found["rubbish"], found["problems"]) == ([], {}), (found, reported)
