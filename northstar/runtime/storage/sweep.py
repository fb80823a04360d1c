# SPDX-License-Identifier: Apache-2.0
"""Cleaning up after a daemon that did not end in order.

There is no database of what was in use: everything found here is recognised by its place or its name,
and nothing else is touched. Each removal is logged; what cannot be removed is logged and left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

from northstar.config import places
from northstar.errors import NorthstarError
from northstar.kernel import cgroup, cgrouptree, dm, filesystem, loopdevice, mount
from northstar.names import Container
from northstar.runtime.storage.directory import is_temporary
from northstar.runtime.storage.mounter import (
    DEVICES_DIR,
    DM_NAME_PREFIX,
    DM_UUID_PREFIX,
    LOOP_TAG_PREFIX,
    MOUNT_SOURCE,
    NODE_DIR,
    owner_id,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from northstar.config import Config

    Log = Callable[[str, str], object]

_MEMFD_PREFIX = "/memfd:"
_DELETED = " (deleted)"
_CGROUP_TYPES = frozenset((filesystem.CGROUP_SUPER_MAGIC, filesystem.CGROUP2_SUPER_MAGIC))


def lock_directories(config: Config) -> list[int]:
    """Lock all directories that the daemon changes; descriptors that keep the locks.

    To be taken before anything is mounted. Data and repositories that cannot be opened are left out.
    Raises NorthstarError if another daemon has one.
    """
    locks: list[int] = []
    try:
        for name, path in places.directories_of(config):
            try:
                locks.append(lock(path))
            except OSError as error:
                if name == "data_dir" or name.startswith("repositories."):
                    # Whoever needs it tells more.
                    continue
                raise NorthstarError(f"{name} {path} cannot be locked: {error.strerror}") from None
    except BaseException:
        for fd in locks:
            os.close(fd)
        raise
    return locks


def lock(path: str) -> int:
    """Lock a directory for this daemon; the lock lasts until the returned descriptor is closed.

    Raises NorthstarError if another daemon has it, OSError if there is no such directory.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise NorthstarError(
            f"{path} is in use by another northstar daemon",
            hint="stop that daemon, or configure another directory",
        ) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def sweep(
    *,
    run_dir: str,
    socket_dir: str | None,
    repositories: Iterable[str],
    cgroups: Iterable[str],
    log: Log,
) -> None:
    """Remove what an earlier daemon left. To be called with run_dir locked, before it is mounted over.

    `repositories` are the directories of the configured repositories, `cgroups` the absolute paths of our
    top level group in every hierarchy. Directories that do not exist are fine. `log(level, message)`.
    """
    directories = [os.path.realpath(path) for path in repositories]
    run_dir = os.path.realpath(run_dir)
    _mounts(run_dir, log)
    _mapped_devices(log)
    _loop_devices(directories, log)
    for path in cgroups:
        _cgroup(path, log)
    if socket_dir is not None:
        _sockets(socket_dir, log)
    _mount_points(run_dir, log)
    for path in directories:
        _temporary_files(path, log)


def _attempt(log: Log, what: str, action: Callable[..., object], *arguments: object) -> bool:
    """Call and log it; False if it failed."""
    try:
        action(*arguments)
    except OSError as failure:
        log("warn", f"sweep: failed to remove {what}: {failure.strerror}")
        return False
    log("info", f"sweep: removed {what}")
    return True


def _entries(path: str, log: Log) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as failure:
        log("warn", f"sweep: failed to read {path}: {failure.strerror}")
        return []


def _mounts(run_dir: str, log: Log) -> None:
    """What we have mounted below run_dir. Later mounts first: they may lie on or in earlier ones."""
    for entry in reversed(mount.mountinfo()):
        if not entry.target.startswith(f"{run_dir}/"):
            continue
        if _is_our_mount(entry, run_dir):
            flags = mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW
            _attempt(log, f"mount {entry.target}", mount.umount, entry.target, flags)
        else:
            log("warn", f"sweep: {entry.target} is mounted by somebody else, left alone")


def _is_our_mount(entry: mount.MountEntry, run_dir: str) -> bool:
    """Images are mounted from our own device nodes or loop devices; other mounts of ours name us as their
    source.
    """
    if entry.target.startswith(f"{run_dir}/{DEVICES_DIR}"):
        return True
    if entry.fstype == "tmpfs":
        return entry.source == MOUNT_SOURCE
    return entry.source.startswith(f"{run_dir}/{NODE_DIR}/") or _is_our_loop_device(entry.source)


def _is_our_loop_device(path: str) -> bool:
    """Whether it has our tag."""
    number = path.removeprefix("/dev/loop")
    if number == path or not number.isdecimal():
        return False
    try:
        fd = loopdevice.open_device(int(number))
    except OSError:
        return False
    try:
        return loopdevice.status(fd).tag.startswith(LOOP_TAG_PREFIX)
    except OSError:  # detached meanwhile
        return False
    finally:
        os.close(fd)


def _mapped_devices(log: Log) -> None:
    try:
        control = dm.Control()
    except OSError as failure:
        if failure.errno != errno.ENODEV:
            log("warn", f"sweep: device mapper: {failure.strerror}")
        return
    try:
        for name, _ in control.list_devices():
            if name.startswith(DM_NAME_PREFIX):
                _mapped_device(control, name, log)
    except OSError as failure:
        log("warn", f"sweep: device mapper: {failure.strerror}")
    finally:
        control.close()


def _mapped_device(control: dm.Control, name: str, log: Log) -> None:
    try:
        device = control.status(name)
    except OSError as failure:
        if failure.errno != errno.ENXIO:  # gone meanwhile
            log("warn", f"sweep: device {name}: {failure.strerror}")
        return
    if not device.uuid.startswith(DM_UUID_PREFIX) or device.deferred_remove or _owner_lives(name):
        return
    _attempt(log, f"device {name}", control.remove, name)


def _owner_lives(name: str) -> bool:
    """Whether the daemon that made the mapped device is still there."""
    owner = name.removeprefix(DM_NAME_PREFIX).partition("-")[0]
    pid = owner.partition(".")[0]
    if not pid.isdigit():
        return False
    try:
        return owner_id(int(pid)) == owner
    except OSError:
        return False


def _loop_devices(repositories: list[str], log: Log) -> None:
    try:
        devices = list(loopdevice.devices())
    except OSError as failure:
        log("warn", f"sweep: loop devices: {failure.strerror}")
        return
    for number, backing in devices:
        if _is_our_file(backing, repositories):
            _loop_device(number, log)


def _is_our_file(backing: str, repositories: list[str]) -> bool:
    path = backing.removesuffix(_DELETED)
    return path.startswith(_MEMFD_PREFIX) or any(path.startswith(f"{base}/") for base in repositories)


def _loop_device(number: int, log: Log) -> None:
    """Detach a loop device with our tag. One that is still in use stays until its user lets go."""
    try:
        fd = loopdevice.open_device(number)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENXIO):
            log("warn", f"sweep: loop device {number}: {failure.strerror}")
        return
    try:
        found = loopdevice.status(fd)
        if found.tag.startswith(LOOP_TAG_PREFIX) and not found.flags & loopdevice.LO_FLAGS_AUTOCLEAR:
            _attempt(log, f"loop device {number} ({found.tag})", loopdevice.detach, fd)
    except OSError as failure:
        if failure.errno != errno.ENXIO:  # detached meanwhile
            log("warn", f"sweep: loop device {number}: {failure.strerror}")
    finally:
        os.close(fd)


def _cgroup(path: str, log: Log) -> None:
    """The group and all below it, as far as there are no processes inside."""
    try:
        is_group = filesystem.filesystem_type(path) in _CGROUP_TYPES
    except OSError:
        return
    if not is_group or os.path.ismount(path):
        log("warn", f"sweep: {path} is no control group below a hierarchy")
        return
    parent, name = os.path.split(path.rstrip("/"))
    fd = cgroup.open_root(parent)
    try:
        _cgroup_tree(fd, name, path, log)
    finally:
        os.close(fd)


def _cgroup_tree(parent_fd: int, name: str, path: str, log: Log) -> None:
    try:
        fd = cgroup.open_group(parent_fd, name)
    except FileNotFoundError:
        return
    try:
        for child in cgroup.children(fd):
            _cgroup_below(fd, child, f"{path}/{child}", log)
        left = cgroup.children(fd)
        inside = cgroup.processes(fd)
    finally:
        os.close(fd)
    if inside:
        log("warn", f"sweep: control group {path} has processes inside, left alone")
    elif not left:
        _attempt(log, f"control group {path}", cgrouptree.remove, parent_fd, name)


def _cgroup_below(parent_fd: int, name: str, path: str, log: Log) -> None:
    """The group of a container, with all that is below."""
    try:
        fd = cgroup.open_group(parent_fd, name)
    except FileNotFoundError:
        return
    try:
        populated = cgrouptree.populated(fd)
    finally:
        os.close(fd)
    if populated:
        log("warn", f"sweep: control group {path} has processes inside, left alone")
    else:
        _attempt(log, f"control group {path}", cgrouptree.remove, parent_fd, name)


def _sockets(socket_dir: str, log: Log) -> None:
    """Sockets named <name>:<version>:<socket>, which nobody serves any more."""
    for entry in _entries(socket_dir, log):
        container, _, name = entry.name.rpartition(":")
        if not name or not _is_container(container):
            continue
        try:
            is_socket = stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
        except FileNotFoundError:
            continue
        if is_socket and _is_served(entry.path):
            log("warn", f"sweep: somebody serves the socket {entry.path}, left alone")
        elif is_socket:
            _attempt(log, f"socket {entry.path}", os.unlink, entry.path)


def _is_served(path: str) -> bool:
    """Whether a process has it open."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(path)
                return True
            except OSError as error:
                # EPROTOTYPE: it is of another type, and so there is somebody.
                if error.errno != errno.ECONNREFUSED:
                    return error.errno != errno.ENOENT
    return False


def _is_container(text: str) -> bool:
    try:
        Container.parse(text)
    except ValueError:
        return False
    return True


def _mount_points(run_dir: str, log: Log) -> None:
    """Empty directories <name>:<version> and our directory of device nodes."""
    for entry in _entries(run_dir, log):
        path = entry.path
        if not entry.is_dir(follow_symlinks=False):
            continue
        if entry.name == NODE_DIR:
            _nodes(path, log)
        elif not _is_container(entry.name):
            continue
        _attempt(log, f"directory {path}", os.rmdir, path)


def _nodes(node_dir: str, log: Log) -> None:
    for entry in _entries(node_dir, log):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            _attempt(log, f"device node {entry.path}", os.unlink, entry.path)


def _temporary_files(directory: str, log: Log) -> None:
    """What an interrupted install left in a repository."""
    for entry in _entries(directory, log):
        if is_temporary(entry.name) and entry.is_file(follow_symlinks=False):
            _attempt(log, f"temporary file {entry.path}", os.unlink, entry.path)
