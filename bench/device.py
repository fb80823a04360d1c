# SPDX-License-Identifier: Apache-2.0
"""Boot and start times on the aarch64 machine in QEMU, where control groups are version 2.

The host packs and boots; on the device this module runs as a program.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import start
from bench.daemon import ROOT, bench
from bench.table import Row, show

if TYPE_CHECKING:
    from bench.daemon import Bench

RUNS = 50
LIMIT = 1200.0


def measure(host: Bench) -> None:
    """Print the table of the device."""
    from qemu import kernel, rootfs
    from qemu.machine import Machine, Options, make_data_disk
    from qemu.machine import show as pass_on

    shutil.copy(rootfs.busybox(), host.root / "bin/busybox")
    start.pack(host)
    with tempfile.TemporaryDirectory(prefix="northstar-bench-") as work:
        disk, data = Path(work) / "disk.squashfs", Path(work) / "data.ext4"
        trees = {"bench": ROOT / "bench", "packages": host.repository}
        rootfs.test_disk(disk, trees, Path(work) / "log")
        make_data_disk(data)
        options = Options(
            kernel=kernel.image() / "Image",
            rootfs=rootfs.image() / "rootfs.squashfs",
            data=data,
            extra=disk,
            memory=768,
        )
        with Machine(options) as machine:
            answered = machine.wait_for_console()
            show(
                "QEMU aarch64 (emulated)",
                [
                    Row("power on -> first program", f"{machine.boot_time:8.1f} s"),
                    Row("/sbin/init -> console answers", f"{answered or 0:8.1f} s", "target <= 2.5 s"),
                ],
            )
            machine.run(
                "cd /mnt && PYTHONDONTWRITEBYTECODE=1 python3 -m bench.device packages",
                timeout=LIMIT,
                output=lambda stream, text: pass_on(stream, text, sys.stdout.buffer, sys.stderr.buffer),
            )


def on_device(packages: str) -> None:
    """Measure starts with the packages of a directory."""
    with bench() as here:
        for package in Path(packages).iterdir():
            shutil.copy(package, here.repository)
        show(start.TITLE, start.alternate(here, None, RUNS))


if __name__ == "__main__":
    on_device(sys.argv[1])
