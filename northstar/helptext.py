# SPDX-License-Identifier: Apache-2.0
"""Help of the command line programs, without what argparse does for it each time a program is started."""

from __future__ import annotations

import argparse
import os
import sys


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal. argparse would load archivers and compressors to find that out."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def do_not_translate() -> None:
    """There are no translations; to look for them, parser by parser, takes a tenth of a program's time."""
    os.environ["LANGUAGE"] = "C"


def _columns() -> int:
    """As shutil.get_terminal_size has it."""
    try:
        return int(os.environ.get("COLUMNS", "")) or _of_terminal()
    except ValueError:
        return _of_terminal()


def _of_terminal() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
