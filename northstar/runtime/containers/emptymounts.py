# SPDX-License-Identifier: Apache-2.0
"""A mount namespace with nothing in it, of which those of containers are copies.

A copy of the daemon's would have all mounts of the host and of all packages, to be umounted one by one.
"""

from __future__ import annotations

import os

from northstar.kernel import mount, namespaces

_FLAGS = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


def make(place: str) -> int:
    """Its descriptor. On `place`, a directory, its root is mounted before it becomes that.

    For a thread that ends then, as it leaves the namespace of all others. Raises OSError. EINVAL: the root of
    this process is no mount point.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    descriptor = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        mount.mount(None, "/", None, mount.MS_PRIVATE | mount.MS_REC)
        mount.mount("none", place, "tmpfs", _FLAGS, "size=4k,mode=555")
        os.chdir(place)
        mount.pivot_root(".", ".")
        mount.umount(".", mount.MNT_DETACH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
