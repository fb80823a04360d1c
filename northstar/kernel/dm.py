# SPDX-License-Identifier: Apache-2.0
"""Device mapper: verity devices. linux/dm-ioctl.h; the kernel's device-mapper/verity document.

Everything is an ioctl on the control device with `struct dm_ioctl` and, after it, a payload. The
interface version asked for is 4.0.0; nothing newer is used but deferred removal (4.27, Linux 3.13).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from northstar.kernel.filesystem import open_control

DM_VERSION = 0xC138FD00
DM_LIST_DEVICES = 0xC138FD02
DM_DEV_CREATE = 0xC138FD03
DM_DEV_REMOVE = 0xC138FD04
DM_DEV_SUSPEND = 0xC138FD06
DM_DEV_STATUS = 0xC138FD07
DM_TABLE_LOAD = 0xC138FD09
DM_LIST_VERSIONS = 0xC138FD0D

DM_READONLY_FLAG = 1 << 0
DM_BUFFER_FULL_FLAG = 1 << 8
DM_DEFERRED_REMOVE = 1 << 17

DM_NAME_LEN = 128
DM_UUID_LEN = 129
SECTOR_SIZE = 512
BLOCK_SIZE = 4096

_CALLS = {
    DM_VERSION: "DM_VERSION",
    DM_LIST_DEVICES: "DM_LIST_DEVICES",
    DM_DEV_CREATE: "DM_DEV_CREATE",
    DM_DEV_REMOVE: "DM_DEV_REMOVE",
    DM_DEV_SUSPEND: "DM_DEV_SUSPEND",
    DM_DEV_STATUS: "DM_DEV_STATUS",
    DM_TABLE_LOAD: "DM_TABLE_LOAD",
    DM_LIST_VERSIONS: "DM_LIST_VERSIONS",
}

_CONTROL = "/dev/mapper/control"
_CONTROL_DEVICE = (10, 236)
_NO_DEVICE_MAPPER = (
    "the device mapper is not available: the kernel needs CONFIG_BLK_DEV_DM and CONFIG_DM_VERITY"
    " (modules dm_mod, dm_verity)"
)
_NO_VERITY = "the kernel has no verity target: it needs CONFIG_DM_VERITY (module dm_verity)"

# fcntl.ioctl releases the interpreter lock only for arguments up to this size.
_SMALL = 1024
_LARGE = 64 * 1024
_LIMIT = 4 * 1024 * 1024


class dm_ioctl(ctypes.Structure):
    """Head of every argument, 312 bytes."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 3),
        ("data_size", ctypes.c_uint32),
        ("data_start", ctypes.c_uint32),
        ("target_count", ctypes.c_uint32),
        ("open_count", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("event_nr", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("dev", ctypes.c_uint64),
        ("name", ctypes.c_char * DM_NAME_LEN),
        ("uuid", ctypes.c_char * DM_UUID_LEN),
        ("data", ctypes.c_char * 7),
    )


class dm_target_spec(ctypes.Structure):
    """One target of a table, 40 bytes; its NUL-terminated parameters follow. Unit: sectors of 512."""

    _fields_ = (
        ("sector_start", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("status", ctypes.c_int32),
        ("next", ctypes.c_uint32),
        ("target_type", ctypes.c_char * 16),
    )


HEAD = ctypes.sizeof(dm_ioctl)
_SPEC = ctypes.sizeof(dm_target_spec)


class Device:
    """State of a mapped device. `open_count` counts openers including mounts."""

    __slots__ = ("deferred_remove", "device", "flags", "name", "open_count", "uuid")

    def __init__(self, head: dm_ioctl) -> None:
        self.name = os.fsdecode(head.name)
        self.uuid = os.fsdecode(head.uuid)
        self.device = device_number(head.dev)
        self.open_count = int(head.open_count)
        self.flags = int(head.flags)
        self.deferred_remove = bool(head.flags & DM_DEFERRED_REMOVE)


def device_number(dev: int) -> tuple[int, int]:
    """(major, minor) of the kernel's encoded 32-bit device number."""
    return (dev >> 8) & 0xFFF, (dev & 0xFF) | ((dev >> 12) & 0xFFF00)


def verity_parameters(device: str, root_hash: str, salt: bytes, data_blocks: int) -> str:
    """Parameters of a verity target: version 1, sha256, 4096-byte blocks, data and tree on one device.

    The tree begins one block (the superblock) after the data. An empty salt is written "-".
    """
    if len(root_hash) != 64 or not set(root_hash) <= set("0123456789abcdefABCDEF"):
        raise OSError(errno.EINVAL, "verity: the root hash is not 64 hexadecimal digits", root_hash)
    if not 0 < data_blocks < 1 << 50 or len(salt) > 256:
        raise OSError(errno.EINVAL, f"verity: {data_blocks} blocks, {len(salt)} bytes of salt", device)
    if not device or any(char.isspace() or char == "\\" for char in device):
        raise OSError(errno.EINVAL, "verity: device name with blanks", device)
    return (
        f"1 {device} {device} {BLOCK_SIZE} {BLOCK_SIZE} {data_blocks} {data_blocks + 1} "
        f"sha256 {root_hash.lower()} {salt.hex() or '-'}"
    )


def table(target: str, sectors: int, parameters: str) -> bytes:
    """Payload of DM_TABLE_LOAD with one target that fills the device."""
    text = parameters.encode("ascii") + b"\0"
    text += bytes(-len(text) % 8)
    spec = dm_target_spec(0, sectors, 0, _SPEC + len(text), target.encode("ascii"))
    return bytes(spec) + text


class Control:
    """The control device. Its methods may be called from several threads."""

    __slots__ = ("fd",)

    def __init__(self, node_dir: str | None = None) -> None:
        """Open the control device; in `node_dir` a node is made where /dev/mapper has none.

        ENODEV: kernel without device mapper, EPERM/EACCES: not root.
        """
        node = None if node_dir is None else f"{node_dir}/dm-control"
        self.fd = open_control(_CONTROL, node, _CONTROL_DEVICE, _NO_DEVICE_MAPPER)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def version(self) -> tuple[int, int, int]:
        """Version of the kernel's interface."""
        head, _ = self._call(DM_VERSION)
        return (head.version[0], head.version[1], head.version[2])

    def create_verity(
        self, name: str, uuid: str, device: str, root_hash: str, salt: bytes, data_blocks: int
    ) -> tuple[int, int]:
        """Make and activate a read-only verity device; its (major, minor).

        `device` is "major:minor" (no node needed) or a path, and holds `data_blocks` blocks of data, the
        superblock and the hash tree. Nothing is read from it yet, so a wrong root hash shows up as EIO
        on the first read. EBUSY: name or uuid taken, or the device is in use; EINVAL: parameters refused,
        the kernel log says why; ENOTSUP: no verity target. On any failure nothing stays behind.
        """
        payload = table(
            "verity",
            data_blocks * (BLOCK_SIZE // SECTOR_SIZE),
            verity_parameters(device, root_hash, salt, data_blocks),
        )
        head, _ = self._call(DM_DEV_CREATE, name, uuid=uuid)
        try:
            self._load(name, payload)
            self._call(DM_DEV_SUSPEND, name)  # without the suspend flag: resume, activates the table
        except BaseException:
            self._discard(name)
            raise
        return device_number(head.dev)

    def _discard(self, name: str) -> bool:
        """Remove a half-made device; a failure must not hide the error that led here."""
        try:
            self.remove(name)
        except OSError:
            return False
        return True

    def _load(self, name: str, payload: bytes) -> None:
        try:
            self._call(DM_TABLE_LOAD, name, flags=DM_READONLY_FLAG, payload=payload, targets=1)
        except OSError as failure:
            if failure.errno == errno.EINVAL and "verity" not in self.targets():
                raise OSError(errno.ENOTSUP, _NO_VERITY, name) from None
            raise

    def remove(self, name: str, deferred: bool = True) -> None:
        """Remove a device; if it is open and `deferred` is set, as soon as it no longer is.

        ENXIO: no such device; EBUSY: open and not deferred.
        """
        self._call(DM_DEV_REMOVE, name, flags=DM_DEFERRED_REMOVE if deferred else 0)

    def status(self, name: str) -> Device:
        """State of the device. ENXIO: no such device."""
        head, _ = self._call(DM_DEV_STATUS, name)
        return Device(head)

    def list_devices(self) -> list[tuple[str, tuple[int, int]]]:
        """(name, (major, minor)) of every mapped device of the system."""
        _, data = self._call(DM_LIST_DEVICES, size=_LARGE)
        return parse_names(data)

    def targets(self) -> frozenset[str]:
        """Target types registered now; one built as a module appears only once it is loaded."""
        _, data = self._call(DM_LIST_VERSIONS, size=_LARGE)
        return parse_targets(data)

    def _call(
        self,
        request: int,
        name: str = "",
        *,
        uuid: str = "",
        flags: int = 0,
        payload: bytes = b"",
        targets: int = 0,
        size: int = _SMALL,
    ) -> tuple[dm_ioctl, bytes]:
        """One ioctl; the head as changed by the kernel and the payload that came back."""
        what = _CALLS[request]
        size = max(size, HEAD + len(payload))
        while True:
            buffer = message(name, uuid, flags, payload, targets, size)
            try:
                fcntl.ioctl(self.fd, request, buffer, True)
            except OSError as failure:
                code = failure.errno or errno.EIO
                raise OSError(code, f"{what}: {os.strerror(code)}", name or _CONTROL) from None
            head = dm_ioctl.from_buffer_copy(buffer)
            if not head.flags & DM_BUFFER_FULL_FLAG:
                end = max(head.data_start, min(head.data_size, size))
                return head, bytes(buffer[head.data_start : end])
            size *= 2
            if size > _LIMIT:
                raise OSError(errno.EMSGSIZE, f"{what}: answer too long", name or _CONTROL)


def message(name: str, uuid: str, flags: int, payload: bytes, targets: int, size: int) -> bytearray:
    """An ioctl argument of `size` bytes. ENAMETOOLONG: name or uuid."""
    head = dm_ioctl()
    head.version[0] = 4
    head.data_size = size
    head.data_start = HEAD
    head.target_count = targets
    head.flags = flags
    for field, text, limit in (("name", name, DM_NAME_LEN), ("uuid", uuid, DM_UUID_LEN)):
        data = os.fsencode(text)
        if len(data) >= limit:
            raise OSError(errno.ENAMETOOLONG, f"device mapper: {field} too long", text)
        setattr(head, field, data)
    buffer = bytearray(size)
    buffer[:HEAD] = bytes(head)
    buffer[HEAD : HEAD + len(payload)] = payload
    return buffer


def parse_names(data: bytes) -> list[tuple[str, tuple[int, int]]]:
    """The `dm_name_list` records of DM_LIST_DEVICES."""
    result = []
    position = 0
    while position + 12 < len(data):
        dev, step = struct.unpack_from("=QI", data, position)
        if dev == 0:  # no device at all
            break
        name = data[position + 12 :].partition(b"\0")[0]
        result.append((os.fsdecode(name), device_number(dev)))
        if step == 0:
            break
        position += step
    return result


def parse_targets(data: bytes) -> frozenset[str]:
    """Names in the `dm_target_versions` records of DM_LIST_VERSIONS."""
    result = set()
    position = 0
    while position + 16 < len(data):
        (step,) = struct.unpack_from("=I", data, position)
        result.add(os.fsdecode(data[position + 16 :].partition(b"\0")[0]))
        if step == 0:
            break
        position += step
    return frozenset(result)
