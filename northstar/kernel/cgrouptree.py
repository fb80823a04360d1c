# SPDX-License-Identifier: Apache-2.0
"""Control groups with all that is below them: whether there are processes, ending them, removing the groups.

Whoever may make groups may nest them as deep as he likes, so nothing here is recursive.
"""

from __future__ import annotations

import errno
import os
import select
import time

from northstar.kernel import cgroup
from northstar.kernel.process import pidfd_open, pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGKILL = 9


def populated(group_fd: int) -> bool:
    """Whether there is a process in the group or below; v1 and v2."""
    try:
        return cgroup.parse_flat_keyed(cgroup.read(group_fd, "cgroup.events")).get("populated", 0) != 0
    except FileNotFoundError:  # v1, and the root of v2
        return _any_process(group_fd)


def _any_process(group_fd: int) -> bool:
    if _has_process(group_fd):
        return True
    for above, name in _below(group_fd):
        fd = _open_child(above, name)
        if fd is None:
            continue
        try:
            if _has_process(fd):
                return True
        finally:
            os.close(fd)
    return False


def _has_process(group_fd: int) -> bool:
    try:
        return bool(cgroup.processes(group_fd))
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ENODEV):  # the group was removed
            return False
        raise


def _below(group_fd: int) -> Iterator[tuple[int, str]]:
    """All groups below one, deepest first: a descriptor of the group above, and the name.

    It is valid until the next one. However deep they are nested, there are two descriptors.
    """
    above = os.dup(group_fd)
    pending = [cgroup.children(above)]
    try:
        while True:
            names = pending[-1]
            if not names:
                pending.pop()
                if not pending:
                    return
                up = os.open("..", cgroup.DIRECTORY, dir_fd=above)
                os.close(above)
                above = up
                yield above, pending[-1].pop()
                continue
            fd = _open_child(above, names[-1])
            if fd is None:
                names.pop()
                continue
            found = cgroup.children(fd)
            if found:
                os.close(above)
                above = fd
                pending.append(found)
            else:
                os.close(fd)
                yield above, names.pop()
    finally:
        os.close(above)


def _open_child(group_fd: int, name: str) -> int | None:
    try:
        return os.open(name, cgroup.DIRECTORY, dir_fd=group_fd)
    except FileNotFoundError:
        return None


def kill(group_fd: int) -> None:
    """SIGKILL to every process in the group and below: cgroup.kill (Linux 5.14), else one by one.

    One by one, a process that forks meanwhile may escape: repeat until `populated` says no.
    """
    try:
        cgroup.write(group_fd, "cgroup.kill", "1")
        return
    except FileNotFoundError:
        pass
    _kill_members(group_fd)
    for above, name in _below(group_fd):
        fd = _open_child(above, name)
        if fd is not None:
            try:
                _kill_members(fd)
            finally:
                os.close(fd)


def _kill_members(group_fd: int) -> None:
    for pid in cgroup.processes(group_fd):
        _kill_member(group_fd, pid)


def _kill_member(group_fd: int, pid: int) -> bool:
    """Kill `pid` if it is (still) a member, so that no other process that got the number is hit."""
    if pid <= 0:  # a process of another pid namespace that we cannot name
        return False
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in cgroup.processes(group_fd):
            return False
        pidfd_send_signal(pidfd, _SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def wait_unpopulated(group_fd: int, timeout: float) -> bool:
    """Wait until no process is left in the group and below; False if `timeout` seconds pass before.

    On v2 the kernel wakes us (poll of cgroup.events), on v1 this looks every 10 ms.
    """
    deadline = time.monotonic() + timeout
    fd = _open_events(group_fd)
    try:
        while _events_populated(fd) if fd is not None else _any_process(group_fd):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            if fd is None:
                time.sleep(min(0.01, remaining))
                continue
            # Reports a change since the last read of this very descriptor, so none is missed.
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            poller.poll(remaining * 1000)
        return True
    finally:
        if fd is not None:
            os.close(fd)


def _events_populated(fd: int) -> bool:
    try:
        return cgroup.parse_flat_keyed(os.pread(fd, 4096, 0)).get("populated", 0) != 0
    except OSError as failure:
        if failure.errno == errno.ENODEV:  # the group was removed
            return False
        raise


def _open_events(group_fd: int) -> int | None:
    try:
        return os.open("cgroup.events", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=group_fd)
    except FileNotFoundError:
        return None


def remove(parent_fd: int, name: str, timeout: float = 0.0) -> None:
    """Remove the child group `name` and all groups below it, deepest first.

    While that is EBUSY (a dying process is counted until it is reaped) it is tried again until `timeout`
    seconds have passed. A group that is gone already is fine.
    """
    cgroup.check_name(name)
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            _remove_tree(parent_fd, name)
            return
        except OSError as failure:
            if failure.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 2, 0.1)


def _remove_tree(parent_fd: int, name: str) -> None:
    fd = _open_child(parent_fd, name)
    if fd is None:
        return
    try:
        for above, below in _below(fd):
            _remove_directory(above, below)
    finally:
        os.close(fd)
    _remove_directory(parent_fd, name)


def _remove_directory(parent_fd: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, name) from None
