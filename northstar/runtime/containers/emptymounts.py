# SPDX-License-Identifier: Apache-2.0
"""A mount namespace with nothing in it, of which those of containers are copies.

A copy of the daemon's would have all mounts of the host and of all packages, to be umounted one by one.
"""

from __future__ import annotations

import _thread
import os

from northstar.kernel import mount, namespaces

_FLAGS = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


def make(place: str) -> int:
    """Its descriptor. On `place`, a directory, its root is mounted before it becomes that.

    Raises OSError. EINVAL: the root of this process is no mount point.
    """
    outcome: list[int | BaseException] = []
    working = _thread.allocate_lock()
    working.acquire()

    def work() -> None:
        try:
            outcome.append(_make(place))
        except BaseException as error:
            outcome.append(error)
        finally:
            working.release()

    # A thread can leave the namespace of all others, for good.
    _thread.start_new_thread(work, ())
    working.acquire()
    made = outcome[0]
    if isinstance(made, BaseException):
        raise made
    return made


def _make(place: str) -> int:
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
