# SPDX-License-Identifier: Apache-2.0
"""A start order, unpacked."""

from __future__ import annotations

from northstar.forker import messages


class Job:
    """A plan with the descriptors and filters that came with it, and what is being done."""

    __slots__ = (
        "application_filter",
        "host_network",
        "init_filter",
        "kept",
        "plan",
        "procs",
        "roles",
        "step",
    )

    def __init__(self, order: bytes, descriptors: list[int], host_network: int) -> None:
        """`host_network` is a descriptor of the host's network namespace."""
        self.plan, self.application_filter, self.init_filter = messages.decode_start(order)
        self.host_network = host_network
        self.roles: dict[str, int] = {}
        self.procs: list[int] = []
        """cgroup.procs of groups of version 1."""
        self.kept: dict[int, int] = {}
        """By the number that the application will see."""
        self.step = "receive plan"
        for role, descriptor in zip(self.plan["descriptors"], descriptors, strict=True):
            if isinstance(role, int):
                self.kept[role] = descriptor
            elif role == "procs":
                self.procs.append(descriptor)
            else:
                self.roles[role] = descriptor

    @property
    def status(self) -> int:
        """Descriptor of the status channel to the daemon."""
        return self.roles["status"]
