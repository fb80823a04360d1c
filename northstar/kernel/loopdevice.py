# SPDX-License-Identifier: Apache-2.0
"""Loop devices: a block device that shows a part of a file. linux/loop.h, loop(4).

Every device is attached with one LOOP_CONFIGURE call (Linux 5.8), so that there is no moment at
which it shows the wrong part of the file. All are read-only and clear themselves (autoclear) when
the last user - descriptor, mount or device mapper table - lets go.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import time

from northstar.kernel.filesystem import make_block_node, open_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOOP_CLR_FD = 0x4C01
LOOP_GET_STATUS64 = 0x4C05
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4

LO_NAME_SIZE = 64
LOOP_MAJOR = 7
BLOCK_SIZE = 4096

_CONTROL = "/dev/loop-control"
_CONTROL_DEVICE = (10, 237)
_UNAVAILABLE = "loop devices are not available: the kernel needs CONFIG_BLK_DEV_LOOP (module loop)"

# Another process was faster, or removed the device meanwhile: take a new number.
_RETRY = frozenset((errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ENOENT, errno.ENXIO, errno.ENODEV))
_PAUSES = (0.0, 0.001, 0.002, 0.005, 0.01)


class loop_info64(ctypes.Structure):
    """Parameters of a loop device, 232 bytes."""

    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_uint8 * LO_NAME_SIZE),
        ("lo_crypt_name", ctypes.c_uint8 * LO_NAME_SIZE),
        ("lo_encrypt_key", ctypes.c_uint8 * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class loop_config(ctypes.Structure):
    """Argument of LOOP_CONFIGURE, 304 bytes."""

    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", loop_info64),
        ("reserved", ctypes.c_uint64 * 8),
    )


class Loop:
    """An attached loop device. It goes away when `fd` is closed, unless a mount or table holds it then."""

    __slots__ = ("device", "fd", "number", "path")

    def __init__(self, fd: int, number: int, path: str, device: tuple[int, int]) -> None:
        self.fd = fd
        self.number = number
        self.path = path
        """A node of the device."""
        self.device = device
        """(major, minor)"""

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class Status:
    """What LOOP_GET_STATUS64 tells. `tag` is the text given at attach, `size` 0 means up to the end."""

    __slots__ = ("flags", "number", "offset", "size", "tag")

    def __init__(self, info: loop_info64) -> None:
        self.number = int(info.lo_number)
        self.offset = int(info.lo_offset)
        self.size = int(info.lo_sizelimit)
        self.flags = int(info.lo_flags)
        self.tag = bytes(info.lo_file_name).partition(b"\0")[0].decode("utf-8", "replace")


def attach(fd: int, offset: int, size: int, *, timeout: float, tag: str, node_dir: str | None = None) -> Loop:
    """Show `size` bytes from `offset` of the file `fd` on a free loop device, read-only.

    `tag` (first 63 bytes count) can be read back by `status`. A number that another process takes first
    is given up for a new one, until `timeout` seconds have passed: ETIMEDOUT. In `node_dir`, a directory
    on a file system without nodev, nodes are made that are missing in /dev. The block size is 4096 if
    offset and size are multiples of it. EPERM, ENOSPC and the like are raised at once; ENODEV: kernel
    without loop devices; EINVAL: not a file that can be attached, or Linux before 5.8.
    """
    deadline = time.monotonic() + timeout
    control = _open_control(node_dir)
    try:
        attempt = 0
        while True:
            try:
                return _attach_once(control, fd, offset, size, tag, node_dir)
            except OSError as failure:
                if failure.errno not in _RETRY:
                    raise
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    text = f"no free loop device within {timeout:g} s (last: {failure.strerror})"
                    raise OSError(errno.ETIMEDOUT, text, failure.filename) from None
            time.sleep(min(_PAUSES[min(attempt, len(_PAUSES) - 1)], remaining))
            attempt += 1
    finally:
        os.close(control)


def _attach_once(control: int, fd: int, offset: int, size: int, tag: str, node_dir: str | None) -> Loop:
    number = _get_free(control)
    device_fd, path = _open_device(number, node_dir)
    try:
        _configure(device_fd, path, fd, offset, size, tag)
        rdev = os.fstat(device_fd).st_rdev
        return Loop(device_fd, number, path, (os.major(rdev), os.minor(rdev)))
    except BaseException:
        os.close(device_fd)  # what was attached clears itself
        raise


def probe(node_dir: str | None = None) -> None:
    """Raise the OSError that `attach` would meet first: no loop devices (ENODEV), not root (EACCES)."""
    os.close(_open_control(node_dir))


def _get_free(control: int) -> int:
    try:
        return fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    except OSError as failure:
        code = failure.errno or errno.EIO
        raise OSError(code, f"LOOP_CTL_GET_FREE: {os.strerror(code)}", _CONTROL) from None


def _open_control(node_dir: str | None) -> int:
    node = None if node_dir is None else f"{node_dir}/loop-control"
    return open_control(_CONTROL, node, _CONTROL_DEVICE, _UNAVAILABLE)


def _open_device(number: int, node_dir: str | None) -> tuple[int, str]:
    """Open loop device `number` for reading; nobody can write through a device attached that way."""
    path = f"/dev/loop{number}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if node_dir is None:
            raise
        path = f"{node_dir}/loop{number}"
        make_block_node(path, _sysfs_device(number))
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISBLK(found.st_mode) or os.major(found.st_rdev) != LOOP_MAJOR:
        os.close(fd)
        raise OSError(errno.ENOTBLK, "not a loop device", path)
    return fd, path


def _sysfs_device(number: int) -> tuple[int, int]:
    with open(f"/sys/block/loop{number}/dev", encoding="ascii") as file:
        major, _, minor = file.read().strip().partition(":")
    return int(major), int(minor)


def configuration(fd: int, offset: int, size: int, tag: str) -> loop_config:
    """The LOOP_CONFIGURE argument for `attach`."""
    config = loop_config()
    config.fd = fd
    config.block_size = BLOCK_SIZE if offset % BLOCK_SIZE == 0 and size % BLOCK_SIZE == 0 else 0
    config.info.lo_offset = offset
    config.info.lo_sizelimit = size
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR
    name = tag.encode("utf-8", "surrogateescape")[: LO_NAME_SIZE - 1]
    config.info.lo_file_name[: len(name)] = name
    return config


def _configure(device_fd: int, path: str, fd: int, offset: int, size: int, tag: str) -> None:
    config = configuration(fd, offset, size, tag)
    try:
        fcntl.ioctl(device_fd, LOOP_CONFIGURE, bytes(config))
    except OSError as failure:
        code = failure.errno or errno.EIO
        raise OSError(code, f"LOOP_CONFIGURE: {os.strerror(code)}", path) from None
    found = status(device_fd, path)
    wanted = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR
    if (found.flags & wanted, found.offset, found.size) != (wanted, offset, size):
        raise OSError(errno.EIO, "LOOP_CONFIGURE: the kernel did not take over all parameters", path)


def status(fd: int, path: str | None = None) -> Status:
    """LOOP_GET_STATUS64 of an open loop device. ENXIO: nothing attached."""
    buffer = bytearray(ctypes.sizeof(loop_info64))
    try:
        fcntl.ioctl(fd, LOOP_GET_STATUS64, buffer, True)
    except OSError as failure:
        code = failure.errno or errno.EIO
        raise OSError(code, f"LOOP_GET_STATUS64: {os.strerror(code)}", path) from None
    return Status(loop_info64.from_buffer(buffer))


def detach(fd: int, path: str | None = None) -> None:
    """LOOP_CLR_FD: detach when the last user lets go (at once if there is no other). ENXIO: not attached.

    Never for a device that was not attached by us: check the tag first.
    """
    try:
        fcntl.ioctl(fd, LOOP_CLR_FD)
    except OSError as failure:
        code = failure.errno or errno.EIO
        raise OSError(code, f"LOOP_CLR_FD: {os.strerror(code)}", path) from None


def devices(sys_block: str = "/sys/block") -> Iterator[tuple[int, str]]:
    """(number, backing file) of every attached loop device.

    The kernel appends " (deleted)" to the name of a file that has none any more; a memfd is shown as
    "/memfd:name (deleted)".
    """
    for name in sorted(os.listdir(sys_block)):
        if not (name.startswith("loop") and name[4:].isdigit()):
            continue
        try:
            with open(f"{sys_block}/{name}/loop/backing_file", "rb") as file:
                yield int(name[4:]), os.fsdecode(file.read().rstrip(b"\n"))
        except OSError as error:
            # Not attached, or detached meanwhile.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO):
                raise


def open_device(number: int, node_dir: str | None = None) -> int:
    """Descriptor (read-only) of loop device `number`, for `status` and `detach`."""
    return _open_device(number, node_dir)[0]
