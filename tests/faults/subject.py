# SPDX-License-Identifier: Apache-2.0
"""The machine that faults happen to, its disk, and the packages that are used there."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import history
from volatiledisk import VolatileDisk

from northstar import manifest
from northstar.npk import keys, pack
from qemu import rootfs
from qemu.machine import Machine
from tests.integration import testimage

SEED = int(os.environ.get("NORTHSTAR_FAULTS_SEED", "0"))
SCALE = int(os.environ.get("NORTHSTAR_FAULTS_SCALE", "1"))
WORK_SECONDS = 1.5
"""Of operations, in which the power fails."""
OLD, GOOD, BAD = "1.0.0", "1.1.0", "1.2.0"
"""Versions of what is updated."""
SINGLE, GROUP = ("solo",), ("second", "third", "first")
"""Names of what is updated, in the order of the trial: of the group the leader fails, and as the last one."""
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
    """Signed packages: small ones, one that writes data, one that ends, one that does not, and updates."""
    directory.mkdir()
    key = keys.load_private(str(rootfs.keys() / "northstar.key"))
    busybox, small = directory / "busybox.img", directory / "small.img"
    testimage.make(rootfs.busybox(), busybox)
    (directory / "root").mkdir()
    (directory / "root/text").write_text("hello")
    subprocess.run(["mksquashfs", directory / "root", small, "-quiet", "-no-progress"], check=True)
    writes = "n=0; while test $n -lt 5; do echo $n > /data/$n; n=$((n+1)); done; sync"
    programs = {"writer": writes, "quick": "exit 0", "sleeper": "exec sleep 100000"}
    described = [_described(name, "0.0.1", programs.get(name)) for name in ("one", "two", "three", *programs)]
    described += [_updated(name, version) for name in SINGLE + GROUP for version in (OLD, GOOD, BAD)]
    paths = []
    for fields in described:
        parsed = manifest.parse(json.dumps(fields).encode())
        image = busybox if "init" in fields else small
        paths.append(Path(pack.pack_image(parsed, str(image), str(directory), key=key)))
    busybox.unlink()
    small.unlink()
    return paths


def _described(name: str, version: str, script: str | None) -> dict[str, Any]:
    """A manifest; of a resource if there is no script."""
    fields: dict[str, Any] = {"name": name, "version": version, "uid": 1000, "gid": 1000}
    if script is not None:
        mounts = {"/proc": {"type": "proc"}, "/dev": {"type": "dev"}, "/data": {"type": "persist"}}
        fields |= {"init": "/bin/sh", "args": ["-c", script], "mounts": mounts}
    return fields


def _updated(name: str, version: str) -> dict[str, Any]:
    """One that tells its disk which version it is, and goes on.

    The bad version of some ends instead, before it is ready: however slow the machine is, it is not good.
    """
    script = (
        "trap 'exit 0' TERM; echo $NORTHSTAR_VERSION runs > /data/version; busybox sync; sleep 9999 & wait"
    )
    fields = _described(name, version, script) | {"autostart": "relaxed"}
    if version == BAD and name in ("solo", "first"):
        fields |= {"args": ["-c", "exit 1"], "custom": {"northstar": {"ready": "notify"}}}
    return fields


class Device:
    """A machine, its disk, and what has been seen there."""

    def __init__(self, machine: Machine, disk: VolatileDisk, packages: list[Path]) -> None:
        self.machine = machine
        self.disk = disk
        self.files = packages[0].parent
        self.packages = {path.stem.removesuffix("-0.0.1"): f"/mnt/packages/{path.name}" for path in packages}
        self.installed: set[str] = set()

    def run(self, command: str, timeout: float = 60.0) -> list[str]:
        """Lines that a command prints; it must succeed."""
        return self.machine.output(f"cd /tmp; {command}", timeout=timeout).splitlines()

    def come_back(self) -> None:
        """After a cut: the power is on again, and the runtime starts with what the disk has."""
        self.run(LEAVE)
        self.disk.power_on()
        self.run(RETURN)

    def workload(self, *words: object) -> str:
        return "python3 /mnt/faults/workload.py " + " ".join(map(str, words))

    def updating(self, *words: object) -> str:
        return "python3 /mnt/faults/updating.py " + " ".join(map(str, words))

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
