# SPDX-License-Identifier: Apache-2.0
"""What `northstar --check` does with standard streams that are not as usual."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NEW = """\
run_dir = "/run/ns"
data_dir = "/data"
socket_dir = "/sockets"
cgroup = "northstar"
"""


def test_check_in_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    path = tmp_path / "größe.toml"
    path.write_text(NEW + "ü = 1\n")
    command = [sys.executable, "-m", "northstar", "--check", "-c", str(path)]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert "unknown key" in done.stdout or "invalid TOML" in done.stdout


def test_nobody_reads_the_result_of_a_check(tmp_path: Path) -> None:
    path = tmp_path / "northstar.toml"
    path.write_text(NEW)
    reader, written = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "northstar", "--check", "-c", str(path)]
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, check=False)
    os.close(written)
    assert (done.returncode, done.stderr) == (141, "")
