# SPDX-License-Identifier: Apache-2.0
"""The device under faults: power cuts, kills, disks that are full, read-only or fail; and what it keeps.

The seeds are fixed. `tests/run --soak HOURS` does it again and again with others: NORTHSTAR_FAULTS_SEED adds
to them, NORTHSTAR_FAULTS_SCALE multiplies the numbers. docs/reliability.md has the table.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import history
import pytest
from volatiledisk import VolatileDisk

from northstar import manifest
from northstar.npk import keys, pack
from qemu import kernels, rootfs
from qemu.machine import Machine, Options, make_data_disk
from tests.integration import testimage

HERE = Path(__file__).resolve().parent
SEED = int(os.environ.get("NORTHSTAR_FAULTS_SEED", "0"))
SCALE = int(os.environ.get("NORTHSTAR_FAULTS_SCALE", "1"))
CUTS, KILLS, INTERRUPTIONS, CYCLES = 10 * SCALE, 30 * SCALE, 40 * SCALE, 200 * SCALE
WORK_SECONDS = 1.5
GROWTH = 200
"""Bytes per cycle; memory of processes is counted in pages."""

OTHERS = frozenset(("quick:0.0.1", "sleeper:0.0.1"))
"""Packages that tests install for themselves."""

LEAVE = """
kill -9 $(cat /run/northstar.pid) 2>/dev/null
tries=0
until umount /var/lib/northstar 2>/dev/null; do
    tries=$((tries+1)); test $tries -lt 100 || exit 1; sleep 0.05
done
python3 /mnt/faults/workload.py forget /dev/vdb
"""
"""Nothing of the disk is in memory any more."""
RETURN = """
e2fsck -p /dev/vdb > /run/fsck.log 2>&1
test $? -le 1 || { cat /run/fsck.log; exit 1; }
mount /var/lib/northstar && rm -f /run/northstar.pid && /etc/init.d/northstar start > /dev/null
"""


def packed(directory: Path) -> list[Path]:
    """Signed packages: some small ones, one that writes data, one that ends at once, one that does not."""
    directory.mkdir()
    key = keys.load_private(str(rootfs.keys() / "northstar.key"))
    busybox, small = directory / "busybox.img", directory / "small.img"
    testimage.make(rootfs.busybox(), busybox)
    (directory / "root").mkdir()
    (directory / "root/text").write_text("hello")
    subprocess.run(["mksquashfs", directory / "root", small, "-quiet", "-no-progress"], check=True)
    writes = "n=0; while test $n -lt 5; do echo $n > /data/$n; n=$((n+1)); done; sync"
    programs = {"writer": writes, "quick": "exit 0", "sleeper": "exec sleep 100000"}
    paths = []
    for name in ("one", "two", "three", *programs):
        fields: dict[str, Any] = {"name": name, "version": "0.0.1", "uid": 1000, "gid": 1000}
        if name in programs:
            mounts = {"/proc": {"type": "proc"}, "/dev": {"type": "dev"}, "/data": {"type": "persist"}}
            fields |= {"init": "/bin/sh", "args": ["-c", programs[name]], "mounts": mounts}
        parsed = manifest.parse(json.dumps(fields).encode())
        image = busybox if name in programs else small
        paths.append(Path(pack.pack_image(parsed, str(image), str(directory), key=key)))
    busybox.unlink()
    small.unlink()
    return paths


class Device:
    """A machine, its disk, and what has been seen there."""

    def __init__(self, machine: Machine, disk: VolatileDisk, packages: list[Path]) -> None:
        self.machine = machine
        self.disk = disk
        self.packages = {path.name.rpartition("-")[0]: f"/mnt/packages/{path.name}" for path in packages}
        self.installed: set[str] = set()

    def run(self, command: str, timeout: float = 60.0) -> list[str]:
        """Lines that a command prints; it must succeed."""
        return self.machine.output(f"cd /tmp; {command}", timeout=timeout).splitlines()

    def workload(self, *words: object) -> str:
        return "python3 /mnt/faults/workload.py " + " ".join(map(str, words))

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(self.workload("look"))[-1])
        self.installed = set(found["installed"])
        return found

    def operate(self, seed: int, cut_after: float) -> tuple[list[str], list[str]]:
        """Work while the power fails; the lines that had come by then, and those that came later."""
        lines = ["", ""]
        failed = threading.Event()

        def collect(stream: str, data: bytes) -> None:
            if stream == "stdout":
                lines[failed.is_set()] += data.decode()
                with suppress(RuntimeError):  # started by the first line
                    timer.start()

        def fail() -> None:
            failed.set()
            self.disk.cut(random.Random(seed))

        timer = threading.Timer(cut_after, fail)
        names = [self.packages[name] for name in ("one", "two", "three", "writer")]
        self.machine.run(self.workload("operations", WORK_SECONDS, seed, *names), output=collect)
        timer.join()
        assert failed.is_set()
        before, _, rest = lines[0].rpartition("\n")
        return before.splitlines(), (rest + lines[1]).splitlines()

    def check(self, expected: history.Expected) -> None:
        """What is there is what may and must be there, and all of it can be used."""
        complaint = history.complaint(expected, self.look(), OTHERS)
        assert complaint is None, complaint


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """One machine for all: after each test it works."""
    base = tmp_path_factory.mktemp("faults")
    packages = packed(base / "packages")
    extra, data = base / "extra.squashfs", base / "data.ext4"
    rootfs.test_disk(extra, {"faults": HERE, "packages": base / "packages"}, base / "log")
    make_data_disk(data, 48)
    disk = VolatileDisk(data, base / "nbd")
    kernel = kernels.find(os.environ.get("NORTHSTAR_FAULTS_KERNEL", kernels.OWN))
    options = Options(
        kernel=kernel.image,
        initramfs=kernel.initramfs,
        rootfs=rootfs.image(rootfs.BUSYBOX) / "rootfs.squashfs",
        data=disk.url,
        extra=extra,
    )
    try:
        with Machine(options) as machine:
            assert machine.wait_for_console() is not None
            machine.run("test -e /mnt/faults || mount -t squashfs -o ro /dev/vdc /mnt")
            yield Device(machine, disk, packages)
    finally:
        disk.close()


def test_power_cuts(device: Device) -> None:
    """Nothing that was acknowledged is lost, nothing that was wiped comes back; the next start is clean."""
    acknowledged = 0
    device.look()
    for number in range(CUTS):
        seed = SEED * 1000 + number
        installed = set(device.installed)
        cut_after = random.Random(seed).uniform(0.05, 0.95) * WORK_SECONDS
        before, later = device.operate(seed, cut_after)
        device.run(LEAVE)
        device.disk.power_on()
        device.run(RETURN)
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
