# SPDX-License-Identifier: Apache-2.0
"""Listening sockets with a name in the file system (unix(7))."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from northstar.kernel import sockets


def bind_unix(path: str, mode: int, *, descriptors: bool = False) -> tuple[socket.socket, str]:
    """A listening socket with a file of this mode, and its name. A stale file is removed.

    `descriptors`: clients may send some. Raises OSError.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o777 & ~mode)
    try:
        if not descriptors:
            sockets.refuse_descriptors(sock)
        sock.bind(path)
        sock.listen(socket.SOMAXCONN)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(previous)
    return sock, path


def stop_listening(sock: socket.socket) -> None:
    """Nobody can connect any more, although the socket is still to be closed."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Without waiting for a listener that does not accept: EAGAIN, there is one.
    probe.setblocking(False)
    with probe, contextlib.suppress(ConnectionRefusedError):
        with contextlib.suppress(BlockingIOError):
            probe.connect(path)
        raise OSError(errno.EADDRINUSE, "another process listens there")
    os.unlink(path)
