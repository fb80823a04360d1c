# SPDX-License-Identifier: Apache-2.0
"""Images of other builders: what they are, and the disk with which the harness boots them.

The image itself stays as it is. The machine boots a small disk of the harness, whose init makes the image
the root, starts the agent and becomes the image's own init; qemu/harness/init tells how.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from pathlib import Path

from qemu import cache, rootfs

FORMATS = ("ext4", "squashfs", "cpio")

_HARNESS = cache.REPOSITORY / "qemu/harness/init"
_AGENT = cache.REPOSITORY / "qemu/overlay/usr/libexec/qemu-agent"
_DIRECTORIES = ("dev", "newroot", "proc", "sys", "tmp")
_GZIP = b"\x1f\x8b"
_KERNEL_MAGIC = b"ARM\x64"
_KERNEL_MAGIC_OFFSET = 0x38
_EXT_MAGIC = b"\x53\xef"
_EXT_MAGIC_OFFSET = 0x438
_CPIO_MAGICS = (b"070701", b"070702")
_OTHERS = {
    b"QFI\xfb": "is a qcow2 image; make it raw with qemu-img convert -O raw",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; decompress it",
    b"\xfd7zXZ\x00": "is compressed by xz; decompress it",
    b"BZh": "is compressed by bzip2; decompress it",
}


class UnknownImage(Exception):
    """A file is not what it should be; the message names it."""


def check_kernel(path: Path) -> None:
    """Raise UnknownImage unless this is an aarch64 kernel that QEMU can boot: Image or Image.gz."""
    head = _head(path)
    if head[_KERNEL_MAGIC_OFFSET:].startswith(_KERNEL_MAGIC):
        return
    if head.startswith(b"\x7fELF"):
        raise UnknownImage(f"{path} is an ELF file; the kernel to boot is arch/arm64/boot/Image")
    raise UnknownImage(f"{path} is not an aarch64 kernel (Image or Image.gz)")


def root_format(path: Path) -> str:
    """One of FORMATS. `ext4` stands for its predecessors, too. Raises UnknownImage."""
    raw = _raw_head(path)
    head = _head(path)
    if raw.startswith(b"hsqs"):
        return "squashfs"
    if raw[_EXT_MAGIC_OFFSET:].startswith(_EXT_MAGIC):
        return "ext4"
    if raw.startswith(_GZIP) and head.startswith(_CPIO_MAGICS):
        return "cpio"
    if raw[510:512] == b"\x55\xaa":
        raise UnknownImage(f"{path} is a disk with partitions; give the root file system alone")
    for magic, complaint in _OTHERS.items():
        if raw.startswith(magic):
            raise UnknownImage(f"{path} {complaint}")
    raise UnknownImage(f"{path} is neither ext4 nor squashfs nor cpio.gz")


def make_disk(path: Path, root: str, log: Path, trees: dict[str, Path] | None = None) -> None:
    """Make the harness's disk for a root file system of this format, with more directories on it."""
    with tempfile.TemporaryDirectory(prefix="harness-", dir=cache.directory()) as work:
        disk = Path(work) / "disk"
        for name in _DIRECTORIES:
            (disk / name).mkdir(parents=True)
        for name, tree in (trees or {}).items():
            rootfs.copy(tree, disk / name)
        shutil.copy(rootfs.busybox(), disk / "busybox")
        shutil.copy(_HARNESS, disk / "init")
        shutil.copy(_AGENT, disk / "qemu-agent")
        (disk / "format").write_text(root + "\n")
        # Compression that every kernel with squashfs can do.
        rootfs.squash(disk, path, log, compression=("gzip",))


def _raw_head(path: Path, size: int = 4096) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise UnknownImage(f"{path}: {error.strerror}") from None


def _head(path: Path, size: int = 4096) -> bytes:
    """The first bytes after decompression by gzip."""
    if _raw_head(path, 2) != _GZIP:
        return _raw_head(path, size)
    try:
        with gzip.open(path) as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error):
        return b""
