# SPDX-License-Identifier: Apache-2.0
"""docs/fleet.md, from the tools to a version that is taken back: every command, on this host and in QEMU."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qemu import kernels, rootfs
from qemu.machine import Machine, Options, make_data_disk
from tests import documented
from tests.documented import BUILD, ROOT, Step

pytest.importorskip("northstar.updates", reason="this runtime has no updates")

SERVER, BOARD = "python3 -m bench.hawkbit", "qemu/run --fresh"
PATIENCE = 400.0
MADE = ("tools", "gateway", "board", "board.token", "gateway-0.1.0.npk", "gateway-0.2.0.npk")


def steps() -> list[Step]:
    """`sh` is for this host, `shell` for the board."""
    text = (ROOT / "docs/fleet.md").read_text()
    (story,) = re.findall(r"^## Try it\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    return documented.steps(story)


class Host:
    """This machine, with a PATH and variables that blocks export."""

    def __init__(self, directory: Path) -> None:
        self.environment = documented.environment(directory)
        self._directory = directory

    def run(self, commands: str) -> str:
        """What a block prints; its exports last."""
        kept = self._directory / "environment"
        shown = documented.run(f"{commands}\nenv -0 > {kept}", self.environment, PATIENCE)
        self.environment = dict(pair.split("=", 1) for pair in kept.read_text().split("\0") if pair)
        return shown

    def serve(self, command: str, stack: ExitStack) -> str:
        """Start the server; it ends with the stack."""
        log = self._directory / "server.log"
        file = stack.enter_context(log.open("wb"))
        words = command.split()
        process = subprocess.Popen(words, cwd=ROOT, env=self.environment, stdout=file, stderr=file)

        def end() -> None:
            process.terminate()
            process.wait(60)

        stack.callback(end)
        deadline = time.monotonic() + PATIENCE
        while "hawkBit: http" not in log.read_text():
            if process.poll() is not None:
                pytest.skip(log.read_text())
            assert time.monotonic() < deadline
            time.sleep(0.5)
        return log.read_text()


def booted(directory: Path, stack: ExitStack) -> Machine:
    """The board of qemu/run --fresh."""
    data = directory / "data.ext4"
    make_data_disk(data)
    kernel = kernels.find(kernels.DEBIAN)
    image = rootfs.image(rootfs.BUSYBOX) / "rootfs.squashfs"
    return stack.enter_context(Machine(Options(kernel.image, image, kernel.initramfs, data)))


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("not root")
    documented.remove(MADE)
    BUILD.mkdir(exist_ok=True)
    yield
    documented.remove(MADE)


def test_every_command(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with ExitStack() as stack:
        machine: Machine | None = None
        for step in steps():
            if step.commands.startswith(SERVER):
                printed = host.serve(step.commands, stack)
            elif step.commands.startswith(BOARD):
                machine = booted(tmp_path, stack)
                printed = ""
            elif step.where == "shell":
                assert machine is not None
                printed = machine.output(f"exec 2>&1\n{step.commands}", timeout=PATIENCE)
            else:
                printed = host.run(step.commands)
            for line in step.shown:
                assert line in printed, f"{step.commands}\n{printed}"


def test_story_has_its_chapters() -> None:
    commands = [step.commands for step in steps()]
    assert sum(text.startswith(SERVER) for text in commands) == 1
    assert sum(text.startswith(BOARD) for text in commands) == 1
    assert sum("northstar-agent" in text for text in commands) == 2
