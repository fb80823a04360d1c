# SPDX-License-Identifier: Apache-2.0
"""Power cuts in the course of an update: at the next boot exactly one good version runs.

NORTHSTAR_POWER_CUTS says how often each step is cut off (once). The steps are those of docs/updates.md.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from qemu import kernels, rootfs
from qemu.machine import Machine, Options, make_data_disk

ROUNDS = int(os.environ.get("NORTHSTAR_POWER_CUTS", "1"))
PACKAGES = "/examples/update"
REPOSITORY = "/var/lib/northstar/repository"
JOURNAL = f"{REPOSITORY}/.state/update.json"
OLD, GOOD, BAD = "1.0.0", "1.0.1", "1.0.2"


class Cut(NamedTuple):
    """When the power fails in an update to `version`, and which one runs in the end."""

    step: str
    version: str
    until: str
    """A command that ends when the step is done."""
    expected: tuple[str, ...]


UPDATE = "nstar update update:{version} --settle 3s"
CUTS = (
    Cut("5 on trial", GOOD, f"{UPDATE} && until nstar list | grep -q '{GOOD}.* [0-9]'; do :; done", (GOOD,)),
    Cut(
        "7 rolling back",
        BAD,
        f'{UPDATE} && until grep -q \'"phase":"rolling_back"\' {JOURNAL}; do :; done',
        (OLD,),
    ),
)
"""tests/faults has all steps, on one machine that is not booted again."""


def booted(disk: Path) -> Machine:
    kernel = kernels.find(kernels.DEBIAN)
    root = rootfs.image(rootfs.BUSYBOX) / "rootfs.squashfs"
    return Machine(Options(kernel=kernel.image, initramfs=kernel.initramfs, rootfs=root, data=disk))


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.step)
def test_power_cut(tmp_path: Path, cut: Cut, number: int) -> None:
    disk = tmp_path / "data"
    make_data_disk(disk)
    with booted(disk) as machine:
        assert machine.wait_for_console() is not None
        machine.output(f"nstar install {PACKAGES}/update-{OLD}.npk default && nstar start update:{OLD}")
        machine.output(f"nstar install {PACKAGES}/update-{cut.version}.npk default")
        machine.output(cut.until.format(version=cut.version))
        machine.cut_power()
    with booted(disk) as machine:
        assert machine.wait_for_console() is not None
        deadline = time.monotonic() + 120 * machine.scale
        while json.loads(machine.output("nstar -j updates"))["response"]["updates"]["open"]:
            assert time.monotonic() < deadline
        if not running(machine):
            # It does not start by itself, unless an update starts it.
            machine.output("nstar start update")
        assert running(machine) in [[f"update:{version}"] for version in cut.expected]
        if cut.version == BAD:
            assert machine.output(f"ls {REPOSITORY}").split() == [f"update:{OLD}.npk"]


def running(machine: Machine) -> list[str]:
    names = [f"update:{version}" for version in (OLD, GOOD, BAD)]
    known = json.loads(machine.output("nstar -j list"))["response"]["list"]
    found = []
    for name in (name for name in names if name in known):
        answer = json.loads(machine.output(f"nstar -j inspect {name}"))
        if answer["response"]["inspect"]["ok"]["data"]["process"] is not None:
            found.append(name)
    return found
