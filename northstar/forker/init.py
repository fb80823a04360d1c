# SPDX-License-Identifier: Apache-2.0
"""A container's init: pid 1 of its namespaces.

It forks a process that waits for the plan, sets up everything and becomes the application. Init itself
follows into the mount namespace when that has happened, drops its privileges, and then waits: for the
application's status, which it reports, and for whatever is re-parented to it. When it exits the kernel
ends everything else in the namespace.

It does as little as possible itself: every page that it writes to is memory that the container costs.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket

from northstar.forker import application, messages
from northstar.forker.job import Job
from northstar.kernel import capabilities, namespaces, prctl, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(orders: socket.socket) -> NoReturn:
    """Prepare what is the same for all containers, be the init of the container that is ordered."""
    failure: OSError | None = None
    host_network = -1
    try:
        host_network = _prepare(orders)
    except OSError as error:
        failure = error
    ours, theirs = messages.channel()
    pid = os.fork()
    if pid == 0:
        application.main(orders, theirs, host_network, failure)
    orders.close()
    theirs.close()
    message, descriptors = messages.receive(ours)
    if not message:
        os._exit(0)
    if messages.is_order(message):
        _hold(ours, message, descriptors, host_network)
    else:
        _attend(ours, message, descriptors)


def _prepare(orders: socket.socket) -> int:
    """New namespaces and a new session; a descriptor of the host's network namespace."""
    _close_all_but(orders.fileno())
    prctl.set_parent_death_signal(signal.SIGKILL)
    prctl.set_name("northstar-spare")
    os.setsid()
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    host_network = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        process.join_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keyrings has none to share
            raise
    namespaces.unshare(namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWNET)
    return host_network


def _hold(ours: socket.socket, order: bytes, descriptors: list[int], host_network: int) -> NoReturn:
    """Wait until tracers are attached to this process, and only then fork the application."""
    ours.close()
    job = Job(order, descriptors, host_network)
    status = socket.socket(fileno=job.status)
    if not status.recv(1):
        os._exit(1)
    ours, theirs = messages.channel()
    pid = os.fork()
    if pid == 0:
        application.run(job, theirs)
    theirs.close()
    message, descriptors = messages.receive(ours)
    _attend(ours, message, descriptors)


def _attend(ours: socket.socket, message: bytes, descriptors: list[int]) -> NoReturn:
    """Wait for the application's execution and for its end, and report both."""
    if not message:
        os._exit(1)  # the application's process has reported why
    status_descriptor, mount_namespace = descriptors
    status = socket.socket(fileno=status_descriptor)
    ended_early, _ = messages.receive(ours)
    if ended_early:
        status.send(ended_early)
        os._exit(1)
    status.send(messages.encode_report(messages.RUNNING))
    # From here on the program runs, with fewer privileges than this process for a moment.
    pid = _retire(message, status_descriptor, mount_namespace)
    status.send(messages.encode_report(messages.EXITED, _supervise(pid)))
    os._exit(0)


def _retire(message: bytes, status: int, mount_namespace: int) -> int:
    """Keep nothing that is worth taking over: no capability, no descriptor, hardly a system call.

    The pid of the application. A failure ends this process, and the container with it.
    """
    pid, uid, gid, name, init_filter = messages.decode_introduction(message)
    namespaces.setns(mount_namespace, namespaces.CLONE_NEWNS)
    _close_all_but(status)
    os.dup2(0, 1)
    os.dup2(0, 2)
    prctl.set_name(name)
    prctl.set_no_new_privs()
    for capability in range(capabilities.last_cap() + 1):
        capabilities.drop_bounding(capability)
    os.setgroups(())
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)  # clears the permitted, effective and ambient sets (capabilities(7))
    capabilities.set(0, 0, 0)
    prctl.set_dumpable(False)
    prctl.set_parent_death_signal(signal.SIGKILL)
    if init_filter:
        seccomp.install_filter(init_filter)
    return pid


def _close_all_but(*kept: int) -> None:
    first = 3
    for descriptor in sorted(kept):
        if first < descriptor:
            process.close_range(first, descriptor - 1)
        first = descriptor + 1
    process.close_range(first)


def _supervise(application_pid: int) -> int:
    """Reap until the application ends; its wait status. The rest ends with this process."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == application_pid:
            return status
