# SPDX-License-Identifier: Apache-2.0
"""Programs on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime import TIMEOUT, Runtime, environment


def on_terminal(
    runtime: Runtime, *arguments: str, variables: Mapping[str, str], directory: Path | None = None
) -> str:
    """What nstar writes to a terminal, when it has ended."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "northstar.nstar.main", "-u", runtime.url, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env={**environment(), **variables},
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 4096):
            output += chunk
    except OSError:
        pass  # nobody has the other side any more
    finally:
        os.close(ours)
        process.wait(TIMEOUT)
    return output.decode()
