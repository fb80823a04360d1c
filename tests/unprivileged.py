# SPDX-License-Identifier: Apache-2.0
"""Running the programs of other build systems: as `nobody` if root calls, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
NOT_SOURCE = (
    ".git",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "build",
    "dist",
    "*.egg-info",
    "*.key",
    "*.pub",
)


@contextmanager
def directory(prefix: str) -> Iterator[Path]:
    """A directory that the unprivileged user owns; with NORTHSTAR_KEEP set it stays."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    path.chmod(0o755)
    give(path)
    try:
        yield path
    finally:
        if not os.environ.get("NORTHSTAR_KEEP"):
            shutil.rmtree(path, ignore_errors=True)


def give(path: Path) -> None:
    """Make the unprivileged user the owner of everything in a directory."""
    if os.geteuid() == 0:
        for found in (path, *path.rglob("*")):
            shutil.chown(found, "nobody", "nogroup")


def copy_source(target: Path) -> None:
    """A copy of this repository, without what is made in it."""
    shutil.copytree(REPOSITORY, target, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    give(target)


def run(
    command: str, work: Path, path: str = PATH, timeout: float = 3600
) -> subprocess.CompletedProcess[str]:
    """Run a command of bash in `work`, niced, with nothing else of this process's environment."""
    environment = {"PATH": path, "HOME": str(work), "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8"}
    root = os.geteuid() == 0
    return subprocess.run(
        ["nice", "bash", "-c", command],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        user="nobody" if root else None,
        group="nogroup" if root else None,
        extra_groups=[] if root else None,
    )
