# SPDX-License-Identifier: Apache-2.0
"""Paths at which nothing is: what is mounted from there is left out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from engineprocess import DONE, answer, engine

from northstar.engine import instructions as isa
from northstar.engine.assembler import Program
from northstar.kernel import paths
from northstar.runtime.spawning.reports import Report


def test_path_that_leads_nowhere(tmp_path: Path) -> None:
    """Engine and daemon mean the same by it."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    names = {
        "none": errno.ENOENT,
        "file/x": errno.ENOTDIR,
        "loop": errno.ELOOP,
        "x" * 256: errno.ENAMETOOLONG,
    }
    with engine() as process:
        for name, error in names.items():
            p = Program()
            path = str(tmp_path / name)
            answer(p, p.value("openat", -100, path, os.O_RDONLY, 0, tolerate=isa.NO_SUCH_PATH))
            assert process.run(p) == Report(DONE, -error, 0)
            assert paths.leads_nowhere(path)
    assert set(names.values()) == paths.LEADS_NOWHERE
    assert not paths.leads_nowhere(str(tmp_path / "file"))
