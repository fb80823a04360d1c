# SPDX-License-Identifier: Apache-2.0
"""Writes all files that are made: from the command lines of the programs, the picture, captures of sessions.

Captures are made of a real runtime, differ each time, and need root: only with --captures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools import completions, manpages, picture

ROOT = Path(__file__).resolve().parent.parent


def made() -> dict[Path, str]:
    """Content by path."""
    scripts = {ROOT / "northstar/completions" / name: text for name, text in completions.files().items()}
    pages = {ROOT / "docs/man" / name: text for name, text in manpages.files().items()}
    return scripts | pages | {ROOT / "docs/picture.svg": picture.svg()}


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if sys.argv[1:] == ["--captures"]:
        subprocess.run([sys.executable, "tests/captures.py"], cwd=ROOT, check=True)
