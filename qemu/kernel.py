# SPDX-License-Identifier: Apache-2.0
"""The kernel: Debian's source of Linux 6.1, cross built from nothing but the project's fragments."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from qemu import cache, debian, progress, steps

if TYPE_CHECKING:
    from pathlib import Path

SOURCE_PACKAGE = "linux-source-6.1"
CROSS_COMPILE = "aarch64-linux-gnu-"
RUNTIME_FRAGMENT = cache.REPOSITORY / "recipes-northstar/linux/files/northstar.cfg"
MACHINE_FRAGMENT = cache.REPOSITORY / "qemu/kernel.cfg"
FRAGMENTS = (MACHINE_FRAGMENT, RUNTIME_FRAGMENT)


def image() -> Path:
    """Directory with `Image` and `config`; built if necessary."""
    return cache.made("kernel", [*FRAGMENTS, SOURCE_PACKAGE, CROSS_COMPILE], _build)


def source() -> Path:
    """Directory of the kernel's source; unpacked if necessary."""
    return cache.made("linux-source", [SOURCE_PACKAGE], _unpack_source)


def _unpack_source(target: Path) -> None:
    with progress.step(f"downloading {SOURCE_PACKAGE} (140 MB)"):
        (package,) = debian.Apt().download([SOURCE_PACKAGE], target / "download")
    log = target / "unpack.log"
    with progress.step(f"unpacking {SOURCE_PACKAGE}"):
        steps.run(["dpkg-deb", "-x", package, target / "package"], log)
        (archive,) = (target / "package/usr/src").glob("linux-source-*.tar.xz")
        (target / "linux").mkdir()
        steps.run(["tar", "-xf", archive, "--strip-components=1", "-C", target / "linux"], log)
    for name in ("download", "package"):
        shutil.rmtree(target / name)


def _build(target: Path) -> None:
    tree = source() / "linux"
    log = target / "build.log"
    output = target / "build"
    fragments = target / "fragments.cfg"
    fragments.write_text("".join(path.read_text() for path in FRAGMENTS))
    make: list[Path | str] = [
        "make",
        "-C",
        tree,
        "ARCH=arm64",
        f"CROSS_COMPILE={CROSS_COMPILE}",
        f"O={output}",
    ]
    steps.run([*make, f"KCONFIG_ALLCONFIG={fragments}", "allnoconfig"], log)
    shutil.copy(output / ".config", target / "config")
    lost = missing_options(fragments.read_text(), (target / "config").read_text())
    if lost:
        raise steps.StepFailed("the kernel does not have these options: " + ", ".join(lost))
    jobs = os.cpu_count() or 1
    with progress.step(f"building the kernel with {jobs} jobs (4 minutes on 2 idle cores)"):
        steps.run([*make, f"-j{jobs}", "Image"], log)
    shutil.copy(output / "arch/arm64/boot/Image", target / "Image")
    shutil.rmtree(output)


def missing_options(fragment: str, config: str) -> list[str]:
    """Lines of a fragment that are not in force in a configuration."""
    lines = set(config.splitlines())
    return [line for line in fragment.splitlines() if line.startswith("CONFIG_") and line not in lines]
