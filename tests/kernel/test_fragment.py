# SPDX-License-Identifier: Apache-2.0
"""The kernel options on top of the kernel's own default configurations, merged by the kernel's own script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qemu import kernel

CHECK = Path(__file__).resolve().parent.parent.parent / "check_conf.sh"
MACHINES = {"arm64": ("defconfig", kernel.CROSS_COMPILE), "x86": ("x86_64_defconfig", "")}


@pytest.mark.parametrize("architecture", MACHINES)
def test_no_option_is_lost(architecture: str, tmp_path: Path) -> None:
    """Neither unknown to the kernel nor switched off by a dependency."""
    base, compiler = MACHINES[architecture]
    tree = kernel.source() / "linux"
    done = subprocess.run(
        [
            "scripts/kconfig/merge_config.sh",
            "-O",
            tmp_path,
            f"arch/{architecture}/configs/{base}",
            kernel.RUNTIME_FRAGMENT,
        ],
        cwd=tree,
        env={**os.environ, "ARCH": architecture, "CROSS_COMPILE": compiler},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    config = tmp_path / ".config"
    assert kernel.missing_options(kernel.RUNTIME_FRAGMENT.read_text(), config.read_text()) == []
    checked = subprocess.run([CHECK, "-q", config], capture_output=True, text=True, check=False)
    assert checked.stdout == "kernel is correctly configured for northstar\n"
