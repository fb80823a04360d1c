# SPDX-License-Identifier: Apache-2.0
"""Debian's own kernel for arm64, and an initramfs with the modules that machine and runtime need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from qemu import cache, debian, progress, rootfs, steps

META_PACKAGE = "linux-image-arm64"

BOOT_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng"),
    *("squashfs", "ext4", "overlay"),
)
"""What the machine needs; it does not start without them."""

RUNTIME_MODULES = ("loop", "dm_mod", "dm_verity", "sha2_ce", "sha256_arm64")
"""What the runtime needs, loaded by its init script or unit, and implementations for some processors."""

_INIT = cache.REPOSITORY / "qemu/initramfs/init"
_SELF = Path(__file__)


def image() -> Path:
    """Directory with `Image`, `config` and `initramfs.cpio`; made if necessary."""
    return cache.made("debian-kernel", [META_PACKAGE, _INIT, _SELF, rootfs.base().name], _make)


def _make(target: Path) -> None:
    package = debian.Apt().dependency(META_PACKAGE)
    with progress.step(f"downloading Debian's kernel, {package} (60 MB)"):
        (archive,) = debian.Apt().download([package], target / "download")
    (target / "package").mkdir()
    with progress.step("unpacking it"):
        debian.unpack(archive, target / "package")
    (image,) = (target / "package/boot").glob("vmlinuz-*")
    version = image.name.removeprefix("vmlinuz-")
    image.rename(target / "Image")
    (target / "package/boot" / f"config-{version}").rename(target / "config")
    _make_initramfs(target, version)
    for name in ("download", "package", "initramfs"):
        shutil.rmtree(target / name)


def _make_initramfs(target: Path, version: str) -> None:
    log = target / "log"
    root = target / "initramfs"
    for name in ("dev", "proc", "sys", "newroot"):
        (root / name).mkdir(parents=True)
    shutil.copy(rootfs.busybox(), root / "busybox")
    shutil.copy(_INIT, root / "init")
    for name, modules in (("boot", BOOT_MODULES), ("all", BOOT_MODULES + RUNTIME_MODULES)):
        (root / f"modules.{name}").write_text(" ".join(modules) + "\n")
    steps.run(["depmod", "-b", target / "package", version], log)
    place = Path("lib/modules") / version
    for path in _with_dependencies(target / "package", version):
        copy = root / path.relative_to(target / "package")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(target / "package" / place / name, root / place / name)
    # Where check_conf.sh finds it.
    shutil.copy(target / "config", root / place / "config")
    steps.run(["depmod", "-b", root, version], log)
    pack = 'find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet > "$0"'
    steps.run(["sh", "-c", pack, target / "initramfs.cpio"], log, cwd=root)


def _with_dependencies(package: Path, version: str) -> list[Path]:
    """Files of the modules and of those that they need."""
    command = ["modprobe", "-d", str(package), "-S", version, "-a", "--show-depends"]
    command += [*BOOT_MODULES, *RUNTIME_MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or "not found" in done.stderr:
        raise steps.StepFailed(f"Debian's kernel {version} lacks modules:\n{done.stderr}")
    lines = (line.split() for line in done.stdout.splitlines())
    return sorted({Path(words[1]) for words in lines if words[0] == "insmod"})
