# SPDX-License-Identifier: Apache-2.0
"""What an idle daemon does not load: each of these is paid for in memory on every device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOADED = "import sys, northstar.runtime.main, northstar.runtime.daemon; print(*sys.modules)"


@pytest.mark.parametrize(
    "module",
    [
        "_hashlib",
        "argparse",
        "asyncio",
        "getopt",
        "gettext",
        "glob",
        "hmac",
        "nacl",
        "northstar.policy.check",
        "northstar.trial",
        "northstar.updates",
        "pyseccomp",
        "subprocess",
        "yaml",
    ],
)
def test_is_not_loaded(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "northstar.runtime.daemon" in done.stdout.split()
    assert module not in done.stdout.split()
