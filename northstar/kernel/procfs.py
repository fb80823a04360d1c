# SPDX-License-Identifier: Apache-2.0
"""What /proc tells of other processes: proc(5).

Names and numbers are read directly; psutil would cost the daemon 1 MB and 45 ms on first use.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Fields of /proc/pid/stat, counted from the one after the name.
_FLAGS, _PF_EXITING, _PF_FORKNOEXEC = 6, 0x4, 0x40
_STATE, _PARENT, _USER_TIME, _SYSTEM_TIME, _THREADS, _RESIDENT = 0, 1, 11, 12, 17, 21


class Process:
    """One process at one moment."""

    __slots__ = ("cpu_time", "name", "parent", "pid", "resident", "state", "threads")

    def __init__(self, pid: int) -> None:
        """Raises FileNotFoundError or ProcessLookupError if there is no such process."""
        before, _, after = _read(f"/proc/{pid}/stat").rpartition(b") ")
        fields = after.split()
        self.pid = pid
        self.name = before.partition(b"(")[2].decode("utf-8", "replace")
        """comm, at most 15 bytes; the program chooses it."""
        self.state = fields[_STATE].decode()
        """R running, S sleeping, D disk sleep, T stopped, t traced, Z zombie, ..."""
        self.parent = int(fields[_PARENT])
        self.cpu_time = (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) * _TICK
        """User and system time in nanoseconds, counted in clock ticks."""
        self.threads = int(fields[_THREADS])
        self.resident = int(fields[_RESIDENT]) * _PAGE
        """Memory in use including shared pages, in bytes."""


def has_executed(pid: int) -> bool:
    """Whether a process whose close-on-exec descriptors are closed has executed a program, also a zombie.

    Only execve and the end of a process close them, so one that lives has. True if there is no such process.
    """
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    flags = int(fields[_FLAGS])
    lives = fields[_STATE] not in (b"Z", b"X") and not flags & _PF_EXITING
    return lives or not flags & _PF_FORKNOEXEC


def child_by_number(init: int, number: int) -> int | None:
    """The child of a namespace's init that has this pid in there; None if there is none (Linux 4.1)."""
    for pid in children(init):
        try:
            lines = _read(f"/proc/{pid}/status").split(b"\nNSpid:")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if len(lines) == 2 and int(lines[1].partition(b"\n")[0].split()[-1]) == number:
            return pid
    return None


def max_open_files() -> int:
    """fs.nr_open: what RLIMIT_NOFILE cannot exceed, not even unlimited and with privileges (Linux 2.6.25)."""
    return int(_read("/proc/sys/fs/nr_open"))


def children(pid: int) -> list[int]:
    """Pids of the children of a process."""
    if os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        return list(_children(pid))
    return [process.pid for process in _descendants_by_parent(pid) if process.parent == pid]


def descendants(pid: int) -> list[Process]:
    """Children of a process, their children and so on; parents come before their children."""
    if not os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        return _descendants_by_parent(pid)
    found = []
    waiting = list(_children(pid))
    while waiting:
        child = waiting.pop(0)
        try:
            found.append(Process(child))
        except (FileNotFoundError, ProcessLookupError):
            continue
        waiting += _children(child)
    return found


def _children(pid: int) -> Iterator[int]:
    """By the kernel's lists (CONFIG_PROC_CHILDREN, Linux 4.2); each thread has its own children."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            yield from map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except (FileNotFoundError, ProcessLookupError):
        return


def _descendants_by_parent(pid: int) -> list[Process]:
    """Without these lists all processes of the system are looked at."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                process = Process(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:
        found += children.get(process.pid, ())
    return found


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = b""
        while chunk := os.read(descriptor, 65536):
            data += chunk
        return data
    finally:
        os.close(descriptor)
