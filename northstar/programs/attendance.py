# SPDX-License-Identifier: Apache-2.0
"""What the parent of a container's program does: learn that it executes, wait for its end, report both.

Parent and child hold the ends of a socket pair, the link. The child's is closed by its execve, or by its
end. Why it failed stands on the board, a page that both share: the child stores it there itself, as a filter
may have taken every system call from it.
"""

from __future__ import annotations

import errno
import os
import socket

from northstar.engine import instructions as isa
from northstar.engine.assembler import Label
from northstar.kernel import prctl, process
from northstar.programs import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Program, Register

RUNNING = ord("R")
"""The application executes."""
EXITED = ord("X")
"""It has ended; the value is its wait status."""

APPLICATION = 2
"""Pid of the application in its namespace: init makes no other child."""
NOT_EXECUTED = 127
_OURS = isa.CHANNEL + 1


class Link:
    """The socket pair between parent and child."""

    def __init__(self, p: Program) -> None:
        """Make it, before the child is cloned."""
        p.purpose = "make a socket pair"
        pair = p.reserve(8)
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
        p.call("socketpair", int(socket.AF_UNIX), int(kind), 0, pair)
        self._ours = p.load(pair, of="ours")
        self.theirs = p.load(pair + 4, of="theirs")
        """The child's end."""

    def keep(self, p: Program) -> None:
        """Close everything in the parent but the channel and its end of the link."""
        p.purpose = "close descriptors"
        # EINVAL: it already has that number.
        p.call("dup3", self._ours, _OURS, os.O_CLOEXEC, tolerate=errno.EINVAL)
        p.call("close_range", _OURS + 1, process.MAX_FD, 0)

    def release(self, p: Program) -> None:
        """Let the child execute, and wait until it has done so or has ended."""
        # EPIPE: it has failed before, and has said why.
        p.call("write", _OURS, p.text("r"), 1, tolerate=errno.EPIPE)
        self.wait(p)

    def wait(self, p: Program) -> None:
        """Wait until the child has executed or ended, and close the link."""
        # ECONNRESET: it has ended without reading.
        p.call("read", _OURS, p.reserve(8), 1, tolerate=errno.ECONNRESET)
        p.call("close", _OURS)
        p.require(p.load(isa.BOARD_ADDRESS, of="failure"), 0, errno.ECANCELED)


def confirm(p: Program, pid: Register, group: int) -> None:
    """Fail unless the child has executed a program, and report that it has.

    A child that has not may still be put into a process group, even one that has ended; here the one it is
    in already. After execve that is EACCES (setpgid(2)), and EPERM after a setsid(2) of the application.
    """
    executed = Label()
    attempt = p.value("setpgid", pid, group, of="attempt", tolerate=isa.ANY_ERROR)
    p.jump_if_negative(attempt, executed)
    p.purpose += ": the process has ended before"
    p.require(0, 1, isa.NO_ERRNO)
    p.place(executed)
    p.purpose = "report"
    control.report(p, RUNNING)


def tell_end(p: Program, status: Register) -> None:
    """Report the end and end as well: the kernel then ends whatever is left in the namespace."""
    p.purpose = "report"
    control.report(p, EXITED, status)
    p.call("exit_group", 0)


def fail(p: Program, failed: Label) -> None:
    """Where the parent goes on after a failure: report the one that is on the board."""
    p.place(failed)
    p.call("write", isa.CHANNEL, isa.BOARD_ADDRESS, isa.REPORT.size)
    p.call("exit_group", 1)


def name_process(p: Program, name: str) -> None:
    """PR_SET_NAME; the kernel keeps 15 bytes."""
    p.purpose = "name the process"
    p.call("prctl", prctl.PR_SET_NAME, name.encode()[:15])
