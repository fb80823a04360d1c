# SPDX-License-Identifier: Apache-2.0
"""Names of groups, which stand side by side with the files of the kernel."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

DAEMON = "_daemon"
"""Group of the daemon itself where it must not be in a group above those of containers.

No container's group is named like that, see `group_name`.
"""

_FILES = frozenset(("tasks", "notify_on_release", "release_agent"))
_PREFIXES = frozenset(
    (
        *("blkio", "cgroup", "cpu", "cpuacct", "cpuset", "debug", "devices", "dmem", "freezer", "hugetlb"),
        *("io", "irq", "memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"),
    )
)
"""What stands before the first dot of all others: controllers and two more (cgroup-v2.rst, cgroup-v1/)."""


def is_kernel_file(name: str, controllers: Collection[str] = ()) -> bool:
    """Whether the kernel has, or may get, a file of that name in a group.

    `controllers` are those of this kernel, which may be newer than the ones known here.
    """
    prefix, dot, _ = name.partition(".")
    return name in _FILES or (dot == "." and (prefix in _PREFIXES or prefix in controllers))


def group_name(container: str, controllers: Collection[str] = ()) -> str:
    """Name of a container's group: its own, with `_` before it where that is in use or would be ambiguous."""
    escaped = container.startswith("_") or is_kernel_file(container, controllers)
    return f"_{container}" if escaped else container
