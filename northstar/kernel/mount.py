# SPDX-License-Identifier: Apache-2.0
"""Mounting: mount(2), umount2(2), pivot_root(2), the descriptor based interface and mountinfo.

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

from northstar.kernel.libc import AT_EMPTY_PATH, check, encode, error, function, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# mount(2) flags
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

# umount2(2) flags
MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_SYMLINKS = 0x1
MOVE_MOUNT_F_AUTOMOUNTS = 0x2
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_AUTOMOUNTS = 0x20
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70
"""Mask of the access time modes; clear it whenever one of them is set."""
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
"""Do not follow symbolic links on this mount (Linux 5.14)."""

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8


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
_fsconfig = syscall(431, 431, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fsmount = syscall(432, 432, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_fspick = syscall(433, 433, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
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


def pivot_root(new_root: str | bytes, put_old: str | bytes) -> None:
    """pivot_root(2). Both may be "." (then the old root lies on top of the new one).

    EINVAL: the new root is no mount point, or it, its parent mount or the parent of the current root
    is shared, or the current root is the initramfs; EBUSY: same mount as the current root.
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


def fspick(dirfd: int, path: str | bytes = "") -> int:
    """fspick(2), Linux 5.2: context to reconfigure the file system mounted at `path`."""
    flags = _FSPICK_CLOEXEC | (0 if path else _FSPICK_EMPTY_PATH)
    return check(_fspick(dirfd, encode(path, "fspick"), flags), "fspick", path or _fd_name(dirfd))


def fsconfig(
    fd: int,
    command: int,
    key: str | None = None,
    value: str | bytes | None = None,
    *,
    subject: str | None = None,
) -> None:
    """fsconfig(2), Linux 5.2: set a flag or a string option, create or reconfigure.

    The kernel's explanation of a refusal is added to the error text; the error's file name is `subject`
    or the key.
    """
    if _fsconfig(fd, command, encode(key, "fsconfig"), encode(value, "fsconfig"), 0) < 0:
        failure = error("fsconfig", subject or key)
        explanation = _fs_messages(fd)
        if explanation:
            raise OSError(failure.errno, f"{failure.strerror} ({explanation})", failure.filename)
        raise failure


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2), Linux 5.2: detached mount (MOUNT_ATTR_*) of a created file system context.

    EPERM: in a user namespace, mounting proc or sysfs needs a fully visible instance of it.
    """
    return check(_fsmount(fd, FSMOUNT_CLOEXEC, attributes), "fsmount")


def new_filesystem(
    fstype: str,
    options: Iterable[tuple[str, str | None]] = (),
    attributes: int = 0,
    *,
    source: str | None = None,
    readonly: bool = False,
) -> int:
    """Descriptor of a detached mount of a new file system, ready for `move_mount`.

    `source` is the device, or the name shown in mountinfo (default: the type). `options` are (key, value)
    pairs, value None for a flag. `readonly` makes the file system itself read-only, MOUNT_ATTR_RDONLY in
    `attributes` only this mount of it. A procfs belongs to the pid namespace of the caller at this time,
    a sysfs to its network namespace.
    """
    context = fsopen(fstype)
    try:
        fsconfig(context, FSCONFIG_SET_STRING, "source", source or fstype)
        for key, value in options:
            fsconfig(context, FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING, key, value)
        if readonly:
            fsconfig(context, FSCONFIG_SET_FLAG, "ro")
        fsconfig(context, FSCONFIG_CMD_CREATE, subject=source or fstype)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def _fs_messages(context: int) -> str:
    """The kernel's error messages queued on a file system context (lines "e text")."""
    messages = []
    while True:
        try:
            message = os.read(context, 4096)
        except OSError:  # ENODATA: no more
            break
        if not message:
            break
        if message[:2] == b"e ":
            messages.append(message[2:].decode("utf-8", "replace").strip())
    return "; ".join(messages)


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
        "mount_id",
        "options",
        "parent_id",
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
        self.mount_id = int(before[0])
        self.parent_id = int(before[1])
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
