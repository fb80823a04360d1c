# SPDX-License-Identifier: Apache-2.0
"""The forker: single-threaded, collector off, started before the daemon's code is imported.

On order of the daemon it starts an init, waits for a dead one, or enters the daemon's mount namespace.
One init is forked in advance, inside its new namespaces, and waits for a plan: this takes fork and
network namespace, together a third of the time, out of a start. The daemon says when, so that the work
for the next start does not compete with the one at hand.

A pid namespace is entered by children only, so the forker unshares, forks and returns to its own
namespace (setns(2)); this saves the intermediate process that is needed otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket

from northstar.forker import init, messages
from northstar.kernel import namespaces, prctl, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Spare:
    """An init that waits for its plan."""

    __slots__ = ("orders", "pid", "pidfd")

    def __init__(self, orders: socket.socket, pid: int) -> None:
        self.orders = orders
        self.pid = pid
        self.pidfd = process.pidfd_open(pid)

    def close(self) -> None:
        """Close our descriptors; a spare without a plan ends then."""
        self.orders.close()
        os.close(self.pidfd)


class Forker:
    """Serves the daemon's orders."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._spare: Spare | None = None
        self._idle = select.poll()
        self._idle.register(orders, select.POLLIN)

    def serve(self) -> None:
        """Until the daemon is gone; the parent death signal then ends all inits."""
        while True:
            data, descriptors = messages.receive(self._orders)
            if not data:
                return
            kind, number = messages.order_kind(data)
            if kind == messages.START:
                self._start(data, descriptors)
            elif kind == messages.REAP:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(number, 0)
            elif kind == messages.ENTER:
                namespaces.setns(descriptors[0], namespaces.CLONE_NEWNS)
            elif kind == messages.PREPARE:
                self._prepare()
            for descriptor in descriptors:
                os.close(descriptor)

    def _prepare(self) -> None:
        """Fork the next init, unless there is one or another order waits."""
        if self._spare is None and not self._idle.poll(0):
            with contextlib.suppress(OSError):
                # The next start meets the same error and reports it.
                self._spare = self._fork()

    def _start(self, order: bytes, descriptors: list[int]) -> None:
        try:
            spare = self._hand_over(order, descriptors)
        except OSError as error:
            messages.send(self._orders, messages.encode_reply(-(error.errno or 1)))
            return
        messages.send(self._orders, messages.encode_reply(spare.pid), [spare.pidfd])
        spare.close()

    def _hand_over(self, order: bytes, descriptors: list[int]) -> Spare:
        spare, self._spare = self._spare, None
        if spare is not None:
            try:
                messages.send(spare.orders, order, descriptors)
                return spare
            except BrokenPipeError:
                # Somebody has killed it while it waited.
                spare.close()
                os.waitpid(spare.pid, 0)
        spare = self._fork()
        messages.send(spare.orders, order, descriptors)
        return spare

    def _fork(self) -> Spare:
        ours, theirs = messages.channel()
        with theirs:
            namespaces.unshare(namespaces.CLONE_NEWPID)
            try:
                pid = os.fork()
                if pid == 0:
                    init.main(theirs)
            finally:
                namespaces.setns(self._own_pid_namespace, namespaces.CLONE_NEWPID)
        return Spare(ours, pid)


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
