# SPDX-License-Identifier: Apache-2.0
"""Errors of dm-verity, as the kernel tells them: uevents of mapped devices on a netlink socket.

For each corrupted block, up to a hundred per device, dm-verity sends a uevent `change` of the device with
DM_VERITY_ERR_BLOCK_NR=TYPE,BLOCK (drivers/md/dm-verity-target.c, since Linux 4.1). A filter keeps all other
uevents away, so that nobody is woken by them.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

Corruption = tuple[tuple[int, int], int]
"""Device, (major, minor), and the number of a block that does not fit to its hash."""

MAX_SIZE = 8192
"""Bytes of a uevent (UEVENT_BUFFER_SIZE is 2048)."""

_NETLINK_KOBJECT_UEVENT = 15
_GROUP_KERNEL = 1
_SOL_SOCKET, _SO_ATTACH_FILTER = 1, 26
_PREFIX = b"change@/devices/virtual/block/dm"  # whole words, as a filter compares these
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALL = 0xFFFFFFFF
_VARIABLE = b"DM_VERITY_ERR_BLOCK_NR"


def listen() -> socket.socket:
    """A non-blocking socket on which errors arrive. Raises OSError."""
    import socket

    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    listener = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
    try:
        attach_filter(listener)
        listener.bind((0, _GROUP_KERNEL))
    except BaseException:
        listener.close()
        raise
    return listener


def attach_filter(sock: socket.socket) -> None:
    """Let datagrams in only if they are changes of mapped devices (SO_ATTACH_FILTER in socket(7))."""
    words = [_PREFIX[at : at + 4] for at in range(0, len(_PREFIX), 4)]
    code = b""
    for number, word in enumerate(words):
        code += struct.pack("=HBBI", _LOAD_WORD, 0, 0, 4 * number)
        # Over the rest, to the last instruction.
        otherwise = 2 * (len(words) - number) - 1
        code += struct.pack("=HBBI", _JUMP_EQUAL, 0, otherwise, int.from_bytes(word, "big"))
    code += struct.pack("=HBBI", _RETURN, 0, 0, _ALL) + struct.pack("=HBBI", _RETURN, 0, 0, 0)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(
        _SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    )


def receive(sock: socket.socket) -> Corruption | None:
    """The next error; None if what has arrived is none. Raises BlockingIOError, or OSError (ENOBUFS)."""
    data, sender = sock.recvfrom(MAX_SIZE)
    # Processes with CAP_NET_ADMIN can send, too, but not as the kernel does.
    return parse(data) if not sender or sender[0] == 0 else None


def parse(data: bytes) -> Corruption | None:
    """The error that a uevent tells, None if it tells another thing."""
    variables = dict(line.partition(b"=")[::2] for line in data.split(b"\0"))
    try:
        block = int(variables[_VARIABLE].partition(b",")[2])
        return (int(variables[b"MAJOR"]), int(variables[b"MINOR"])), block
    except (KeyError, ValueError):
        return None


def device_of(path: str) -> tuple[int, int]:
    """The block device, (major, minor), of the file system that holds a path. Raises OSError."""
    number = os.stat(path).st_dev
    return os.major(number), os.minor(number)
