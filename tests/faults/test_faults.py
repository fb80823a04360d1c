# SPDX-License-Identifier: Apache-2.0
"""The device under faults: power cuts, kills, disks that are full, read-only or fail; and what it keeps.

The seeds are fixed. `tests/run --soak HOURS` does it again and again with others: NORTHSTAR_FAULTS_SEED adds
to them, NORTHSTAR_FAULTS_SCALE multiplies the numbers. docs/reliability.md has the table.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress

import history
import pytest
from subject import LEAVE, RETURN, SCALE, SEED, WORK_SECONDS, Device

CUTS, KILLS, INTERRUPTIONS, CYCLES = 10 * SCALE, 30 * SCALE, 40 * SCALE, 200 * SCALE
GROWTH = 200
"""Bytes per cycle; memory of processes is counted in pages."""


def test_power_cuts(device: Device) -> None:
    """Nothing that was acknowledged is lost, nothing that was wiped comes back; the next start is clean."""
    acknowledged = 0
    device.look()
    for number in range(CUTS):
        seed = SEED * 1000 + number
        installed = set(device.installed)
        cut_after = random.Random(seed).uniform(0.05, 0.95) * WORK_SECONDS
        before, later = device.operate(seed, cut_after)
        device.come_back()
        events = history.parse(before)
        acknowledged += sum(event.stage == "done" for event in events)
        device.check(history.expected(installed, events, history.parse(later)))
    assert device.disk.lost, "no write was ever lost"
    assert acknowledged, "nothing was ever acknowledged"
    print(f"{CUTS} cuts, {acknowledged} acknowledged operations, {device.disk.lost} blocks lost")


@pytest.mark.parametrize("process", ["daemon", "engine", "init"])
def test_kills(device: Device, process: str) -> None:
    """A process of the runtime is killed at a random moment; the next start finds everything in order."""
    if process == "init":
        device.run(f"nstar install {device.packages['sleeper']} default; nstar start sleeper")
    names = " ".join(device.packages[name] for name in ("one", "two", "three"))
    command = f"python3 /mnt/faults/kills.py {process} {KILLS} {SEED * 1000 + 100} {names} 2>&1"
    assert device.run(command, timeout=10.0 * KILLS)[-1] == f"{KILLS} kills of {process}"
    if process == "init":
        device.run("nstar stop -t 0s sleeper; nstar uninstall sleeper")


def test_interrupted_start_ups(device: Device) -> None:
    """However often, the next one works."""
    expected = set(device.look()["installed"])
    device.run("/etc/init.d/northstar stop > /dev/null")
    device.run(device.workload("interrupt", INTERRUPTIONS, SEED), timeout=10.0 * INTERRUPTIONS)
    device.run("/etc/init.d/northstar start > /dev/null")
    device.check(history.Expected(expected, expected, set()))


def test_full_disk(device: Device) -> None:
    """What does not fit is refused; what is there works, and can be removed."""
    before = set(device.look()["installed"])
    device.run("dd if=/dev/zero of=/var/lib/northstar/filler bs=1M 2>/dev/null; sync; true")
    assert device.run(f"nstar install {device.packages['quick']} default 2>&1; echo $?")[-1] != "0"
    device.check(history.Expected(before, before, set()))
    device.run("rm /var/lib/northstar/filler; sync")
    assert device.run(f"nstar install {device.packages['quick']} default > /dev/null; echo $?")[-1] == "0"


def test_read_only_disk(device: Device) -> None:
    before = set(device.look()["installed"])
    device.run("mount -o remount,ro /var/lib/northstar")
    try:
        for command in (f"install {device.packages['sleeper']} default", "uninstall quick"):
            assert device.run(f"nstar {command} 2>&1; echo $?")[-1] != "0"
    finally:
        device.run("mount -o remount,rw /var/lib/northstar")
    device.check(history.Expected(before, before, set()))


def test_disk_that_fails(device: Device) -> None:
    """Requests that need it are refused, others are served; when it works again, so does everything."""
    before = set(device.look()["installed"])
    device.disk.fail(on=True)
    try:
        assert device.run(f"nstar install {device.packages['sleeper']} default 2>&1; echo $?")[-1] != "0"
        assert device.run("nstar start hello-world; nstar stop -t 1s hello-world")
    finally:
        device.disk.fail(on=False)
    device.run(LEAVE)
    # Of a disk that has refused writes in the middle nobody expects more than that it can be repaired.
    device.run(RETURN.replace("e2fsck -p", "e2fsck -y"))
    found = device.look()
    assert before - {"sleeper:0.0.1"} <= set(found["installed"]), found
    assert (found["failed"], found["problems"]) == ({}, {}), found


def test_cycles(device: Device) -> None:
    """Starts and ends leave nothing behind, and no memory."""
    with suppress(Exception):
        device.run(f"nstar install {device.packages['quick']} default > /dev/null 2>&1")
    found = json.loads(device.run(device.workload("cycles", CYCLES), timeout=5.0 * CYCLES)[-1])
    assert found["after"] == found["before"], found
    assert found["bytes per cycle"] < GROWTH, found
    print(f"{CYCLES} cycles, {found['bytes per cycle']:.0f} bytes each")
