# SPDX-License-Identifier: Apache-2.0
"""Which version of control groups the kernel has (cgroups(7))."""

from __future__ import annotations

from northstar.kernel import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.controlgroups.cgroups import Cgroups


def detect(name: str, pids_max: int) -> Cgroups:
    """The control groups of this host, see `Cgroups`; without any of them those of version 1."""
    try:
        hierarchies = cgroup.detect()
    except OSError:
        hierarchies = cgroup.Hierarchies(cgroup.V1, None, {})
    # Only one of the two is ever needed.
    if hierarchies.mode == cgroup.V2:
        from northstar.runtime.controlgroups.version2 import UnifiedCgroups

        return UnifiedCgroups(name, pids_max, hierarchies)
    from northstar.runtime.controlgroups.version1 import LegacyCgroups

    return LegacyCgroups(name, pids_max, hierarchies)
