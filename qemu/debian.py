# SPDX-License-Identifier: Apache-2.0
"""Debian packages of another architecture, unpacked without being installed.

apt works on directories of its own here: nothing of the host's package state is read or changed but its
list of sources, so this needs no root.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qemu import cache, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

ARCHITECTURE = "arm64"


NOT_FOR_CONTAINERS = ("etc", "usr/share", "var", "lib/systemd", "usr/lib/systemd", "usr/lib/*/gconv")
"""Nothing that a program needs."""


class Apt:
    """A private apt for one architecture, below a work directory."""

    def __init__(self, work: Path, architecture: str = ARCHITECTURE) -> None:
        self._architecture = architecture
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
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
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
    cache.progress(f"downloading {len(packages)} Debian packages ")


def main(arguments: Sequence[str]) -> int:
    """Unpack packages of an architecture into a root: ARCHITECTURE ROOT PACKAGE..."""
    architecture, root, *packages = arguments
    target = Path(root)
    inputs: list[Path | str] = [architecture, *packages, Path(__file__)]
    downloads = cache.made("packages", inputs, lambda work: _download(work, architecture, packages))
    for package in sorted((downloads / "packages").glob("*.deb")):
        unpack(package, target)
    for pattern in NOT_FOR_CONTAINERS:
        for path in target.glob(pattern):
            shutil.rmtree(path)
    return 0


def _download(work: Path, architecture: str, packages: Sequence[str]) -> None:
    announce(packages)
    Apt(work, architecture).download(packages, work / "packages")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
