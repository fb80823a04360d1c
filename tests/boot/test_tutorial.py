# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md: every command is executed in its order, and prints what the tutorial shows."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PATIENCE = 300.0
TRY, BOARD = "sudo build/tools/bin/northstar try", "qemu/run --forward-console"
"""Those that go on until they are ended: by Ctrl-C, by `exit`."""


class Step(NamedTuple):
    """Commands of a block, and the lines that it prints among others."""

    commands: str
    shown: list[str]


def steps() -> list[Step]:
    found: list[Step] = []
    for language, text in FENCE.findall((ROOT / "docs/tutorial.md").read_text()):
        if language == "sh":
            found.append(Step(text, []))
        else:
            found[-1].shown.extend(text.splitlines())
    return found


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
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    made = [BUILD / name for name in ("tools", "gateway", "board")]
    made += [BUILD / f"gateway-{version}.npk" for version in ("0.1.0", "0.2.0")]

    def clean() -> None:
        for path in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    clean()
    hidden = ("PYTHONPATH", "NSTAR_URL", "VIRTUAL_ENV")
    clean_environment = {name: value for name, value in os.environ.items() if name not in hidden}
    path = os.pathsep.join((str(BUILD / "tools/bin"), str(tmp_path), os.environ["PATH"]))
    yield {**clean_environment, "PATH": path, "COLUMNS": "200"}
    clean()


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
                printed = run(step.commands, environment)
            for line in step.shown:
                assert line in printed, f"{step.commands}\n{printed}"
        assert board is not None
        board.type("exit\n")
        assert board.end() == 0
    finally:
        if board is not None:
            board.close()


def run(commands: str, environment: dict[str, str]) -> str:
    """What a block prints."""
    done = subprocess.run(
        ["bash", "-eu", "-c", commands],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}"
    return done.stdout


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
