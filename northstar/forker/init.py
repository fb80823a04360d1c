# SPDX-License-Identifier: Apache-2.0
"""A container's init: pid 1 of its namespaces.

It forks a process that waits for the plan, sets up everything and becomes the application. Init itself
follows into the new mount namespace and drops its privileges, before the application executes; then it
waits: for the application's status, which it reports, and for whatever is re-parented to it. When it exits
the kernel ends everything else in the namespace.

It does as little as possible itself: every page that it writes to is memory that the container costs.
"""

from __future__ import annotations

import os
import signal

from northstar.forker import application, messages
from northstar.forker.job import Job
from northstar.kernel import capabilities, namespaces, prctl, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from northstar.forker.messages import Socket


def main(plans: int, host_network: int) -> NoReturn:
    """Be the init of the container whose plan comes from the socket `plans`.

    `host_network` is a descriptor of the host's network namespace.
    """
    prctl.set_parent_death_signal(signal.SIGKILL)
    prctl.set_name("northstar-spare")
    os.setsid()
    ours, theirs = messages.channel()
    pid = os.fork()
    if pid == 0:
        application.main(plans, theirs, host_network)
    os.close(plans)
    theirs.close()
    message, descriptors = messages.receive(ours)
    if not message:
        os._exit(0)
    if messages.is_order(message):
        _hold(ours, message, descriptors, host_network)
    else:
        _attend(ours, message, descriptors)


def _hold(ours: Socket, order: bytes, descriptors: list[int], host_network: int) -> NoReturn:
    """Wait until tracers are attached to this process, and only then fork the application."""
    ours.close()
    job = Job(order, descriptors, host_network)
    if not os.read(job.status, 1):
        os._exit(1)
    ours, theirs = messages.channel()
    pid = os.fork()
    if pid == 0:
        application.run(job, theirs)
    theirs.close()
    message, descriptors = messages.receive(ours)
    _attend(ours, message, descriptors)


def _attend(ours: Socket, message: bytes, descriptors: list[int]) -> NoReturn:
    """Wait for the application's execution and for its end, and report both."""
    if not message:
        os._exit(1)  # the application's process has reported why
    status, mount_namespace = descriptors
    to_application = ours.fileno()
    pid = _retire(message, mount_namespace, (status, to_application))
    failure = _let_execute(to_application)
    if failure:
        os.write(status, failure)
        os._exit(1)
    os.close(to_application)
    os.write(status, messages.encode_report(messages.RUNNING))
    os.write(status, messages.encode_report(messages.EXITED, _supervise(pid)))
    os._exit(0)


def _let_execute(to_application: int) -> bytes:
    """Say that this process has retired; the application's report of a failure, nothing if it executes."""
    try:  # noqa: SIM105 (suppress() would cost each init 50 KB)
        os.write(to_application, messages.RETIRED)
    except BrokenPipeError:
        pass  # it has failed before, and has said why
    try:
        return os.read(to_application, messages.MAX_REPORT)
    except ConnectionResetError:
        # It has failed without reading what was written: that error comes first.
        return os.read(to_application, messages.MAX_REPORT)


def _retire(message: bytes, mount_namespace: int, kept: tuple[int, int]) -> int:
    """Keep nothing that is worth taking over: no capability, no other descriptor, hardly a system call.

    The pid of the application. A failure ends this process, and the container with it.
    """
    pid, uid, gid, name, init_filter = messages.decode_introduction(message)
    namespaces.setns(mount_namespace, namespaces.CLONE_NEWNS)
    _close_all_but(*kept)
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
