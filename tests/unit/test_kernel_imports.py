# SPDX-License-Identifier: Apache-2.0
"""The kernel modules are cheap to load: nothing heavy comes with them, and they load with -I -S."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

import northstar.kernel

PACKAGE = pathlib.Path(northstar.kernel.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
ALLOWED = {"__future__", "errno", "fcntl", "select", "time"}

SCRIPT = """
import sys
import ctypes, struct
type("Structure", (ctypes.Structure,), {"_fields_": [("a", ctypes.c_int)]})  # loads more of ctypes (3.14)
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
__import__("northstar.kernel." + sys.argv[2])
new = sorted(set(sys.modules) - before)
sys.stdout.write(repr(new).replace("'", '"'))
"""


def imported_by(module: str) -> set[str]:
    """Modules that come with a kernel module in a fresh isolated interpreter."""
    root = os.fspath(PACKAGE.parent.parent)
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT, root, module], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("module", MODULES)
def test_lean(module: str) -> None:
    new = imported_by(module)
    assert f"northstar.kernel.{module}" in new
    ours = {"northstar", *(name for name in new if name.split(".")[:2] == ["northstar", "kernel"])}
    assert new - ours <= ALLOWED


def test_every_module_is_seen() -> None:
    assert {"libc", "mount", "loopdevice", "dm", "namespaces", "capabilities", "prctl"} <= set(MODULES)
