# SPDX-License-Identifier: Apache-2.0
"""Debian packages of another architecture, unpacked without being installed.

apt works on directories of its own here: nothing of the host's package state is read or changed but its
list of sources, so this needs no root.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from qemu import cache, steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ARCHITECTURE = "arm64"


class Apt:
    """A private apt for one architecture, below a work directory."""

    def __init__(self, work: Path) -> None:
        self._state = work / "apt"
        self._log = work / "apt.log"
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self._state / name).mkdir(parents=True)
        (self._state / "state/status").touch()
        steps.run([*self._command(), "update"], self._log)

    def download(self, packages: Sequence[str], target: Path) -> list[Path]:
        """Download packages without what they depend on; their files."""
        target.mkdir(parents=True, exist_ok=True)
        steps.run([*self._command(), "download", *packages], self._log, cwd=target)
        return sorted(target.glob("*.deb"))

    def _command(self) -> list[str]:
        options = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Sandbox::User": "",
            "Dir::State": str(self._state / "state"),
            "Dir::State::status": str(self._state / "state/status"),
            "Dir::Cache": str(self._state / "cache"),
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]


def unpack(package: Path, root: Path) -> None:
    """Unpack the files of a package into a root whose /bin, /sbin and /lib may be links into /usr."""
    archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
    done = subprocess.run(extract, stdin=archive.stdout, check=False)
    if archive.wait() or done.returncode:
        raise steps.StepFailed(f"failed to unpack {package}")


def announce(packages: Sequence[str]) -> None:
    """Tell the user about a download."""
    cache.progress(f"downloading {len(packages)} Debian packages for {ARCHITECTURE}")
