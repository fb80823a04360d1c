# SPDX-License-Identifier: Apache-2.0
"""The forker: single-threaded, collector off, started before the daemon's code is imported.

On order of the daemon it forks an init, waits for a dead one, or enters the daemon's mount namespace. The
daemon gets a socket to each init and gives it the plan itself; it has an init forked in advance, in its
new namespaces, so that fork and network namespace are no part of a start.

A pid namespace is entered by children only, so the forker unshares, forks and returns to its own
namespace (setns(2)); this saves the intermediate process that is needed otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket

from northstar.forker import init, messages
from northstar.kernel import namespaces, prctl, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Forker:
    """Serves the daemon's orders."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def serve(self) -> None:
        """Until the daemon is gone; the parent death signal then ends all inits."""
        while True:
            data, descriptors = messages.receive(self._orders, messages.MAX_REPORT)
            if not data:
                return
            kind, number = messages.decode_order(data)
            if kind == messages.FORK:
                self._fork()
            elif kind == messages.REAP:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(number, 0)
            elif kind == messages.ENTER:
                namespaces.setns(descriptors[0], namespaces.CLONE_NEWNS)
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self) -> None:
        """Fork an init; the daemon gets its pid, its pidfd and a socket to it, or a negative errno."""
        ours, theirs = messages.channel()
        with ours, theirs:
            try:
                pid = self._fork_init(theirs)
                pidfd = process.pidfd_open(pid)
            except OSError as error:
                messages.send(self._orders, messages.encode_reply(-(error.errno or 1)))
                return
            messages.send(self._orders, messages.encode_reply(pid), [pidfd, ours.fileno()])
            os.close(pidfd)

    def _fork_init(self, orders: socket.socket) -> int:
        namespaces.unshare(namespaces.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                init.main(orders)
        finally:
            namespaces.setns(self._own_pid_namespace, namespaces.CLONE_NEWPID)
        return pid


def main(orders: socket.socket) -> NoReturn:
    """Be the forker; does not return."""
    gc.disable()
    gc.freeze()
    prctl.set_name("northstar-fork")
    prctl.set_parent_death_signal(signal.SIGKILL)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    # A Ctrl-C on the terminal is meant for the daemon, which ends the containers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    Forker(orders).serve()
    os._exit(0)
