# SPDX-License-Identifier: Apache-2.0
"""A command inside a running container: a program for a process of the host that waits.

* The *supervisor* stays outside of the container, where nothing of it can be seen from inside, and reports
  to the daemon what an init reports.
* The *joiner* also is outside. It enters control groups and namespaces and takes over the container's
  limits, user and capabilities. Other than at a start there may be somebody inside who is hostile, so
  everything that is worth taking over is gone before there is anything to be seen:
* The *command* is the first process in the container's pid namespace. It only has the system call filter to
  install, as that need not allow the fork, and executes the program.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import termios

from northstar.engine import instructions as isa
from northstar.engine.assembler import Label, Program
from northstar.kernel import namespaces, prctl, process
from northstar.kernel.libc import AT_FDCWD
from northstar.programs import attendance, control, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Register
    from northstar.programs.plan import Plan

ENDED = ord("W")
"""The command has ended, and is kept as a zombie until a byte comes: until then its number is nobody
else's.
"""

_JOINED = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWNET
)
_COMMAND_PID = isa.BOARD_ADDRESS + isa.REPORT.size
"""Where on the board the joiner leaves the pid of the command."""
_LINK = isa.CHANNEL


def build(plan: Plan, machine: str | None = None) -> Program:
    """The whole command; `init` among the descriptors is a pidfd of the container's init."""
    p = Program([str(role) for role in plan["descriptors"]], machine)
    roles = dict(zip(plan["descriptors"], p.descriptors, strict=True))
    failed, joiner, command = Label(), Label(), Label()
    p.purpose = "begin"
    p.on_failure(failed)
    attendance.name_process(p, "northstar-exec")
    supervisor = p.value("getpid", of="supervisor")
    identity.bound_capabilities(p, plan)
    link = attendance.Link(p)
    p.purpose = "fork"
    pid = p.clone(control.clone_arguments(p, 0, roles.get("cgroup")), control.CLONE_ARGS_SIZE, joiner)
    _supervise(p, plan, link, pid, failed)
    p.place(joiner)
    _join(p, plan, link, roles, supervisor, command)
    p.place(command)
    _execute(p, plan)
    return p


def _supervise(p: Program, plan: Plan, link: attendance.Link, joiner: Register, failed: Label) -> None:
    link.keep(p)
    identity.retire(p, plan)
    if plan["init_filter"]:
        identity.install_filter(p, plan["init_filter"])
    p.purpose = "enter the container"
    status = p.reserve(8)
    p.call("wait4", joiner, status, 0, None)
    p.require(p.load(isa.BOARD_ADDRESS, of="failure"), 0, errno.ECANCELED)
    p.require(p.load(status, of="status"), 0, errno.ECHILD)
    command = p.load(_COMMAND_PID, of="command")
    p.purpose = f"execute {plan['argv'][0]}"
    link.wait(p)
    p.purpose = "report"
    control.report(p, attendance.RUNNING, command)
    p.call("waitid", process.P_PID, command, None, process.WEXITED | process.WNOWAIT, None)
    control.report(p, ENDED)
    p.call("read", isa.CHANNEL, p.reserve(8), 1)
    attendance.tell_end(p, p.reap(command))
    attendance.fail(p, failed)


def _join(
    p: Program,
    plan: Plan,
    link: attendance.Link,
    roles: dict[str | int, Register],
    supervisor: Register,
    command: Label,
) -> None:
    """Become everything that the command shall be, but for its pid, and clone the command."""
    failed = Label()
    p.purpose = "join the container"
    p.on_failure(failed)
    identity.enter_groups(p, plan)
    if plan["oom_score_adj"] is not None:
        p.purpose = "set oom_score_adj"
        control.write_file(p, "/proc/thread-self/oom_score_adj", str(plan["oom_score_adj"][0]))
    if plan["selinux_exec"] is not None:
        p.purpose = f"set SELinux exec context {plan['selinux_exec']}"
        control.write_file(p, "/proc/thread-self/attr/exec", plan["selinux_exec"])
    p.purpose = "join a new session keyring"
    control.join_keyring(p)
    p.purpose = "enter the container's namespaces"
    p.call("setns", roles["init"], _JOINED)
    # Init is not in the application's, but the same groups make the same view.
    p.call("unshare", namespaces.CLONE_NEWCGROUP)
    p.call("chdir", "/")
    p.purpose = "arrange descriptors"
    for number in range(3):
        p.call("dup3", roles[number], number, 0)
    p.call("dup3", link.theirs, _LINK, os.O_CLOEXEC)
    p.call("close_range", _LINK + 1, process.MAX_FD, 0)
    identity.become(p, plan)
    identity.end_with_parent(p, supervisor)
    identity.forbid_new_privileges(p)
    p.purpose = "fork the command"
    arguments = control.clone_arguments(p, namespaces.CLONE_PARENT)
    pid = p.clone(arguments, control.CLONE_ARGS_SIZE, command)
    p.store(_COMMAND_PID, pid)
    p.call("exit_group", 0)
    p.place(failed)
    p.call("exit_group", attendance.NOT_EXECUTED)


def _execute(p: Program, plan: Plan) -> None:
    """Execute the program; a failure is left on the board."""
    failed = Label()
    p.purpose = "end with the supervisor"
    p.on_failure(failed)
    p.call("prctl", prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    # The supervisor's end of the link is open: it is alive. Its pid cannot be seen from here.
    alive = p.value("ppoll", p.put(struct.pack("<iHH", _LINK, 0, 0)), 1, p.reserve(16), None, 0, of="events")
    p.require(alive, 0, errno.ESRCH)
    p.call("setsid")
    if plan["terminal"]:
        p.purpose = "make the terminal the controlling one"
        p.call("ioctl", 0, termios.TIOCSCTTY, 0)
    identity.execute(p, _find(p, plan), plan)
    p.place(failed)
    p.call("exit_group", attendance.NOT_EXECUTED)


def _find(p: Program, plan: Plan) -> str | Register:
    """The program's path, looked up in the container if there is more than one candidate."""
    name = plan["argv"][0]
    p.purpose = f"execute {name}"
    candidates = identity.path_candidates(name, plan["env"])
    if len(candidates) == 1:
        return candidates[0]
    path, found = p.variable("path"), Label()
    for candidate in candidates:
        other = Label()
        access = p.value("faccessat", AT_FDCWD, candidate, os.X_OK, of="access", tolerate=isa.ANY_ERROR)
        p.jump_if_negative(access, other)
        p.set(path, p.text(candidate))
        p.jump(found)
        p.place(other)
    p.require(0, 1, errno.ENOENT)
    p.place(found)
    return path
