# SPDX-License-Identifier: Apache-2.0
"""What `sextant init` makes runs as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from abilities import has_mksquashfs
from runtime import Runtime, environment

SEXTANT = [sys.executable, "-m", "northstar.sextant.cli"]


def sextant(*arguments: str) -> None:
    done = subprocess.run(
        [*SEXTANT, *arguments], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["--shell", "--python"])
def test_made_container_runs(kind: str, runtime: Runtime, tmp_path: Path) -> None:
    missing = has_mksquashfs()
    if missing is None and kind == "--python" and not Path("/usr/bin/python3").exists():
        missing = "there is no /usr/bin/python3"
    if missing is not None:
        pytest.skip(missing)
    made = tmp_path / "first"
    sextant("init", kind, "--out", str(made), "first")
    sextant(
        *("pack", "--manifest-path", str(made / "manifest.yaml"), "--root", str(made / "root")),
        *("--key", str(runtime.base / "test.key"), "--out", str(runtime.repository)),
    )
    with runtime.started() as client:
        client.start("first:0.1.0")
        runtime.wait_for_log("Hello from first:0.1.0, uid 1000")
        client.kill("first:0.1.0", 15)
        runtime.wait_for_log("asked to end")


def test_static_program_runs(runtime: Runtime, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    missing = has_mksquashfs() or (None if compiler else "gcc is not installed")
    if missing is not None:
        pytest.skip(missing)
    source = tmp_path / "first.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("static hello"); return 0; }\n')
    subprocess.run([str(compiler), "-static", str(source), "-o", str(tmp_path / "first")], check=True)
    made = tmp_path / "made"
    sextant("init", "--static-binary", str(tmp_path / "first"), "--out", str(made), "first")
    sextant(
        *("pack", "--manifest-path", str(made / "manifest.yaml"), "--root", str(made / "root")),
        *("--key", str(runtime.base / "test.key"), "--out", str(runtime.repository)),
    )
    with runtime.started() as client:
        client.start("first:0.1.0")
        runtime.wait_for_log("static hello")
