# SPDX-License-Identifier: Apache-2.0
"""Running commands that take a while: their output goes to a log, whose end is shown if they fail."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SHOWN_LINES = 40


class StepFailed(Exception):
    """A command failed; the message holds the end of its output."""


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command, append its output to a log. Raises StepFailed."""
    words = [str(word) for word in command]
    with log.open("ab") as output:
        output.write(f"$ {shlex.join(words)}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                words,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        except FileNotFoundError:
            raise StepFailed(f"{words[0]} is not installed") from None
    if done.returncode:
        tail = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        raise StepFailed(f"{shlex.join(words)[:200]} failed ({done.returncode}):\n" + "\n".join(tail))
