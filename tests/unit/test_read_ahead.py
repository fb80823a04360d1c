# SPDX-License-Identifier: Apache-2.0
"""What is read of an image before its program is started: nothing outside of it, and nothing that waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from northstar.runtime.containers.mounts import _read_ahead


def test_a_program(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/program").write_text("x" * 100_000)
    (tmp_path / "init").symlink_to("/bin/program")
    _read_ahead(str(tmp_path), "/init")


def test_a_program_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "outside").symlink_to("../../../../../../etc/passwd")
    for program in ("/fifo", "/outside", "/missing"):
        with pytest.raises(OSError):
            _read_ahead(str(tmp_path), program)
