# SPDX-License-Identifier: Apache-2.0
"""Texts of manifests and names of files are UTF-8, whatever the locale of who starts a program says."""

from __future__ import annotations

import os
import sys


def require_utf8() -> None:
    """Start the program anew in the interpreter's UTF-8 mode unless it encodes names that way already.

    The interpreter decides when it starts, by the locale. What is shown stays in the terminal's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"  # for the programs of ours that it starts
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
