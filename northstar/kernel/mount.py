# SPDX-License-Identifier: Apache-2.0
"""Mounting: mount(2), umount2(2), the descriptor based interface and mountinfo.

With the descriptor based calls (Linux 5.2; `mount_setattr` 5.12) a mount is first prepared as a
detached object and then attached to a target that was resolved before: no path is looked up
twice, so nothing can be swapped in between.

Common errno values: EPERM no CAP_SYS_ADMIN in the owning user namespace; EINVAL bad options, not
a mount point, or a forbidden combination (see the functions); EBUSY in use; ENODEV file system
type unknown to the kernel; ENOTBLK/ENXIO source is no usable block device; ELOOP too many links,
or a move into itself; ENOSPC limit of mounts per namespace (fs.mount-max) reached.
"""

from __future__ import annotations

import ctypes
import errno
import os

from northstar.kernel.libc import AT_EMPTY_PATH, check, encode, function, syscall

# mount(2) flags
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

# umount2(2) flags
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1


class mount_attr(ctypes.Structure):
    """Argument of mount_setattr(2), first version, 32 bytes."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)
_pivot_root = syscall(155, 41, ctypes.c_char_p, ctypes.c_char_p)
_open_tree = syscall(428, 428, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = syscall(429, 429, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_fsopen = syscall(430, 430, ctypes.c_char_p, ctypes.c_uint)
_mount_setattr = syscall(
    442, 442, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.POINTER(mount_attr), ctypes.c_size_t
)


def mount(
    source: str | bytes | None,
    target: str | bytes,
    fstype: str | None,
    flags: int,
    data: str | bytes | None = None,
) -> None:
    """mount(2). Symbolic links in `target` are followed.

    A plain MS_BIND ignores every other flag but MS_REC, a bind remount ignores MS_REC: for binds use
    `open_tree` and `mount_setattr`.
    """
    check(
        _mount(
            encode(source, "mount"),
            encode(target, "mount"),
            encode(fstype, "mount"),
            flags,
            encode(data, "mount"),
        ),
        "mount",
        target,
    )


def umount(target: str | bytes, flags: int = 0) -> None:
    """umount2(2). EBUSY: in use (not with MNT_DETACH); EINVAL: no mount point; EAGAIN: MNT_EXPIRE only."""
    check(_umount2(encode(target, "umount"), flags), "umount", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): `new_root`, a mount point, becomes the root, and the old one is moved to `put_old`.

    EINVAL: the old one is no mount point, as in a chroot, or the kernel's initramfs; EBUSY: `new_root` is the
    old one.
    """
    check(_pivot_root(encode(new_root, "pivot_root"), encode(put_old, "pivot_root")), "pivot_root", new_root)


def open_tree(dirfd: int, path: str | bytes, flags: int = 0) -> int:
    """open_tree(2), Linux 5.2: descriptor of the mount at `path`; an empty path means `dirfd` itself.

    With OPEN_TREE_CLONE a detached copy (a bind mount not attached anywhere), with its submounts if
    AT_RECURSIVE is given too; the copy goes away with the descriptor unless it is moved. EINVAL: the
    mount is not in our mount namespace, or is unbindable. The descriptor is close-on-exec.
    """
    if not path:
        flags |= AT_EMPTY_PATH
    fd = _open_tree(dirfd, encode(path, "open_tree"), flags | OPEN_TREE_CLOEXEC)
    return check(fd, "open_tree", path or _fd_name(dirfd))


def move_mount(
    from_fd: int,
    to_fd: int,
    to_path: str | bytes = "",
    *,
    from_path: str | bytes = "",
    flags: int = 0,
) -> None:
    """move_mount(2), Linux 5.2: attach the (detached) mount `from_fd` to the target.

    The target is `to_path` below `to_fd`, or `to_fd` itself if the path is empty (an O_PATH
    descriptor does). Links in a path are not followed unless MOVE_MOUNT_T_SYMLINKS is given.
    EINVAL: source is a directory and target is not or the other way round, source is attached and
    its parent is shared, or the target's mount is not in our namespace. Before Linux 5.15 a detached
    tree cannot be attached below another detached tree, and before 6.15 not inside one.
    """
    if not from_path:
        flags |= MOVE_MOUNT_F_EMPTY_PATH
    if not to_path:
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    result = _move_mount(
        from_fd, encode(from_path, "move_mount"), to_fd, encode(to_path, "move_mount"), flags
    )
    check(result, "move_mount", to_path or _fd_name(to_fd))


def mount_setattr(
    dirfd: int,
    path: str | bytes,
    flags: int,
    attr_set: int,
    attr_clr: int = 0,
    propagation: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12: change MOUNT_ATTR_* and propagation of a mount.

    With AT_RECURSIVE of all submounts too, all or nothing. An empty path means `dirfd` itself.
    Attributes that are neither set nor cleared stay as they are. EINVAL: unknown attribute, or not a
    mount; EBUSY: becoming read-only while files are open for writing; EPERM: a locked flag.
    """
    if not path:
        flags |= AT_EMPTY_PATH
    attr = mount_attr(attr_set, attr_clr, propagation, 0)
    result = _mount_setattr(dirfd, encode(path, "mount_setattr"), flags, attr, ctypes.sizeof(attr))
    check(result, "mount_setattr", path or _fd_name(dirfd))


def fsopen(fstype: str) -> int:
    """fsopen(2), Linux 5.2: context of a new file system. ENODEV: type unknown to the kernel."""
    return check(_fsopen(encode(fstype, "fsopen"), FSOPEN_CLOEXEC), "fsopen", fstype)


def _fd_name(fd: int) -> str:
    """What a descriptor refers to, for an error text; procfs may be missing."""
    saved = ctypes.get_errno()
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"
    finally:
        ctypes.set_errno(saved)


class MountEntry:
    """One line of mountinfo. `target` is the mount point, `root` the part of the file system shown there."""

    __slots__ = (
        "device",
        "fstype",
        "options",
        "propagation",
        "root",
        "source",
        "super_options",
        "target",
    )

    def __init__(self, line: bytes) -> None:
        """Parse a line as of proc_pid_mountinfo(5). EINVAL if it is none."""
        left, separator, right = line.partition(b" - ")
        before = left.split(b" ")
        after = right.split(b" ")
        if not separator or len(before) < 6 or len(after) < 3:
            raise OSError(errno.EINVAL, "malformed mountinfo line", line)
        major, _, minor = before[2].partition(b":")
        self.device = (int(major), int(minor))
        self.root = unescape(before[3])
        self.target = unescape(before[4])
        self.options = frozenset(os.fsdecode(before[5]).split(","))
        self.propagation = tuple(os.fsdecode(field) for field in before[6:] if field)
        self.fstype = unescape(after[0])
        self.source = unescape(after[1])
        self.super_options = frozenset(os.fsdecode(after[2]).split(","))

    def __repr__(self) -> str:
        return f"<MountEntry {self.fstype} {self.source} on {self.target}>"


def unescape(field: bytes) -> str:
    """Undo the octal escapes (blank, tab, newline, backslash, #) of a mountinfo field."""
    first, *rest = field.split(b"\\")
    parts = [first]
    for part in rest:
        parts.append(bytes((int(part[:3], 8) & 0xFF,)) + part[3:])
    return os.fsdecode(b"".join(parts))


def mountinfo(path: str = "/proc/self/mountinfo") -> list[MountEntry]:
    """All mounts of a process's mount namespace below its root, in mount order (parents first)."""
    with open(path, "rb") as file:
        return [MountEntry(line) for line in file.read().splitlines()]
