# SPDX-License-Identifier: Apache-2.0
"""The forker: single-threaded, collector off, started before the daemon's code is imported.

On order of the daemon it forks an init or the supervisor of a session in a running container, waits for a
dead one, or enters the daemon's mount namespace. The
daemon keeps the other end of the socket that an init gets and gives it the plan itself; it has an init
forked in advance, in its new namespaces, so that fork and network namespace are no part of a start.

The forker unshares, forks and returns to its own namespaces (setns(2)); a pid namespace is entered by
children only. What all inits have in common is arranged once, here. Each memory page that the forker
writes to between two forks is one that the first of the two inits has for itself from then on, so an order
takes as few steps as possible.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal

from northstar.forker import init, messages
from northstar.kernel import namespaces, prctl, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from northstar.forker.messages import Socket


_NAMESPACES = (
    ("pid", namespaces.CLONE_NEWPID),
    ("ipc", namespaces.CLONE_NEWIPC),
    ("uts", namespaces.CLONE_NEWUTS),
    ("net", namespaces.CLONE_NEWNET),
)


class Forker:
    """Serves the daemon's orders."""

    def __init__(self, orders: Socket) -> None:
        self._orders = orders
        self._own = [(os.open(f"/proc/self/ns/{name}", os.O_RDONLY), kind) for name, kind in _NAMESPACES]
        self._host_network = self._own[-1][0]
        self._new = 0
        for _, kind in self._own:
            self._new |= kind

    def serve(self) -> None:
        """Until the daemon is gone; the parent death signal then ends all inits."""
        while True:
            data, descriptors = messages.receive(self._orders, messages.MAX_REPORT)
            if not data:
                return
            kind, number = messages.decode_order(data)
            if kind == messages.FORK:
                self._orders.send(messages.encode_reply(self._fork(descriptors[0])))
            elif kind == messages.JOIN:
                self._orders.send(messages.encode_reply(self._fork_session(descriptors[0])))
            elif kind == messages.REAP:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(number, 0)
            elif kind == messages.ENTER:
                namespaces.setns(descriptors[0], namespaces.CLONE_NEWNS)
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, plans: int) -> int:
        """Fork an init that gets its plan from the socket `plans`; its pid, or a negative errno."""
        try:
            namespaces.unshare(self._new)
        except OSError as error:
            return -(error.errno or 1)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(self._orders.fileno())
                init.main(plans, self._host_network)
        except OSError as error:
            pid = -(error.errno or 1)
        for descriptor, kind in self._own:
            namespaces.setns(descriptor, kind)
        return pid

    def _fork_session(self, plans: int) -> int:
        """Fork a supervisor that gets its plan from the socket `plans`; its pid, or a negative errno."""
        try:
            pid = os.fork()
        except OSError as error:
            return -(error.errno or 1)
        if pid == 0:
            try:
                os.close(self._orders.fileno())
                # Not imported before, as every init would have to keep it.
                from northstar.forker import session

                session.main(plans)
            finally:
                os._exit(127)
        return pid


def main(orders: Socket) -> NoReturn:
    """Be the forker; does not return."""
    gc.disable()
    gc.freeze()
    prctl.set_name("northstar-fork")
    prctl.set_parent_death_signal(signal.SIGKILL)
    process.reset_signals()
    # A Ctrl-C on the terminal is meant for the daemon, which ends the containers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # a kernel without keyrings has none to keep from the inits
        process.join_session_keyring()
    Forker(orders).serve()
    os._exit(0)
