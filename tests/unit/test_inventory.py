# SPDX-License-Identifier: Apache-2.0
"""What is told of a device's processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from engineprocess import answer, engine

from northstar.engine import binary
from northstar.engine.assembler import Program
from northstar.kernel import prctl
from northstar.programs import control
from northstar.runtime.spawning import channel
from qemu import inventory


@pytest.fixture(autouse=True)
def this_process_is_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "PID_FILE", str(tmp_path / "pid"))
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")


def test_processes_of_the_runtime() -> None:
    """The engine and the process that waits are told apart."""
    naming = Program()
    naming.call("prctl", prctl.PR_SET_NAME, binary.NAME)
    answer(naming)
    with engine() as process:
        process.run(naming)
        found = inventory.processes()
        assert found["daemon"] > found["engine"] > 0
        assert found["init kept ready"] == 0
        ours, theirs = channel.pair()
        born = process.run(control.birth(0), [theirs.fileno()])
        theirs.close()
        assert born is not None
        # It gives itself the name.
        deadline = time.monotonic() + 60
        while inventory.children(process.pid, inventory.SPARE) != [born.value]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert inventory.processes()["init kept ready"] > 0
        ours.close()


def test_daemon_without_an_engine() -> None:
    with pytest.raises(SystemExit, match=f"process {os.getpid()}, has no engine"):
        inventory.processes()
