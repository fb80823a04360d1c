# SPDX-License-Identifier: Apache-2.0
"""Writes all files that are made from the command lines of the programs."""

from __future__ import annotations

from pathlib import Path

from tools import completions, manpages

ROOT = Path(__file__).resolve().parent.parent


def made() -> dict[Path, str]:
    """Content by path."""
    scripts = {ROOT / "northstar/completions" / name: text for name, text in completions.files().items()}
    pages = {ROOT / "docs/man" / name: text for name, text in manpages.files().items()}
    return scripts | pages


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
