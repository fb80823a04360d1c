# SPDX-License-Identifier: Apache-2.0
"""The runtime as it is installed: from a checkout it would look for a compiler and for what the cache has."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.daemon import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def installed() -> Iterator[None]:
    """Make programs that are started import a compiled copy of this checkout, beside which the engine is."""
    with tempfile.TemporaryDirectory(prefix="northstar-bench-") as place:
        package = Path(place) / "northstar"
        shutil.copytree(ROOT / "northstar", package, ignore=shutil.ignore_patterns("__pycache__"))
        build = [sys.executable, str(package / "engine/build.py")]
        subprocess.run([*build, "--output", str(package / "engine/northstar-engine")], check=True)
        compileall.compile_dir(place, quiet=1)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = place
        try:
            yield
        finally:
            del os.environ["PYTHONPATH"]
            if before is not None:
                os.environ["PYTHONPATH"] = before
