# SPDX-License-Identifier: Apache-2.0
"""Who does not want descriptors lets the kernel refuse them, where it can."""

from __future__ import annotations

import array
import errno
import os
import socket

import pytest

from northstar.kernel import sockets
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.eventloop.transport import Transport


def kernel_refuses() -> bool:
    """SO_PASSRIGHTS, Linux 6.16: asked for directly, and not by the code under test."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    return release >= (6, 16)


def send_descriptor(sock: socket.socket) -> int:
    """The errno, 0 if the kernel has taken it."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
    try:
        sock.sendmsg([b"x"], rights)
    except OSError as error:
        return error.errno or -1
    return 0


def test_the_kernel_is_asked() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert sockets.refuse_descriptors(ours) == kernel_refuses()
        assert send_descriptor(theirs) == (errno.EPERM if kernel_refuses() else 0)


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_transport_refuses_what_it_does_not_want(wanted: int) -> None:
    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)
    ours, theirs = socket.socketpair()
    with theirs:
        transport = Transport(loop, ours, wanted)
        refused = kernel_refuses() and not wanted
        assert send_descriptor(theirs) == (errno.EPERM if refused else 0)
        loop.run(transport.close())


def test_sockets_without_descriptors() -> None:
    with socket.socket(socket.AF_INET) as sock:
        assert sockets.refuse_descriptors(sock)
