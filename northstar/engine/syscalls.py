# SPDX-License-Identifier: Apache-2.0
"""Numbers of the system calls that programs use (asm/unistd.h): x86-64, and the table that aarch64 shares."""

from __future__ import annotations

NUMBERS = {
    "bind": (49, 200),
    "capget": (125, 90),
    "capset": (126, 91),
    "chdir": (80, 49),
    "clone3": (435, 435),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup3": (292, 24),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "fchdir": (81, 50),
    "fcntl": (72, 25),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fstat": (5, 80),
    "getgroups": (115, 158),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getresgid": (120, 150),
    "getresuid": (118, 148),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "mmap": (9, 222),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat": (257, 56),
    "openat2": (437, 437),
    "pivot_root": (155, 41),
    "ppoll": (271, 73),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "sendmsg": (46, 211),
    "set_mempolicy": (238, 237),
    "setgroups": (116, 159),
    "setns": (308, 268),
    "setpgid": (109, 154),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "setsockopt": (54, 208),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "statx": (332, 291),
    "umask": (95, 166),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
}

MACHINES = ("x86_64", "aarch64")


def numbers(machine: str) -> dict[str, int]:
    """The numbers of one machine, by name. KeyError for a machine that the engine does not support."""
    column = {name: index for index, name in enumerate(MACHINES)}[machine]
    return {name: pair[column] for name, pair in NUMBERS.items()}
