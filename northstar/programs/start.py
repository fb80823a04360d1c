# SPDX-License-Identifier: Apache-2.0
"""The start of a container: a program for the init that waits.

Init makes the mounts and enters them, then clones the process that becomes the application. While that one
takes on the container's user, limits and capabilities, init gives up everything that is worth taking over;
only then the application is executed. Order: what needs the host's file systems, mounts, pivot_root,
credentials. After pivot_root nothing is opened, the image is not trusted.
"""

from __future__ import annotations

import errno
import os

from northstar.engine import instructions as isa
from northstar.engine.assembler import Label, Program
from northstar.kernel import namespaces
from northstar.kernel.libc import AT_FDCWD
from northstar.programs import attendance, control, identity, mounts, notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Register
    from northstar.programs.plan import Plan

_INIT = 1
"""Init's pid, seen from inside."""


def build(plan: Plan, machine: str | None = None) -> Program:
    """The whole start; the descriptors are named by their roles in the plan."""
    p = Program([str(role) for role in plan["descriptors"]], machine)
    failed, application = Label(), Label()
    p.purpose = "begin"
    p.on_failure(failed)
    if plan["hold"]:
        _hold(p)
    roles = dict(zip(plan["descriptors"], p.descriptors, strict=True))
    identity.enter_groups(p, plan)
    own_score = _adjust_oom_score(p, plan)
    if plan["selinux_exec"] is not None:
        p.purpose = f"set SELinux exec context {plan['selinux_exec']}"
        control.write_file(p, "/proc/thread-self/attr/exec", plan["selinux_exec"])
    _use_network(p, roles.get("network"))
    if plan["notify"]:
        notify.offer(p, plan["notify"], roles[notify.ROLE])
    root = mounts.assemble(p, plan, roles["mounts"])
    mounts.enter(p, root)
    identity.bound_capabilities(p, plan)
    link = attendance.Link(p)
    p.purpose = "fork the application"
    arguments = control.clone_arguments(p, 0, roles.get("cgroup"))
    pid = p.clone(arguments, control.CLONE_ARGS_SIZE, application)
    if own_score is not None and plan["oom_score_adj"] is not None:
        p.purpose = "set oom_score_adj of init"
        text = str(plan["oom_score_adj"][1])
        p.call("write", own_score, p.text(text), len(text))
    _attend(p, plan, link, pid, failed)
    p.place(application)
    _become_application(p, plan, link, roles)
    return p


def _hold(p: Program) -> None:
    p.purpose = "wait for debug commands"
    p.require(p.value("read", isa.CHANNEL, p.reserve(8), 1, of="count"), 1, errno.ECANCELED)


def _adjust_oom_score(p: Program, plan: Plan) -> Register | None:
    """The application inherits its score, as it has no /proc of the host to write to; init takes its own
    back.
    """
    if plan["oom_score_adj"] is None:
        return None
    p.purpose = "set oom_score_adj"
    file = p.value(
        "openat", AT_FDCWD, "/proc/thread-self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, 0, of="score"
    )
    text = str(plan["oom_score_adj"][0])
    p.call("write", file, p.text(text), len(text))
    return file


def _use_network(p: Program, network: Register | None) -> None:
    """Join a network namespace, or make the loopback interface of the own one work (netdevice(7))."""
    if network is not None:
        p.purpose = "enter network namespace"
        p.call("setns", network, namespaces.CLONE_NEWNET)
        return
    # Done before, as it takes its time; again to be sure, as that tells what is wrong.
    control.set_up_loopback(p)


def _attend(p: Program, plan: Plan, link: attendance.Link, pid: Register, failed: Label) -> None:
    """Init's part after the clone: retire, let the application execute, wait for its end."""
    link.keep(p)
    attendance.name_process(p, plan["name"])
    mounts.leave_old_root(p)
    identity.retire(p, plan)
    if plan["init_filter"]:
        identity.install_filter(p, plan["init_filter"])
    p.purpose = f"execute {plan['argv'][0]}"
    link.release(p)
    attendance.confirm(p, pid, _INIT)
    attendance.tell_end(p, p.reap(pid))
    attendance.fail(p, failed)


def _become_application(
    p: Program, plan: Plan, link: attendance.Link, roles: dict[str | int, Register]
) -> None:
    """The clone's part. A failure is left on the board, where init finds it when the link closes."""
    failed = Label()
    p.purpose = "become the application"
    p.on_failure(failed)
    p.call("chdir", "/")
    p.purpose = "unshare control group namespace"
    p.call("unshare", namespaces.CLONE_NEWCGROUP)
    p.purpose = "join a new session keyring"
    control.join_keyring(p)
    p.purpose = "redirect standard streams"
    for role, number in (("stdout", 1), ("stderr", 2)):
        if role in roles:
            p.call("dup3", roles[role], number, 0)
    kept = {role: descriptor for role, descriptor in roles.items() if isinstance(role, int)}
    end = identity.arrange_descriptors(p, kept, link.theirs)
    identity.become(p, plan)
    identity.end_with_parent(p, _INIT)
    identity.forbid_new_privileges(p)
    p.purpose = "wait for init"
    p.require(p.value("read", end, p.reserve(8), 1, of="count"), 1, errno.ECANCELED)
    identity.execute(p, plan["argv"][0], plan)
    p.place(failed)
    p.call("exit_group", attendance.NOT_EXECUTED)
