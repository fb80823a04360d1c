# SPDX-License-Identifier: Apache-2.0
"""The mounts of a container, made by its init in a new mount namespace.

That is the copy of an empty one, as there may be hundreds of mounts in the daemon's. Sources, the image too,
are cloned as detached trees before it is entered, and carry their attributes before anybody can see them
(open_tree(2), mount_setattr(2), Linux 5.12). Targets are resolved inside the image only (openat2(2) with
RESOLVE_IN_ROOT): no link or `..` in an image leads outside.
"""

from __future__ import annotations

import errno
import os
import struct

from northstar.engine import instructions as isa
from northstar.engine.assembler import Label
from northstar.kernel import mount, namespaces, paths
from northstar.kernel.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Program, Register
    from northstar.programs.plan import MountPlan, Plan

_PATH = os.O_PATH | os.O_CLOEXEC
_INSIDE = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS
_CLONE = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC
_OPEN_HOW = struct.Struct("<3Q")
_MOUNT_ATTR = struct.Struct("<4Q")
_STAT_SIZE = 144
_IDENTITY_SIZE = 16
"""st_dev and st_ino come first in `struct stat`."""
_STATX_SIZE = 256
_STATX_MOUNT_ROOT_BYTE, _MOUNT_ROOT = 9, b"\x20"
"""Where stx_attributes has STATX_ATTR_MOUNT_ROOT (statx(2), Linux 5.8); of squashfs alone in its byte."""
_RETRIES = 1000
"""openat2(2) gives EAGAIN if anything is renamed or mounted during the look-up of ".."."""


class _Tree:
    """A source on its way to its target; `there` is negative if an optional one does not exist."""

    __slots__ = ("plan", "there")

    def __init__(self, plan: MountPlan, there: Register | None) -> None:
        self.plan = plan
        self.there = there


def assemble(p: Program, plan: Plan, empty: Register) -> Register:
    """Attach all mounts below the image's root; a descriptor of that root.

    `empty` is a mount namespace with nothing in it. All sources are looked up before it is entered.
    """
    how = p.put(_OPEN_HOW.pack(_PATH, 0, _INSIDE))
    trees = [_Tree(mount_plan, _clone(p, mount_plan, how)) for mount_plan in plan["mounts"]]
    p.purpose = f"open image root {plan['root']}"
    root = _clone_root(p, plan["root"])
    p.purpose = "enter a mount namespace of its own"
    p.call("setns", empty, namespaces.CLONE_NEWNS)
    p.call("unshare", namespaces.CLONE_NEWNS)
    p.call("move_mount", root, "", AT_FDCWD, "/", mount.MOVE_MOUNT_F_EMPTY_PATH)
    if trees:
        found, forbidden = p.reserve(_STAT_SIZE), p.reserve(_STAT_SIZE)
        p.call("fstat", root, forbidden)
        for tree in trees:
            _attach(p, root, tree, how, (found, forbidden))
    return root


def enter(p: Program, root: Register) -> None:
    """Make a directory the root of the namespace (pivot_root(2)).

    The old root is stacked on it then, until `leave_old_root`.
    """
    p.purpose = "pivot_root"
    p.call("fchdir", root)
    p.call("pivot_root", ".", ".")


def leave_old_root(p: Program) -> None:
    """The namespace has nothing but the container's mounts from now on.

    The kernel waits for a moment here, so it is left to who has the time.
    """
    p.purpose = "umount the old root"
    p.call("umount2", ".", mount.MNT_DETACH)
    p.call("chdir", "/")


def _clone_root(p: Program, path: str) -> Register:
    """EINVAL: somebody has umounted the image, and what is there is only a directory of the host."""
    found = p.reserve(_STATX_SIZE)
    p.call("statx", AT_FDCWD, path, 0, 0, found)
    p.require_same(found + _STATX_MOUNT_ROOT_BYTE, p.put(_MOUNT_ROOT), 1, errno.EINVAL)
    root = p.value("open_tree", AT_FDCWD, path, _CLONE, of="root")
    _make_slave(p, root, 0, 0)
    return root


def _clone(p: Program, plan: MountPlan, how: int) -> Register | None:
    recursive = AT_RECURSIVE if plan["recursive"] else 0
    absent = isa.NO_SUCH_PATH if plan["optional"] else 0
    p.purpose = f"mount {plan['target']}"
    if plan["kind"] == "resource":
        p.purpose = f"resource {plan['target']}"
        image = p.value("openat", AT_FDCWD, plan["source"], _PATH | os.O_DIRECTORY, 0, of="image")
        inside = p.value(
            "openat2", image, plan["directory"], how, _OPEN_HOW.size, of="inside", retries=_RETRIES
        )
        tree = p.value("open_tree", inside, "", AT_EMPTY_PATH | _CLONE | recursive, of="tree")
        p.call("close", inside)
        p.call("close", image)
    elif plan["kind"] in ("bind", "tree"):
        tree = p.value("open_tree", AT_FDCWD, plan["source"], _CLONE | recursive, of="tree", tolerate=absent)
    else:
        return None
    after = Label()
    if absent:
        p.jump_if_negative(tree, after)
    _make_slave(p, tree, plan["attributes"], recursive)
    p.place(after)
    return tree


def _make_slave(p: Program, tree: Register, attributes: int, recursive: int) -> None:
    """A clone of a shared mount is its peer: what is mounted below it would be mounted on the host, too."""
    wanted = p.put(_MOUNT_ATTR.pack(attributes, 0, mount.MS_SLAVE, 0))
    p.call("mount_setattr", tree, "", AT_EMPTY_PATH | recursive, wanted, _MOUNT_ATTR.size)


def _attach(p: Program, root: Register, tree: _Tree, how: int, identities: tuple[int, int]) -> None:
    plan, source, after = tree.plan, tree.there, Label()
    found, forbidden = identities
    p.purpose = f"mount {plan['target']}"
    if source is None:
        source = _new_filesystem(p, plan)
    elif plan["optional"]:
        p.jump_if_negative(source, after)
    target = p.value("openat2", root, plan["target"], how, _OPEN_HOW.size, of="target", retries=_RETRIES)
    p.call("fstat", target, found)
    p.purpose = f"mount {plan['target']}: the mount point is the root of the image"
    p.require_different(found, forbidden, _IDENTITY_SIZE, errno.EINVAL)
    p.purpose = f"mount {plan['target']}"
    both = mount.MOVE_MOUNT_F_EMPTY_PATH | mount.MOVE_MOUNT_T_EMPTY_PATH
    p.call("move_mount", source, "", target, "", both)
    p.call("close", target)
    p.call("close", source)
    p.place(after)


def _new_filesystem(p: Program, plan: MountPlan) -> Register:
    """A detached mount. A procfs belongs to the pid namespace of init, a sysfs to its network namespace."""
    kind = plan["kind"]
    context = p.value("fsopen", kind, mount.FSOPEN_CLOEXEC, of="context")
    for key, value in (("source", kind), *plan["options"].items()):
        p.call("fsconfig", context, mount.FSCONFIG_SET_STRING, key, value, 0)
    p.call("fsconfig", context, mount.FSCONFIG_CMD_CREATE, None, None, 0)
    tree = p.value("fsmount", context, mount.FSMOUNT_CLOEXEC, plan["attributes"], of="tree")
    p.call("close", context)
    return tree
