# SPDX-License-Identifier: Apache-2.0
"""What the daemon does on a machine that lacks something: it starts, and serves who does not need it."""

from __future__ import annotations

import os
import sys

import pytest
from runtime import Runtime, shell

from northstar.client import Refused

MAPPER_CONTROL = os.makedev(10, 236)
"""MAPPER_CTRL_MINOR of include/linux/miscdevice.h."""

PROLOGUE = """\
import os, stat, sys
from northstar.kernel import mount, namespaces
namespaces.unshare(namespaces.CLONE_NEWNS)
mount.mount(None, "/", None, mount.MS_PRIVATE | mount.MS_REC)
"""
EPILOGUE = "os.execv(sys.executable, [sys.executable, '-m', 'northstar', *sys.argv[1:]])\n"

WITHOUT_CGROUPS = """\
mount.umount("/sys/fs/cgroup", mount.MNT_DETACH)
"""
WITHOUT_NODES = """\
mount.mount("tmpfs", "/dev", "tmpfs", 0)
os.mknod("/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
"""


def without(runtime: Runtime, what: str) -> None:
    """Let the daemon see less than there is."""
    runtime.command = [sys.executable, "-c", PROLOGUE + what + EPILOGUE]


def test_without_control_groups(runtime: Runtime) -> None:
    """S-64: one line says so; only who has limits is refused, with the controller; inspect tells the rest."""
    without(runtime, WITHOUT_CGROUPS)
    runtime.pack(shell("a", "echo fine; exec sleep 1000"))
    runtime.pack(shell("limited", cgroups={"memory": {"memory_hard_limit": 1 << 24}}))
    with runtime.started() as client:
        runtime.wait_for_log("No cgroup controller cpu, cpuset, memory, ")
        for _ in range(2):
            with pytest.raises(Refused, match="controller memory is not available"):
                client.start("limited:0.0.1")
        client.start("a:0.0.1")
        runtime.wait_for_log("DEBUG: fine")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        assert process.statistics.keys() == {"processes"}
    assert runtime.output().count("No cgroup controller") == 1


def test_without_device_nodes(runtime: Runtime) -> None:
    """S-64: neither loop devices nor udev have to be there; nodes of /dev that are not are left out."""
    without(runtime, WITHOUT_NODES)
    runtime.pack(shell("a", "for f in /dev/*; do test -L $f || test ! -c $f || echo ${f#/dev/}; done; true"))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == ((0, None), ["null"])


def test_device_mapper_is_left_alone_without_a_key(runtime: Runtime) -> None:
    """S-64: only repositories with a key need it."""
    key = f'key = "{runtime.public_key}"'
    runtime.config.write_text(runtime.config.read_text().replace(key, ""))
    runtime.pack(shell("a", "echo fine"), signed=False)
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == ((0, None), ["fine"])
        assert runtime.process is not None
        directory = f"/proc/{runtime.process.pid}/fd"
        devices = {os.stat(f"{directory}/{name}").st_rdev for name in os.listdir(directory)}
        assert MAPPER_CONTROL not in devices
