# SPDX-License-Identifier: Apache-2.0
"""A small SELinux policy, compiled on the host and loaded on the device before the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from northstar.kernel import mount

SOURCE = Path(__file__).with_name("selinux.conf")
VARIABLE = "NORTHSTAR_TEST_POLICY"
FILE_SYSTEM = "/sys/fs/selinux"
VERSION = "31"
"""Known to kernels since 4.13."""


def compile_to(policy: Path) -> None:
    """Write the binary policy."""
    command = ["checkpolicy", "-M", "-U", "allow", "-c", VERSION, "-o", str(policy), str(SOURCE)]
    subprocess.run(command, check=True)


def load() -> None:
    """Load the policy that the environment names, once in the life of a kernel that has SELinux."""
    policy = os.environ.get(VARIABLE)
    if policy is None or not os.path.isdir(FILE_SYSTEM) or os.path.exists(f"{FILE_SYSTEM}/enforce"):
        return
    mount.mount("selinuxfs", FILE_SYSTEM, "selinuxfs", 0)
    descriptor = os.open(f"{FILE_SYSTEM}/load", os.O_WRONLY)
    data = Path(policy).read_bytes()
    written = os.write(descriptor, data)
    os.close(descriptor)
    assert written == len(data)
