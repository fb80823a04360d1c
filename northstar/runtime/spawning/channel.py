# SPDX-License-Identifier: Apache-2.0
"""Sequential-packet sockets: messages with descriptors (unix(7)), and sealed memory to go with them."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket

from northstar.kernel.filesystem import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of close-on-exec sockets that keep message boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors; raises OSError (EMSGSIZE, ETOOMANYREFS, EPIPE).

    EINVAL: more than 253 descriptors.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], rights)


def sealed(name: str, data: bytes, flags: int = 0) -> int:
    """A memfd with this content, which nobody can change any more (memfd_create(2), Linux 3.17).

    `flags` that the kernel does not know are left out. Raises OSError: ENOMEM, ENOSPC, EMFILE.
    """
    known = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(name, known | flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(name, known)
    try:
        write_all(descriptor, data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
