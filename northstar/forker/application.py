# SPDX-License-Identifier: Apache-2.0
"""The application's process between fork and execve.

It waits for the plan before there is anything else to do: the fork is not part of a start.

The order is fixed: what needs the host's file systems, mounts, pivot_root, credentials. Scheduling
needs capabilities, so it comes before they are dropped; the seccomp filter comes last, so that nothing
but execve needs to be allowed by it. After pivot_root nothing may be imported or opened, the image is
not trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket

from northstar.forker import credentials, messages, mounts
from northstar.forker.job import Job
from northstar.kernel import capabilities, namespaces, prctl, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from northstar.forker.messages import Socket


def main(plans: int, to_init: Socket, host_network: int) -> NoReturn:
    """Wait for the plan on the socket `plans` and carry it out."""
    failure = prepare()
    with socket.socket(fileno=plans) as orders:
        if not messages.waits(orders):
            _rehearse(host_network)
        order, descriptors = messages.receive(orders)
    if not order:
        os._exit(0)
    job = Job(order, descriptors, host_network)
    if failure is not None:
        os.write(job.status, messages.encode_failure("join a new session keyring", failure))
        os._exit(1)
    if job.plan["hold"]:
        messages.send(to_init, order, descriptors)
        os._exit(0)
    run(job, to_init)


def prepare() -> OSError | None:
    """What can be done before there is a plan; a failure is for whom the plan comes from."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the forker ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        process.join_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keyrings has none to share
            return error
    return None


def _rehearse(host_network: int) -> None:
    """Do once, without effect, what every start does.

    Memory that is shared with the forker is copied page by page when it is first written to, be it only
    for a reference count. This way it happens before a start and not during it: half a millisecond.
    """
    plan = {"descriptors": ["status", 3], "argv": ["/"], "env": ["A=b"], "mounts": [], "capabilities": 0}
    job = Job(messages.encode_start(plan, b"", b""), [-1, -1], host_network)  # type: ignore[arg-type]
    process.Exec("/", job.plan["argv"], job.plan["env"])
    capabilities.set(*capabilities.get())
    capabilities.ambient_clear()
    messages.encode_introduction(1, 1, 1, "init-rehearsal:0.0.0", b"")
    with contextlib.suppress(OSError):
        mounts.rehearse()


def run(job: Job, to_init: Socket) -> NoReturn:
    """Become the application; a failure is reported to init, for which the channel closes at execve."""
    plan = job.plan
    failures = job.status
    try:
        _enter_namespaces(job, to_init)
        failures = to_init.fileno()
        _use_host(job)
        root = mounts.assemble(job)
        _await_init(job, to_init)
        mounts.enter(job, root)
        credentials.become_user(job)
        failures = _arrange_descriptors(job, failures)
        program = process.Exec(plan["argv"][0], plan["argv"], plan["env"])
        job.step = "prepare system call filter"
        application_filter = seccomp.Filter(job.application_filter) if job.application_filter else None
        apply_scheduling(job)
        apply_limits(job)
        apply_capabilities(job)
        _end_with_init()
        job.step = f"execute {plan['argv'][0]}"
        check_executable(plan["argv"][0])
        prctl.set_no_new_privs()
        if application_filter is not None:
            application_filter.install()
        program.run()
    except OSError as error:
        os.write(failures, messages.encode_failure(job.step, error))
    except Exception as error:
        text = f"{job.step}: {type(error).__name__}: {error}"
        os.write(failures, messages.encode_report(messages.FAILED, 0, text))
    os._exit(127)


def _enter_namespaces(job: Job, to_init: Socket) -> None:
    """Join the control groups, and make the mount namespace into which init follows."""
    plan = job.plan
    job.step = "join cgroup"
    for descriptor in job.procs:
        os.write(descriptor, b"1")
        os.write(descriptor, b"0")
    if "cgroup" in job.roles and process.fork_sibling(job.roles["cgroup"]):
        os._exit(0)
    if plan["oom_score_adj"] is not None:
        job.step = "set oom_score_adj"
        write_file("/proc/thread-self/oom_score_adj", str(plan["oom_score_adj"]))
    job.step = "unshare namespaces"
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWCGROUP)
    mount_namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    introduction = messages.encode_introduction(
        os.getpid(), plan["uid"], plan["gid"], plan["name"], job.init_filter
    )
    messages.send(to_init, introduction, [job.status, mount_namespace])
    os.close(mount_namespace)


def _await_init(job: Job, to_init: Socket) -> None:
    """Wait until init is in this mount namespace and has no privileges any more.

    After pivot_root it could not come in any more without seeing the old root, and a program with
    CAP_SYS_PTRACE could use it for what the program must not do itself.
    """
    job.step = "wait for init"
    if to_init.recv(len(messages.RETIRED)) != messages.RETIRED:
        os._exit(127)


def _use_host(job: Job) -> None:
    """Everything that needs the host's /proc and network namespaces."""
    plan = job.plan
    job.step = "enter network namespace"
    if plan["host_network"]:
        namespaces.setns(job.host_network, namespaces.CLONE_NEWNET)
    elif "network" in job.roles:
        namespaces.setns(job.roles["network"], namespaces.CLONE_NEWNET)
    if plan["selinux_exec"] is not None:
        job.step = f"set SELinux exec context {plan['selinux_exec']}"
        write_file("/proc/thread-self/attr/exec", plan["selinux_exec"])
    job.step = "redirect standard streams"
    os.dup2(job.roles.get("stdout", 0), 1)
    os.dup2(job.roles.get("stderr", 0), 2)


def write_file(path: str, text: str) -> None:
    """Write to a file of the kernel. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _arrange_descriptors(job: Job, failures: int) -> int:
    """0, 1, 2 and the planned numbers stay, execve closes the rest; the new number of `failures`."""
    job.step = "arrange descriptors"
    free = max(job.kept, default=2) + 1
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for number, fd in job.kept.items()}
    failures = fcntl.fcntl(failures, fcntl.F_DUPFD_CLOEXEC, free)
    process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
    for number, descriptor in moved.items():
        os.dup2(descriptor, number, inheritable=True)
    return failures


def apply_scheduling(job: Job) -> None:
    """Policy and priority of the plan, if it has any. Raises OSError."""
    if job.plan["scheduling"] is None:
        return
    policy, priority, nice = job.plan["scheduling"]
    job.step = f"set scheduling policy {policy}, priority {priority}, nice {nice}"
    process.sched_setattr(policy, priority=priority, nice=nice)


def apply_limits(job: Job) -> None:
    """Resource limits of the plan. Raises OSError."""
    for name, number, soft, hard in job.plan["rlimits"]:
        job.step = f"set resource limit {name} to {soft}:{hard}"
        resource.setrlimit(number, (soft, hard))


def apply_capabilities(job: Job) -> None:
    """The sets that the plan grants. Raises OSError."""
    job.step = "set capabilities"
    wanted = job.plan["capabilities"]
    capabilities.set(wanted, wanted, wanted)
    capabilities.ambient_clear()
    for capability in range(wanted.bit_length()):
        if wanted >> capability & 1:
            capabilities.ambient_raise(capability)


def _end_with_init() -> None:
    # Cleared by a change of credentials, hence after it.
    prctl.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != 1:
        os._exit(127)


def check_executable(path: str) -> None:
    """A failing execve could not be reported any more once the filter is installed.

    There may be no descriptor left: the limits are in force. Raises OSError.
    """
    os.stat(path)
