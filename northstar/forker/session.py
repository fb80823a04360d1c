# SPDX-License-Identifier: Apache-2.0
"""A command inside a running container: the three processes that bring it there.

* The *supervisor* stays outside of the container, where nothing of it can be seen from inside. It reports to
  the daemon what an init reports, and passes a SIGHUP on to the command.
* The *joiner* also is outside. It enters control groups and namespaces and takes over the container's
  limits, user and capabilities. Other than at a start there may be somebody inside who is hostile, so
  everything that is worth taking over is gone before there is anything to be seen:
* The *command* is the first process in the container's pid namespace. It only has the system call filter
  to install, as that need not allow the fork, and executes the program.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import termios

from northstar.forker import application, credentials, messages
from northstar.forker.job import Job
from northstar.kernel import capabilities, namespaces, prctl, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GRACE = 2
"""Seconds between SIGHUP and SIGKILL."""

_JOINED = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS
_SIGNALS = (signal.SIGCHLD, signal.SIGHUP)
_STATUS, _REPORTS = 3, 4
_FAILURES = 3


# --- supervisor


def main(plans: int) -> NoReturn:
    """Be the supervisor of the session whose plan comes from the socket `plans`."""
    prctl.set_parent_death_signal(signal.SIGKILL)
    prctl.set_name("northstar-exec")
    os.setsid()
    with socket.socket(fileno=plans) as orders:
        order, descriptors = messages.receive(orders)
    if not order:
        os._exit(0)
    job = Job(order, descriptors, host_network=-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    ours, theirs = messages.channel()
    supervisor = os.getpid()
    joiner = os.fork()
    if joiner == 0:
        ours.close()
        _join(job, theirs.detach(), supervisor)
    theirs.close()
    _keep_only(0, 1, 2, job.status, ours.detach())
    killing = capabilities.mask(("CAP_KILL",)) & capabilities.get()[1]
    capabilities.set(killing, killing, 0)
    _attend(joiner)


def _attend(joiner: int) -> NoReturn:
    """Wait for the command's execution and for its end, and report both."""
    command = 0
    failure = b""
    while report := os.read(_REPORTS, messages.MAX_REPORT):
        kind, code, _ = messages.decode_report(report)
        if kind == messages.FORKED:
            command = code
        else:
            failure = report
    os.waitpid(joiner, 0)
    if failure:
        os.write(_STATUS, failure)
    if failure or not command:
        os._exit(1)
    # A command that was taken over before it executed could have told another number than the joiner.
    if not _has_child(command):
        os._exit(1)
    os.write(_STATUS, messages.encode_report(messages.RUNNING))
    os.write(_STATUS, messages.encode_report(messages.EXITED, _supervise(command)))
    os._exit(0)


def _has_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _supervise(command: int) -> int:
    """Wait for the end of the command; its wait status.

    After a SIGHUP its process group ends as when its terminal goes away, and if it does not, by SIGKILL. The
    number of the group belongs to nobody else before the command has been waited for.
    """
    hung_up = False
    while os.waitid(os.P_PID, command, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        found = signal.sigtimedwait(_SIGNALS, GRACE) if hung_up else signal.sigwaitinfo(_SIGNALS)
        if found is None:
            _kill_group(command, signal.SIGKILL)
        elif found.si_signo == signal.SIGHUP:
            _kill_group(command, signal.SIGHUP)
            _kill_group(command, signal.SIGCONT)
            hung_up = True
    if hung_up:
        _kill_group(command, signal.SIGKILL)
    return os.waitpid(command, 0)[1]


def _kill_group(command: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command, number)


# --- joiner


def _join(job: Job, failures: int, supervisor: int) -> NoReturn:
    """Become everything that the command shall be, but for its pid, and fork the command."""
    try:
        failure = application.prepare()
        if failure is not None:
            job.step = "join a new session keyring"
            raise failure
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _enter_groups(job)
        _enter_namespaces(job)
        job.step = "arrange descriptors"
        _keep_only(job.kept[0], job.kept[1], job.kept[2], failures)
        failures = _FAILURES
        application.apply_scheduling(job)
        application.apply_limits(job)
        credentials.become_user(job)
        application.apply_capabilities(job)
        _end_with_supervisor(supervisor)
        prctl.set_no_new_privs()
        job.step = "fork"
        command = process.fork_sibling()
        if command == 0:
            _execute(job)
        os.write(failures, messages.encode_report(messages.FORKED, command))
        os._exit(0)
    except OSError as error:
        _fail(failures, messages.encode_failure(job.step, error))
    except Exception as error:
        text = f"{job.step}: {type(error).__name__}: {error}"
        _fail(failures, messages.encode_report(messages.FAILED, 0, text))


def _fail(failures: int, report: bytes) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(failures, report)
    os._exit(127)


def _enter_groups(job: Job) -> None:
    """What is written to the host's file systems."""
    plan = job.plan
    job.step = "join cgroup"
    for descriptor in job.procs:
        os.write(descriptor, b"0")
    if plan["oom_score_adj"] is not None:
        job.step = "set oom_score_adj"
        application.write_file("/proc/thread-self/oom_score_adj", str(plan["oom_score_adj"]))
    if plan["selinux_exec"] is not None:
        job.step = f"set SELinux exec context {plan['selinux_exec']}"
        application.write_file("/proc/thread-self/attr/exec", plan["selinux_exec"])


def _enter_namespaces(job: Job) -> None:
    """Those of init, and of the network and control groups those that the application has had to join itself.

    The pid namespace counts for the next child.
    """
    joined = _JOINED
    job.step = "enter network namespace"
    if "network" in job.roles:
        namespaces.setns(job.roles["network"], namespaces.CLONE_NEWNET)
    elif not job.plan["host_network"]:
        joined |= namespaces.CLONE_NEWNET
    job.step = "enter the container's namespaces"
    namespaces.setns(job.roles["init"], joined)
    # Init is not in the application's, but the same groups make the same view.
    namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    os.chdir("/")


def _keep_only(*descriptors: int) -> None:
    """Close everything but `descriptors`, numbered from 0 in their order; execve closes 3 and above."""
    first = len(descriptors)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, first) for descriptor in descriptors]
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number, inheritable=number <= 2)
    process.close_range(first)


def _end_with_supervisor(supervisor: int) -> None:
    prctl.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(127)


# --- command


def _execute(job: Job) -> NoReturn:
    """Execute the program; a failure is reported to the supervisor, whose channel closes at execve."""
    plan = job.plan
    try:
        prctl.set_parent_death_signal(signal.SIGKILL)
        if _closed(_FAILURES):
            os._exit(127)
        os.setsid()
        if os.isatty(0):
            job.step = "make the terminal the controlling one"
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        application_filter = seccomp.Filter(job.application_filter) if job.application_filter else None
        job.step = f"execute {plan['argv'][0]}"
        path = _find(plan["argv"][0], plan["env"])
        program = process.Exec(path, plan["argv"], plan["env"])
        if application_filter is not None:
            application_filter.install()
        program.run()
    except OSError as error:
        _fail(_FAILURES, messages.encode_failure(job.step, error))
    except Exception as error:
        text = f"{job.step}: {type(error).__name__}: {error}"
        _fail(_FAILURES, messages.encode_report(messages.FAILED, 0, text))
    os._exit(127)


def _closed(descriptor: int) -> bool:
    """Whether the other end is gone."""
    poller = select.poll()
    poller.register(descriptor, 0)
    return bool(poller.poll(0))


def _find(name: str, environment: list[str]) -> str:
    """The program's path: a name without slash is looked up as a shell does. Raises OSError."""
    if "/" in name:
        application.check_executable(name)
        return name
    variables = dict(variable.split("=", 1) for variable in environment)
    for directory in variables.get("PATH", os.defpath).split(":"):
        path = f"{directory or '.'}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
