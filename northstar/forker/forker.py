# SPDX-License-Identifier: Apache-2.0
"""The forker: single-threaded, collector off, started before the daemon's code is imported.

It does three things on order of the daemon: fork an init into a new pid namespace, wait for a dead
one, and enter the daemon's mount namespace. It holds no state but the descriptors it was born with.

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

OOM_SCORE_ADJ = -900


def main(orders: socket.socket) -> NoReturn:
    """Serve `orders` until the daemon is gone; the parent death signal then ends all inits."""
    _prepare()
    own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
    while True:
        data, descriptors = messages.receive(orders)
        if not data:
            os._exit(0)
        kind, number, plan, filters = messages.decode_order(data)
        if kind == messages.START:
            _start(orders, number, init.Job(plan, descriptors, filters), own_pid_namespace)
        elif kind == messages.REAP:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, 0)
        elif kind == messages.ENTER:
            namespaces.setns(descriptors[0], namespaces.CLONE_NEWNS)
        for descriptor in descriptors:
            os.close(descriptor)


def _prepare() -> None:
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
    _replace_standard_input()


def _replace_standard_input() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def _start(orders: socket.socket, number: int, job: init.Job, own_pid_namespace: int) -> None:
    try:
        namespaces.unshare(namespaces.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                orders.close()
                os.close(own_pid_namespace)
                init.run(job)
        finally:
            namespaces.setns(own_pid_namespace, namespaces.CLONE_NEWPID)
    except OSError as error:
        messages.send(orders, messages.encode_reply(number, -(error.errno or 1)))
        return
    descriptor = process.pidfd_open(pid)
    messages.send(orders, messages.encode_reply(number, pid), [descriptor])
    os.close(descriptor)
