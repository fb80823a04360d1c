# SPDX-License-Identifier: Apache-2.0
"""Descriptors that come along on unix sockets: unix(7), SCM_RIGHTS.

A descriptor that nobody takes is closed by the kernel within recv(2) or close(2) of the socket, in the
thread of the receiver, and the last close of a file may take seconds: a lingering TCP connection, a big
memfd, a file system of somebody's making. Who serves others in that thread must refuse them, or look before
it reads.
"""

from __future__ import annotations

import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

MAX_DESCRIPTORS = 253
"""As many as one message can carry (SCM_MAX_FD)."""

_AF_UNIX = 1
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_SCM_CREDENTIALS = 2
_SO_PASSRIGHTS = 83
_MSG_PEEK = 0x2
_MSG_CTRUNC = 0x8
_MSG_TRUNC = 0x20
_MSG_DONTWAIT = 0x40
_MSG_CMSG_CLOEXEC = 0x40000000
_INT = 4
_ROOM = 16 + _INT * (MAX_DESCRIPTORS + 1)
_CREDENTIALS = struct.Struct("3i")
_ROOM_FOR_CREDENTIALS = 16 + 16


def refuse_descriptors(sock: socket) -> bool:
    """Let nobody send descriptors to this socket (SO_PASSRIGHTS, Linux 6.16), nor to those that it accepts.

    Their sendmsg(2) is EPERM from now on. False if the kernel cannot do that; True for other sockets than
    unix ones, which carry none.
    """
    if sock.family != _AF_UNIX:
        return True
    try:
        sock.setsockopt(_SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError as failure:
        if failure.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return False
    return True


def peek(sock: socket, size: int) -> tuple[int, bool]:
    """How many bytes are there, up to `size`, and whether descriptors come with one of them.

    If not, recv(2) of this number meets none. Never waits: EAGAIN.
    """
    data, _, flags, _ = sock.recvmsg(size, 0, _MSG_PEEK | _MSG_DONTWAIT)
    return len(data), bool(flags & _MSG_CTRUNC)


def receive(sock: socket, size: int) -> tuple[bytes, list[int]]:
    """Bytes and the descriptors that come with them, close-on-exec. Never waits: EAGAIN.

    Those for which this process has no room are closed by the kernel, so it may block nevertheless.
    """
    data, ancillary, _, _ = sock.recvmsg(size, _ROOM, _MSG_CMSG_CLOEXEC | _MSG_DONTWAIT)
    return data, _rights(ancillary)


def _rights(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors among ancillary data (SCM_RIGHTS, unix(7))."""
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            number = len(payload) // _INT
            descriptors += struct.unpack(f"{number}i", payload[: number * _INT])
    return descriptors


class Datagram:
    """What one recvmsg(2) of a datagram socket gives.

    `truncated`: data or descriptors are missing. `pid` and `uid` are the sender's; 0 and -1 if it does not
    tell (SO_PASSCRED), or cannot be seen from here.
    """

    __slots__ = ("data", "descriptors", "pid", "truncated", "uid")

    def __init__(self, data: bytes, descriptors: list[int], truncated: bool, pid: int, uid: int) -> None:
        self.data = data
        self.descriptors = descriptors
        self.truncated = truncated
        self.pid = pid
        self.uid = uid


def receive_datagram(sock: socket, size: int) -> Datagram:
    """The next datagram, with the descriptors that come along, close-on-exec. Never waits: EAGAIN."""
    room = _ROOM + _ROOM_FOR_CREDENTIALS
    data, ancillary, flags, _ = sock.recvmsg(size, room, _MSG_CMSG_CLOEXEC | _MSG_DONTWAIT)
    descriptors = _rights(ancillary)
    pid, uid = 0, -1
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_CREDENTIALS and len(payload) >= _CREDENTIALS.size:
            pid, uid, _ = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
    return Datagram(data, descriptors, bool(flags & (_MSG_CTRUNC | _MSG_TRUNC)), pid, uid)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors, whatever their closing tells. May block."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            continue
