# SPDX-License-Identifier: Apache-2.0
"""One machine for all tests of faults: after each of them it works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from subject import Device, packed
from volatiledisk import VolatileDisk

from qemu import kernels, rootfs
from qemu.machine import Machine, Options, make_data_disk

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
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
