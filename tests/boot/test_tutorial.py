# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md: every command is executed in its order, and prints what the tutorial shows."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import documented
from tests.documented import BUILD, ROOT, Step

PATIENCE = 300.0
MADE = ("tools", "gateway", "board", "gateway-0.1.0.npk", "gateway-0.2.0.npk")
TRY, BOARD = "sudo build/tools/bin/northstar try", "qemu/run --forward-console"
"""Those that go on until they are ended: by Ctrl-C, by `exit`."""


def steps() -> list[Step]:
    return documented.steps((ROOT / "docs/tutorial.md").read_text())


class Terminal:
    """A command on a terminal."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=ROOT,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            process_group=0,
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert self.process.poll() is None and time.monotonic() < deadline, self.shown
            self._read()
            time.sleep(0.05)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
            time.sleep(0.05)
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
        except OSError:
            return  # nothing there, or it has ended


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """That of a user, whose PATH has the tools that the tutorial installs; root needs no sudo."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    found = documented.environment(tmp_path)
    documented.remove(MADE)
    yield {**found, "PATH": f"{BUILD / 'tools/bin'}:{found['PATH']}", "COLUMNS": "200"}
    documented.remove(MADE)


def test_every_command(environment: dict[str, str]) -> None:
    if os.path.exists("/run/northstar/console"):
        pytest.skip("a runtime runs on this machine")
    board: Terminal | None = None
    try:
        for step in steps():
            if step.commands.startswith(TRY):
                printed = tried(step, environment)
            elif step.commands.startswith(BOARD):
                board = Terminal(step.commands.strip(), environment)
                board.wait_for("power off")
                printed = board.shown
            else:
                printed = documented.run(step.commands, environment, PATIENCE)
            for line in step.shown:
                assert line in printed, f"{step.commands}\n{printed}"
        assert board is not None
        board.type("exit\n")
        assert board.end() == 0
    finally:
        if board is not None:
            board.close()


def tried(step: Step, environment: dict[str, str]) -> str:
    """Until the container has said what is shown; then Ctrl-C."""
    terminal = Terminal(step.commands.strip(), environment)
    try:
        for line in step.shown:
            terminal.wait_for(line)
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.end() == 128 + signal.SIGINT
    finally:
        terminal.close()
    return terminal.shown


def test_tutorial_has_its_chapters() -> None:
    """The steps that the test handles in their own way are there."""
    commands = [step.commands for step in steps()]
    assert sum(text.startswith(TRY) for text in commands) == 1
    assert sum(text.startswith(BOARD) for text in commands) == 1
    assert any("nstar install" in text for text in commands)
