# SPDX-License-Identifier: Apache-2.0
"""What the images in QEMU do with a data partition that is not as it should be.

Never is a package installed into anything but the partition: who was told that it is installed finds it
after the next boot.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from northstar import manifest
from northstar.npk import keys, pack
from qemu import kernels, rootfs
from qemu.machine import Machine, Options, make_data_disk

LOGS = {rootfs.BUSYBOX: "cat /var/log/messages", rootfs.SYSTEMD: "journalctl -b --no-pager"}


@contextmanager
def booted(init: str, data: Path | None) -> Iterator[Machine]:
    """An image with a data disk, after its init has started all that it can."""
    kernel = kernels.find(kernels.DEBIAN)
    options = Options(
        kernel=kernel.image,
        initramfs=kernel.initramfs,
        rootfs=rootfs.image(init) / "rootfs.squashfs",
        data=data,
    )
    with Machine(options) as machine:
        if init == rootfs.SYSTEMD:
            machine.run("systemctl is-system-running --wait")
        yield machine


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A command that installs a package which the image does not have, signed for its repository."""
    directory = tmp_path_factory.mktemp("package")
    (directory / "root").mkdir()
    (directory / "root/text").write_text("hello")
    image = directory / "image"
    subprocess.run(["mksquashfs", directory / "root", image, "-quiet", "-no-progress"], check=True)
    description = {"name": "late", "version": "1.0.0", "uid": 1000, "gid": 1000}
    key = keys.load_private(str(rootfs.keys() / "northstar.key"))
    parsed = manifest.parse(json.dumps(description).encode())
    package = Path(pack.pack_image(parsed, str(image), str(directory), key=key))
    text = base64.b64encode(package.read_bytes()).decode()
    return f"echo {text} | base64 -d > /tmp/late.npk && nstar install /tmp/late.npk default"


def is_installed(machine: Machine) -> bool:
    return "late:1.0.0" in json.loads(machine.output("nstar -j list"))["response"]["list"]


def debugfs(disk: Path, *requests: str) -> None:
    for request in requests:
        subprocess.run(["debugfs", "-w", "-R", request, disk], check=True, capture_output=True)


def free_blocks(disk: Path) -> int:
    done = subprocess.run(["dumpe2fs", "-h", disk], check=True, capture_output=True, text=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Free blocks:"))
    return int(line.split()[-1])


def empty(disk: Path) -> None:
    """No file system at all."""
    with disk.open("wb") as file:
        file.truncate(64 << 20)


def damaged(disk: Path) -> None:
    """So that a repair may lose something: two files share their blocks."""
    make_data_disk(disk)
    text = disk.parent / "text"
    text.write_bytes(bytes(range(256)) * 64)
    debugfs(disk, f"write {text} a", f"write {text} b")
    for name, block in (("a", 9000), ("b", 9000)):
        debugfs(disk, *(f"set_inode_field {name} block[{number}] {block + number}" for number in range(4)))
        debugfs(disk, f"set_inode_field {name} flags 0")
    debugfs(disk, "set_super_value state 0")


@pytest.mark.parametrize("prepare", [None, empty, damaged], ids=["missing", "empty", "damaged"])
def test_no_install_without_the_partition(
    tmp_path: Path, install: str, prepare: Callable[[Path], None] | None
) -> None:
    disk = None
    if prepare is not None:
        disk = tmp_path / "data"
        prepare(disk)
    with booted(rootfs.BUSYBOX, disk) as machine:
        assert machine.run(install) != 0
        log = machine.output(LOGS[rootfs.BUSYBOX])
        assert "/var/lib/northstar is in /etc/fstab, and is not mounted" in log
        assert "e2fsck -p ended with" in log
        assert machine.output("ls /var/lib/northstar") == ""
    if prepare is empty and disk:
        assert disk.read_bytes() == bytes(64 << 20), "it is left as it was"


def test_no_install_without_the_partition_under_systemd(tmp_path: Path, install: str) -> None:
    disk = tmp_path / "data"
    damaged(disk)
    with booted(rootfs.SYSTEMD, disk) as machine:
        assert machine.run(install) != 0
        assert machine.output("systemctl is-active northstar || true") == "inactive\n"
        log = machine.output(LOGS[rootfs.SYSTEMD])
        assert "Dependency failed for northstar.service" in log
        assert machine.output("ls /var/lib/northstar 2>/dev/null || true") == ""
        # The rest of the device is there.
        assert machine.output("systemctl is-active multi-user.target") == "active\n"


@pytest.mark.parametrize("init", rootfs.INITS)
def test_partition_that_can_be_repaired(tmp_path: Path, install: str, init: str) -> None:
    """It is checked at boot, repaired, and what is installed is there after the next one."""
    disk = tmp_path / "data"
    make_data_disk(disk)
    right = free_blocks(disk)
    debugfs(disk, "set_super_value free_blocks_count 1", "set_super_value state 0")
    assert free_blocks(disk) == 1
    copy = tmp_path / "copy"
    with booted(init, disk) as machine:
        assert machine.wait_for_console() is not None
        assert machine.run(install) == 0
        assert is_installed(machine)
        machine.run("sync")
        # As after a loss of power.
        shutil.copy(disk, copy)
    assert free_blocks(disk) > right // 2
    if init == rootfs.BUSYBOX:
        with booted(init, copy) as machine:
            assert machine.wait_for_console() is not None
            assert is_installed(machine)
