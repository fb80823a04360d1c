# SPDX-License-Identifier: Apache-2.0
"""Changing user, groups and capability sets (credentials(7), capabilities(7))."""

from __future__ import annotations

import os

from northstar.kernel import capabilities, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.forker.job import Job


def become_user(job: Job) -> None:
    """Take over uid, gid and groups of the plan for good.

    The permitted capabilities stay for the steps that still need them; what the plan does not grant is out of
    the bounding set and can never come back. Raises OSError.
    """
    plan = job.plan
    job.step = "drop capability bounding set"
    for capability in range(capabilities.last_cap() + 1):
        if not plan["capabilities"] >> capability & 1:
            capabilities.drop_bounding(capability)
    uid, gid = plan["uid"], plan["gid"]
    job.step = f"change to user {uid} and group {gid}"
    _, permitted, _ = capabilities.get()
    prctl.set_keep_caps(True)
    os.setgroups(plan["groups"])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    prctl.set_keep_caps(False)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise OSError(0, "the kernel did not change the credentials")
    capabilities.set(permitted, permitted, plan["capabilities"])
    prctl.set_dumpable(False)
