# SPDX-License-Identifier: Apache-2.0
"""File systems of the kinds that people have below a repository, made for a test and gone after it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nfs
import pytest
from isolated import wait_until

from northstar.kernel import mount

SIZE = 32 << 20
BLOCK2MTD = Path("/sys/module/block2mtd/parameters/block2mtd")
MTD = Path("/sys/class/mtd")
_UBI_IOCATT, _UBI_IOCDET, _UBI_IOCMKVOL = 0x40186F40, 0x40046F41, 0x40986F00
_ATTACH = struct.Struct("<iiih10x")
_VOLUME = struct.Struct("<iiqbBh4x128s")
_DYNAMIC = 3


class Flash(NamedTuple):
    """A device of raw flash, by its number."""

    number: int


class Kind(NamedTuple):
    """A kind of file system. `mounted` gets a directory to make it in."""

    name: str
    mounted: Callable[[Path], contextlib.AbstractContextManager[Path]]
    takes_colons: bool = True
    may_be_full: bool = True
    """exfat-fuse 1.3.0 aborts."""


@contextmanager
def _loop_device(image: Path) -> Iterator[str]:
    """A writable loop device (ours for packages are read-only)."""
    done = subprocess.run(["losetup", "-f"], check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    subprocess.run(["losetup", device, str(image)], check=True)
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@contextmanager
def _mounted(source: str, target: Path, kind: str, options: str = "") -> Iterator[Path]:
    """Mounted as mount(8) would do it."""
    _needs_kernel(kind)
    target.mkdir(exist_ok=True)
    words = ["mount", "-t", kind, *(["-o", options] if options else []), source, str(target)]
    subprocess.run(words, check=True)
    try:
        yield target
    finally:
        _umount(target)


def _umount(target: Path) -> None:
    """A loop device may be let go of a moment after its last user."""
    for _ in range(100):
        if subprocess.run(["umount", str(target)], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    mount.umount(str(target), mount.MNT_DETACH)
    pytest.fail(f"{target} is in use")


def _needs_kernel(kind: str) -> None:
    """Skip if the kernel does not know the file system, not even as a module."""
    try:
        os.close(mount.fsopen(kind))
    except OSError as failure:
        pytest.skip(f"the kernel has no {kind} ({failure.strerror})")


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"):
            return found
    pytest.skip(f"{' or '.join(names)} is not installed")


@contextmanager
def _on_disk(base: Path, kind: str, format_command: list[str], options: str = "") -> Iterator[Path]:
    image = base / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([*format_command, str(image)], check=True, capture_output=True)
    with _loop_device(image) as device, _mounted(device, base / kind, kind, options) as target:
        yield target


@contextmanager
def vfat(base: Path) -> Iterator[Path]:
    """FAT with long names, as on boot partitions and sticks."""
    _needs_kernel("vfat")
    with _on_disk(base, "vfat", [_program("mkfs.vfat", "mkdosfs")]) as target:
        yield target


@contextmanager
def exfat_fuse(base: Path) -> Iterator[Path]:
    """exFAT by FUSE: another set of errors for names that it does not take."""
    with served_by_fuse(base) as (target, _):
        yield target


@contextmanager
def served_by_fuse(base: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The same, and the process that serves it."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("the kernel has no FUSE")
    format_command, program = [_program("mkfs.exfat")], _program("mount.exfat-fuse")
    image, target = base / "exfat.img", base / "exfat"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([*format_command, str(image)], check=True, capture_output=True)
    target.mkdir()
    with _loop_device(image) as device, _served([program, "-d", device, str(target)], target) as server:
        yield target, server


@contextmanager
def passed_through(base: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A directory seen through FUSE, with owners, modes and sockets; and the process that serves it."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("the kernel has no FUSE")
    program = _program("bindfs")
    source, target = base / "source", base / "passed"
    source.mkdir()
    target.mkdir()
    with _served([program, "-f", str(source), str(target)], target) as server:
        yield target, server


@contextmanager
def _served(command: list[str], target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Mounted by a process in the foreground, so that it is a child of ours."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.ismount(target), f"{target} is mounted")
        yield server
    finally:
        # A server that has died leaves its mount.
        _umount(target)
        server.wait(10)


@contextmanager
def ext4(base: Path) -> Iterator[Path]:
    """The usual one."""
    _needs_kernel("ext4")
    with _on_disk(base, "ext4", [_program("mkfs.ext4", "mke2fs"), "-F"]) as target:
        yield target


@contextmanager
def tmpfs(base: Path) -> Iterator[Path]:
    """In memory."""
    with _mounted("tmpfs", base / "tmpfs", "tmpfs", f"size={SIZE}") as target:
        yield target


@contextmanager
def overlay(base: Path) -> Iterator[Path]:
    """An overlay of a tmpfs on a directory, as on systems with a read-only root."""
    with tmpfs(base) as writable:
        for name in ("upper", "work"):
            (writable / name).mkdir()
        lower = base / "lower"
        lower.mkdir()
        options = f"lowerdir={lower},upperdir={writable}/upper,workdir={writable}/work"
        with _mounted("overlay", base / "overlay", "overlay", options) as target:
            yield target


@contextmanager
def nfs_of(base: Path, flags: int = 0) -> Iterator[tuple[Path, Path]]:
    """A directory through NFS, from this machine to itself: as it is mounted, and as the server has it."""
    _needs_kernel("nfs4")
    _needs_kernel("nfsd")
    with tmpfs(base) as disk, _mounted("nfsd", nfs.SERVER, "nfsd"):
        served, clients = disk / "served", disk / "clients"
        served.mkdir()
        clients.mkdir()
        with (
            nfs.exported(served, clients, flags),
            _mounted(f"{nfs.ADDRESS}:/", base / "nfs", "nfs4", nfs.MOUNT_OPTIONS) as target,
        ):
            yield target, served


@contextmanager
def nfs_mount(base: Path) -> Iterator[Path]:
    """NFS: what is removed while it is open gets another name, and errors of writing come late."""
    with nfs_of(base) as (target, _):
        yield target


def make_flash(base: Path) -> Flash:
    """Raw flash that is erased: block2mtd makes it of a loop device, which it never lets go of again."""
    if not BLOCK2MTD.exists():
        pytest.skip("the kernel has no block2mtd, which makes flash for UBIFS")
    image = base / "flash.img"
    image.write_bytes(b"\xff" * SIZE)
    before = set(MTD.glob("mtd*"))
    with _loop_device(image) as device:
        # It takes hold of the device, which stays attached for that reason.
        BLOCK2MTD.write_text(f"{device},131072")
    made = min(set(MTD.glob("mtd*")) - before, key=lambda path: len(path.name))
    return Flash(int(made.name.removeprefix("mtd")))


@contextmanager
def ubifs(base: Path, flash: Flash) -> Iterator[Path]:
    """The file system of raw flash; the kernel formats an empty volume when it is mounted."""
    with _ubi_volume(flash) as volume, _mounted(volume, base / "ubifs", "ubifs") as target:
        yield target


@contextmanager
def _ubi_volume(flash: Flash) -> Iterator[str]:
    """All of the flash as one volume (mtd/ubi-user.h)."""
    with open("/dev/ubi_ctrl", "rb") as control:
        attach = bytearray(_ATTACH.pack(-1, flash.number, 0, 0))
        fcntl.ioctl(control, _UBI_IOCATT, attach, True)
        number = _ATTACH.unpack(attach)[0]
        try:
            with open(f"/dev/ubi{number}", "rb") as ubi:
                size = int(Path(f"/sys/class/ubi/ubi{number}/avail_eraseblocks").read_text())
                size *= int(Path(f"/sys/class/ubi/ubi{number}/eraseblock_size").read_text())
                fcntl.ioctl(ubi, _UBI_IOCMKVOL, _VOLUME.pack(-1, 1, size, _DYNAMIC, 0, 4, b"data"))
            yield f"ubi{number}:data"
        finally:
            fcntl.ioctl(control, _UBI_IOCDET, struct.pack("<i", number))


KINDS = (
    Kind("ext4", ext4),
    Kind("tmpfs", tmpfs),
    Kind("overlay", overlay),
    Kind("vfat", vfat, takes_colons=False),
    Kind("nfs", nfs_mount),
    Kind("exfat-fuse", exfat_fuse, takes_colons=False, may_be_full=False),
)
