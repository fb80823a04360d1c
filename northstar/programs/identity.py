# SPDX-License-Identifier: Apache-2.0
"""Who a process is: descriptors, scheduling, limits, user, groups, capabilities (credentials(7),
capabilities(7)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct

from northstar.kernel import capabilities, prctl, scheduling
from northstar.kernel.process import CLOSE_RANGE_CLOEXEC, MAX_FD
from northstar.programs.control import set_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from northstar.engine.assembler import Program, Register
    from northstar.programs.plan import Plan

_LOW = 0xFFFFFFFF
_SOCK_FPROG = struct.Struct("<H6xQ")
_INSTRUCTION_SIZE = 8


def enter_groups(p: Program, plan: Plan) -> None:
    """Join control groups of version 1, by their cgroup.procs.

    With version 2 a process is born in its group.
    """
    p.purpose = "join cgroup"
    for role, descriptor in zip(plan["descriptors"], p.descriptors, strict=True):
        if role == "procs":
            p.call("write", descriptor, p.text("0"), 1)


def arrange_descriptors(p: Program, kept: Mapping[int, Register], private: Register) -> Register:
    """0, 1, 2 and the planned numbers stay, execve closes the rest; the new place of `private`."""
    p.purpose = "arrange descriptors"
    free = max(kept, default=2) + 1
    moved = {
        number: p.value("fcntl", descriptor, fcntl.F_DUPFD_CLOEXEC, max(free, 3), of="moved")
        for number, descriptor in kept.items()
    }
    private = p.value("fcntl", private, fcntl.F_DUPFD_CLOEXEC, max(free, 3), of="private")
    p.call("close_range", 3, MAX_FD, CLOSE_RANGE_CLOEXEC)
    for number, descriptor in moved.items():
        p.call("dup3", descriptor, number, 0)
    return private


def become(p: Program, plan: Plan) -> None:
    """Scheduling, limits, user, groups and capabilities of the plan, for good; they are read back."""
    _become_user(p, plan)
    _schedule(p, plan)
    for name, number, soft, hard in plan["rlimits"]:
        p.purpose = f"set resource limit {name} to {soft}:{hard}"
        set_limit(p, number, soft, hard)
    _set_capabilities(p, plan["capabilities"])


def end_with_parent(p: Program, parent: int | Register) -> None:
    """SIGKILL when the parent ends. A change of credentials would clear it."""
    p.purpose = "end with the parent"
    p.call("prctl", prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    p.require(p.value("getppid", of="parent"), parent, errno.ESRCH)


def forbid_new_privileges(p: Program) -> None:
    """Execve never gives privileges from now on."""
    p.purpose = "set no_new_privs"
    p.call("prctl", prctl.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def execute(p: Program, path: str | Register, plan: Plan) -> None:
    """Install the filter and execute.

    Nothing comes between the two, as the filter need not allow anything else.
    """
    program = plan["argv"][0]
    argv, env = p.texts(plan["argv"]), p.texts(plan["env"])
    if plan["application_filter"]:
        install_filter(p, plan["application_filter"])
    p.purpose = f"execute {program}"
    p.call("execve", path, argv, env)


def install_filter(p: Program, bpf: bytes) -> None:
    """seccomp(2) with a program of `struct sock_filter` records."""
    p.purpose = "install system call filter"
    address = p.put(_SOCK_FPROG.pack(len(bpf) // _INSTRUCTION_SIZE, p.put(bpf)))
    p.call("seccomp", prctl.SECCOMP_SET_MODE_FILTER, 0, address)


def bound_capabilities(p: Program, plan: Plan) -> None:
    """Drop from the bounding set what the application is not granted: it can never come back."""
    p.purpose = "drop capability bounding set"
    known = (1 << (plan["last_capability"] + 1)) - 1
    p.call_each("prctl", prctl.PR_CAPBSET_DROP, known & ~plan["capabilities"])


def retire(p: Program, plan: Plan) -> None:
    """After `bound_capabilities`, give up every privilege.

    What stays is a process that can wait and report, with the container's user.
    """
    p.purpose = "retire"
    p.call("prctl", prctl.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    p.call_each("prctl", prctl.PR_CAPBSET_DROP, plan["capabilities"])
    uid, gid = plan["uid"], plan["gid"]
    p.call("setgroups", 0, None)
    p.call("setresgid", gid, gid, gid)
    p.call("setresuid", uid, uid, uid)
    # Of a root that stays root, too.
    p.call("capset", *_capability_sets(p, 0, 0, 0))
    p.call("prctl", prctl.PR_SET_DUMPABLE, 0)
    p.call("prctl", prctl.PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_user(p: Program, plan: Plan) -> None:
    """The permitted capabilities stay for the steps that still need them."""
    uid, gid, groups = plan["uid"], plan["gid"], plan["groups"]
    p.purpose = f"change to user {uid} and group {gid}"
    p.call("prctl", prctl.PR_SET_KEEPCAPS, 1)
    numbers = p.put(struct.pack(f"<{len(groups)}I", *groups))
    p.call("setgroups", len(groups), numbers)
    p.call("setresgid", gid, gid, gid)
    p.call("setresuid", uid, uid, uid)
    p.call("prctl", prctl.PR_SET_KEEPCAPS, 0)
    p.purpose = f"read back user {uid} and group {gid}"
    _read_back_ids(p, "getresuid", uid)
    _read_back_ids(p, "getresgid", gid)
    found = p.reserve(4 * (len(groups) + 1))
    p.require(p.value("getgroups", len(groups) + 1, found, of="count"), len(groups), errno.EPERM)
    p.require_same(found, numbers, 4 * len(groups), errno.EPERM)
    p.purpose = "keep capabilities for the set-up"
    available = plan["available"]
    p.call("capset", *_capability_sets(p, available, available, plan["capabilities"]))
    p.call("prctl", prctl.PR_SET_DUMPABLE, 0)


def _read_back_ids(p: Program, call: str, number: int) -> None:
    wanted, found = p.put(struct.pack("<3I", number, number, number)), p.reserve(12)
    p.call(call, found, found + 4, found + 8)
    p.require_same(found, wanted, 12, errno.EPERM)


def _schedule(p: Program, plan: Plan) -> None:
    if plan["scheduling"] is None:
        p.purpose = "be scheduled as any other program"
        # EPERM: a daemon without privileges keeps what it was given, and so do its containers.
        p.call("sched_setattr", 0, p.put(scheduling.attributes()), 0, tolerate=errno.EPERM)
        return
    policy, priority, nice = plan["scheduling"]
    p.purpose = f"set scheduling policy {policy}, priority {priority}, nice {nice}"
    p.call("sched_setattr", 0, p.put(scheduling.attributes(policy, priority, nice)), 0)


def _set_capabilities(p: Program, wanted: int) -> None:
    p.purpose = "set capabilities"
    header, data = _capability_sets(p, wanted, wanted, wanted)
    p.call("capset", header, data)
    p.call("prctl", prctl.PR_CAP_AMBIENT, prctl.AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(wanted.bit_length()):
        if wanted >> capability & 1:
            p.call("prctl", prctl.PR_CAP_AMBIENT, prctl.AMBIENT_RAISE, capability, 0, 0)
    p.purpose = "read back capabilities"
    found = p.reserve(24)
    p.call("capget", header, found)
    p.require_same(found, data, 24, errno.EPERM)


def _capability_sets(p: Program, effective: int, permitted: int, inheritable: int) -> tuple[int, int]:
    """Addresses of the arguments of capset(2)."""
    sets = (effective, permitted, inheritable)
    header = p.put(struct.pack("<II", capabilities.VERSION_3, 0))
    return header, p.put(struct.pack("<6I", *(s & _LOW for s in sets), *(s >> 32 for s in sets)))


def path_candidates(name: str, environment: list[str]) -> list[str]:
    """Where a program of that name may be: a name without slash is looked up as a shell does."""
    if "/" in name:
        return [name]
    variables = dict(variable.split("=", 1) for variable in environment)
    return [f"{directory or '.'}/{name}" for directory in variables.get("PATH", os.defpath).split(":")]
