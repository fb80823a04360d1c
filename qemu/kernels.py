# SPDX-License-Identifier: Apache-2.0
"""Kernels to boot: Debian's own, that of the project's fragments, or one that somebody else has built."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from qemu import debiankernel, foreign, kernel

DEBIAN, OWN = "debian", "own"
HELP = (
    f"`{DEBIAN}`: Debian's package linux-image-arm64; `{OWN}`: built from Debian's source and the "
    "options of northstar.cfg; or an Image or Image.gz (%(default)s)"
)


class Kernel(NamedTuple):
    """Files that the machine boots. Debian's kernel reads no disk without the modules of its initramfs."""

    image: Path
    initramfs: Path | None = None


def find(name: str) -> Kernel:
    """The kernel of this name or in this file; what is missing is made. Raises StepFailed, UnknownImage."""
    if name == DEBIAN:
        made = debiankernel.image()
        return Kernel(made / "Image", made / "initramfs.cpio")
    if name == OWN:
        return Kernel(kernel.image() / "Image")
    foreign.check_kernel(Path(name))
    return Kernel(Path(name))
