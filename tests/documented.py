# SPDX-License-Identifier: Apache-2.0
"""Documents whose commands are executed, as a reader does it who has this source tree and sudo."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HIDDEN = ("PYTHONPATH", "VIRTUAL_ENV", "NSTAR_URL")


class Step(NamedTuple):
    """A block of commands; `where` is its language, `shown` are lines among those that it prints."""

    where: str
    commands: str
    shown: list[str]


def steps(text: str) -> list[Step]:
    """The blocks of a text; one without a language belongs to the one before it."""
    found: list[Step] = []
    for language, block in _FENCE.findall(text):
        if language:
            found.append(Step(language, block, []))
        else:
            found[-1].shown.extend(block.splitlines())
    return found


def environment(directory: Path) -> dict[str, str]:
    """That of a user; root needs no sudo, so `directory` gets one that does nothing."""
    sudo = directory / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    return {**kept, "PATH": f"{directory}:{os.environ['PATH']}"}


def run(commands: str, environment: dict[str, str], timeout: float) -> str:
    """What a block prints."""
    done = subprocess.run(
        ["bash", "-eu", "-c", commands],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}"
    return done.stdout


def remove(names: Iterable[str]) -> None:
    """Remove what blocks have made in `build`."""
    for path in (BUILD / name for name in names):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
