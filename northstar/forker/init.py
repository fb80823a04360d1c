# SPDX-License-Identifier: Apache-2.0
"""A container's init: pid 1 of its namespace.

It sets up the namespaces and mounts, drops privileges, forks the application, and then waits: for the
application's status, which it reports, and for whatever is re-parented to it. When it exits the kernel
ends everything else in the namespace.

The order is: what needs the host's file system, unshare, mounts, pivot_root, credentials, fork. After
pivot_root nothing may be imported or opened, the image is not trusted.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket

from northstar.forker import application, messages, mounts
from northstar.kernel import capabilities, namespaces, prctl, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Job:
    """A plan with the descriptors and filters that came with it, and what is being done."""

    __slots__ = ("application_filter", "cgroups", "init_filter", "kept", "plan", "roles", "step")

    def __init__(self, order: bytes, descriptors: list[int]) -> None:
        self.plan, self.application_filter, self.init_filter = messages.decode_start(order)
        self.roles: dict[str, int] = {}
        self.cgroups: list[int] = []
        self.kept: dict[int, int] = {}
        self.step = "receive plan"
        for role, descriptor in zip(self.plan["descriptors"], descriptors, strict=True):
            if isinstance(role, int):
                self.kept[role] = descriptor
            elif role == "cgroup":
                self.cgroups.append(descriptor)
            else:
                self.roles[role] = descriptor

    @property
    def status(self) -> int:
        """Descriptor of the status channel to the daemon."""
        return self.roles["status"]


def main(orders: socket.socket) -> NoReturn:
    """Prepare what is the same for all containers, wait for a plan, be the init of that container."""
    failure: OSError | None = None
    try:
        host_network = _prepare(orders)
    except OSError as error:
        failure = error
        host_network = -1
    order, descriptors = messages.receive(orders)
    if not order:
        os._exit(0)
    _run(Job(order, descriptors), host_network, failure)


def _prepare(orders: socket.socket) -> int:
    """New namespaces and a new session; a descriptor of the host's network namespace."""
    _close_all_but(orders.fileno())
    prctl.set_parent_death_signal(signal.SIGKILL)
    prctl.set_name("northstar-spare")
    os.setsid()
    os.umask(0o022)
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:
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


def _run(job: Job, host_network: int, failure: OSError | None) -> NoReturn:
    status = socket.socket(fileno=job.status)
    try:
        if failure is not None:
            job.step = "prepare namespaces"
            raise failure
        pid, failures = _set_up(job, status, host_network)
        _retire(job, failures)
        ended_early = _await_execution(failures)
        if ended_early is not None:
            status.send(messages.encode_report(messages.FAILED, *ended_early))
            os._exit(1)
        status.send(messages.encode_report(messages.RUNNING))
        status.send(messages.encode_report(messages.EXITED, _supervise(pid)))
    except OSError as error:
        _report_failure(status, job.step, error)
    except Exception as error:
        _report_failure(status, f"{job.step}: {type(error).__name__}", OSError(0, str(error)))
    os._exit(0)


def _report_failure(status: socket.socket, step: str, error: OSError) -> None:
    named = f"{step} ({error.filename})" if error.filename and str(error.filename) not in step else step
    text = named if error.errno else f"{named}: {error.strerror}"
    try:
        status.send(messages.encode_report(messages.FAILED, error.errno or 0, text))
    finally:
        os._exit(1)


def _set_up(job: Job, status: socket.socket, host_network: int) -> tuple[int, int]:
    """Everything up to the fork of the application: its pid, and where its failures can be read."""
    if job.plan["hold"] and not status.recv(1):
        os._exit(1)
    _use_host(job, host_network)
    trees = mounts.clone_sources(job)
    job.step = "unshare namespaces"
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWCGROUP)
    mounts.enter_root(job, trees)
    _become_user(job)
    job.step = "fork application"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        application.run(job, writer)
    os.close(writer)
    return pid, reader


def _use_host(job: Job, host_network: int) -> None:
    """Everything that needs the host's /proc, network and cgroup file systems."""
    plan = job.plan
    prctl.set_name(plan["name"])
    job.step = "enter network namespace"
    if plan["host_network"]:
        namespaces.setns(host_network, namespaces.CLONE_NEWNET)
    elif "network" in job.roles:
        namespaces.setns(job.roles["network"], namespaces.CLONE_NEWNET)
    job.step = "join cgroup"
    for descriptor in job.cgroups:
        os.write(descriptor, b"0")
    if plan["oom_score_adj"] is not None:
        job.step = "set oom_score_adj"
        _write_file("/proc/thread-self/oom_score_adj", str(plan["oom_score_adj"]))
    if plan["selinux_exec"] is not None:
        job.step = f"set SELinux exec context {plan['selinux_exec']}"
        _write_file("/proc/thread-self/attr/exec", plan["selinux_exec"])
    job.step = "redirect standard streams"
    os.dup2(job.roles.get("stdout", 0), 1)
    os.dup2(job.roles.get("stderr", 0), 2)


def _write_file(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _become_user(job: Job) -> None:
    plan = job.plan
    job.step = "drop capability bounding set"
    for capability in range(capabilities.last_cap() + 1):
        if not plan["capabilities"] >> capability & 1:
            capabilities.drop_bounding(capability)
    job.step = f"change to user {plan['uid']} and group {plan['gid']}"
    _, permitted, _ = capabilities.get()
    prctl.set_keep_caps(True)
    os.setgroups(plan["groups"])
    os.setresgid(plan["gid"], plan["gid"], plan["gid"])
    os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    prctl.set_keep_caps(False)
    if os.getresuid() != (plan["uid"],) * 3 or os.getresgid() != (plan["gid"],) * 3:
        raise OSError(0, "the kernel did not change the credentials")
    capabilities.set(permitted, permitted, plan["capabilities"])
    prctl.set_dumpable(False)
    prctl.set_parent_death_signal(signal.SIGKILL)


def _retire(job: Job, failures: int) -> None:
    """Keep nothing that is worth taking over: no capability, no descriptor, hardly a system call."""
    job.step = "retire init"
    _close_all_but(job.status, failures)
    capabilities.ambient_clear()
    capabilities.set(0, 0, 0)
    prctl.set_no_new_privs()
    if job.init_filter:
        seccomp.install_filter(job.init_filter)


def _close_all_but(*kept: int) -> None:
    first = 3
    for descriptor in sorted(kept):
        if first < descriptor:
            process.close_range(first, descriptor - 1)
        first = descriptor + 1
    process.close_range(first)


def _await_execution(failures: int) -> tuple[int, str] | None:
    """Wait until the application has been executed; otherwise (errno, step) of the failure."""
    data = os.read(failures, messages.MAX_REPORT)
    os.close(failures)
    if not data:
        return None
    _, code, step = messages.decode_report(data)
    return code, step


def _supervise(application_pid: int) -> int:
    """Reap until the application ends; its wait status. The rest ends with this process."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == application_pid:
            return status
