# SPDX-License-Identifier: Apache-2.0
"""The mounts of a container, made in its new mount namespace, which still is a copy of the daemon's.

Sources are cloned as detached trees and carry their attributes before anybody can see them
(open_tree(2), mount_setattr(2), Linux 5.12). Targets are resolved inside the image only (openat2(2) with
RESOLVE_IN_ROOT): no link or `..` in an image leads outside.
"""

from __future__ import annotations

import errno
import os

from northstar.kernel import mount, paths
from northstar.kernel.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.forker.job import Job
    from northstar.forker.messages import MountPlan

_INSIDE = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS
_CLONE = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC


def assemble(job: Job) -> int:
    """Attach all mounts below the image's root; a descriptor of that root.

    All sources are looked up before anything is attached: what is attached could be meant by a later one.
    """
    trees = [_clone(job, plan) for plan in job.plan["mounts"]]
    job.step = "make mounts slaves of the host's"
    mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
    job.step = f"open image root {job.plan['root']}"
    root = os.open(job.plan["root"], os.O_PATH | os.O_DIRECTORY)
    for plan, tree in zip(job.plan["mounts"], trees, strict=True):
        _attach(job, root, plan, tree)
    return root


def enter(job: Job, root: int) -> None:
    """Make the directory `root` the root of the namespace, for init as well: pivot_root(2)."""
    job.step = "pivot_root"
    os.fchdir(root)
    mount.pivot_root(".", ".")
    # The old root is now stacked on the new one; "." still is the old one's place.
    mount.umount(".", mount.MNT_DETACH)
    os.chdir("/")
    os.close(root)


def rehearse() -> None:
    """Make a tree and a file system, look a target up, and throw everything away."""
    tree = mount.open_tree(AT_FDCWD, "/dev", _CLONE)
    mount.mount_setattr(tree, "", AT_EMPTY_PATH, mount.MOUNT_ATTR_NOSUID, 0)
    target = paths.openat2(tree, "null", os.O_PATH | os.O_CLOEXEC, _INSIDE)
    os.close(mount.new_filesystem("tmpfs", {"size": "4096"}.items(), mount.MOUNT_ATTR_NOSUID))
    os.close(target)
    os.close(tree)


def _clone(job: Job, plan: MountPlan) -> int | None:
    job.step = f"mount {plan['target']}"
    recursive = AT_RECURSIVE if plan["recursive"] else 0
    try:
        if plan["kind"] == "resource":
            job.step = f"resource {plan['target']}"
            tree = _clone_inside(plan["source"], plan["directory"], recursive)
        elif plan["kind"] in ("bind", "tree"):
            tree = mount.open_tree(AT_FDCWD, plan["source"], _CLONE | recursive)
        else:
            return None
    except FileNotFoundError:
        if plan["optional"]:
            return None
        raise
    if plan["attributes"]:
        mount.mount_setattr(tree, "", AT_EMPTY_PATH | recursive, plan["attributes"], 0)
    return tree


def _clone_inside(source: str, directory: str, recursive: int) -> int:
    root = os.open(source, os.O_PATH | os.O_DIRECTORY)
    inside = paths.openat2(root, directory, os.O_PATH | os.O_CLOEXEC, _INSIDE)
    tree = mount.open_tree(inside, "", AT_EMPTY_PATH | _CLONE | recursive)
    os.close(inside)
    os.close(root)
    return tree


def _attach(job: Job, root: int, plan: MountPlan, tree: int | None) -> None:
    job.step = f"mount {plan['target']}"
    if tree is None:
        if plan["kind"] in ("bind", "resource", "tree"):
            return
        tree = mount.new_filesystem(plan["kind"], plan["options"].items(), plan["attributes"])
    target = paths.openat2(root, plan["target"], os.O_PATH | os.O_CLOEXEC, _INSIDE)
    if os.path.samestat(os.fstat(target), os.fstat(root)):
        raise OSError(errno.EINVAL, "the mount point is the root of the image", plan["target"])
    mount.move_mount(tree, target)
    os.close(target)
    os.close(tree)
