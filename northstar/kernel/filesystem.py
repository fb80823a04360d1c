# SPDX-License-Identifier: Apache-2.0
"""File systems and their devices: type (statfs(2)), nodes, read-ahead, room for files, early writeback."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat

from northstar.kernel.libc import check, encode, error, function

CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
_BLKRASET, _SECTOR = 0x1262, 512
_NO_DRIVER = (errno.ENODEV, errno.ENXIO)


class statfs_buf(ctypes.Structure):
    """struct statfs of 64-bit architectures, 120 bytes; only the type is used."""

    _fields_ = (
        ("f_type", ctypes.c_long),
        ("f_bsize", ctypes.c_long),
        ("f_blocks", ctypes.c_ulong),
        ("f_bfree", ctypes.c_ulong),
        ("f_bavail", ctypes.c_ulong),
        ("f_files", ctypes.c_ulong),
        ("f_ffree", ctypes.c_ulong),
        ("f_fsid", ctypes.c_int * 2),
        ("f_namelen", ctypes.c_long),
        ("f_frsize", ctypes.c_long),
        ("f_flags", ctypes.c_long),
        ("f_spare", ctypes.c_long * 4),
    )


_statfs = function("statfs", ctypes.c_char_p, ctypes.POINTER(statfs_buf))
_fstatfs = function("fstatfs", ctypes.c_int, ctypes.POINTER(statfs_buf))
_sync_file_range = function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_fallocate = function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = function("syncfs", ctypes.c_int)
_SYNC_FILE_RANGE_WRITE = 2
_FALLOC_FL_KEEP_SIZE = 1


def filesystem_type(path: str | bytes | int) -> int:
    """Magic number (`*_MAGIC`) of the file system that holds `path`, or an open descriptor."""
    buffer = statfs_buf()
    if isinstance(path, int):
        check(_fstatfs(path, buffer), "fstatfs", f"descriptor {path}")
    else:
        check(_statfs(encode(path, "statfs"), buffer), "statfs", path)
    return int(buffer.f_type) & 0xFFFFFFFF


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, where write(2) may do a part. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Have the kernel write these bytes of a file to the disk now, without waiting (sync_file_range(2)).

    It promises nothing, an fsync(2) later merely finds less to do. Raises OSError: EIO, ENOSPC, ESPIPE.
    """
    check(_sync_file_range(fd, offset, size, _SYNC_FILE_RANGE_WRITE), "sync_file_range")


def sync_directory(fd: int) -> None:
    """Make permanent which names there are in an open directory (fsync(2)). Blocks. Raises OSError.

    File systems that synchronise no directories (EINVAL: some over a network or of FUSE) are synchronised as
    a whole instead (syncfs(2)).
    """
    try:
        os.fsync(fd)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        check(_syncfs(fd), "syncfs")


def allocate(fd: int, size: int) -> None:
    """Reserve room for the first `size` bytes of a file, which stays as long as it is (fallocate(2)).

    Does nothing on a file system that cannot do that, where posix_fallocate(3) would write. ENOSPC: no room.
    """
    if size and _fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, size) < 0:
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise error("fallocate", code=code)


def syncfs(fd: int) -> None:
    """Write out everything of the file system of an open file (syncfs(2)). EIO: some of it is lost."""
    check(_syncfs(fd), "syncfs")


def make_block_node(path: str | bytes, device: tuple[int, int], mode: int = 0o600) -> None:
    """mknod(2) of a block device node for (major, minor); an equal node that exists is fine.

    EEXIST: something else is there; EPERM: no CAP_MKNOD. On a nodev mount the node cannot be opened.
    """
    _make_node(path, stat.S_IFBLK | mode, os.makedev(*device))


def make_character_node(path: str | bytes, device: tuple[int, int], mode: int = 0o600) -> None:
    """As `make_block_node` for a character device."""
    _make_node(path, stat.S_IFCHR | mode, os.makedev(*device))


def set_read_ahead(device: int, size: int) -> None:
    """BLKRASET: how many bytes the kernel reads around what is asked of a block device, open as `device`.

    EACCES: no CAP_SYS_ADMIN; ENOTTY: no block device.
    """
    fcntl.ioctl(device, _BLKRASET, size // _SECTOR)


def open_control(path: str, node: str | None, device: tuple[int, int], unavailable: str) -> int:
    """Open the control device of a driver: `path` in /dev or, where it has none, a node of our own at `node`.

    ENODEV, with the text `unavailable`: the kernel has no such driver.
    """
    flags, absent = os.O_RDWR | os.O_CLOEXEC, OSError(errno.ENODEV, unavailable, path)
    try:
        return os.open(path, flags)
    except OSError as failure:
        if failure.errno in _NO_DRIVER or (node is None and failure.errno == errno.ENOENT):
            raise absent from None
        if node is None or failure.errno != errno.ENOENT:
            raise
    make_character_node(node, device)
    try:
        return os.open(node, flags)
    except OSError as failure:
        if failure.errno in _NO_DRIVER:
            raise absent from None
        raise


def _make_node(path: str | bytes, mode: int, device: int) -> None:
    try:
        os.mknod(path, mode, device)
    except FileExistsError:
        found = os.lstat(path)
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(mode) or found.st_rdev != device:
            raise
