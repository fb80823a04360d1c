# SPDX-License-Identifier: Apache-2.0
"""Debian packages of another architecture, unpacked without being installed.

apt works on directories of its own in the cache: nothing of the host's package state is read or changed but
its list of sources, so this needs no root. The lists of what there is are read anew after an hour.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qemu import cache, progress, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

ARCHITECTURE = "arm64"
_LISTS_LIVE = 3600.0

NOT_FOR_CONTAINERS = ("etc", "usr/share", "var", "lib/systemd", "usr/lib/systemd", "usr/lib/*/gconv")
"""Nothing that a program needs."""


class Apt:
    """A private apt for one architecture. Its methods raise StepFailed."""

    def __init__(self, architecture: str = ARCHITECTURE) -> None:
        self._architecture = architecture
        self._state = cache.directory() / f"apt-{architecture}"
        self._log = self._state / "log"
        self._updated = self._state / "updated"
        with cache.locked(self._state.name):
            for name in ("state/lists/partial", "cache/archives/partial"):
                (self._state / name).mkdir(parents=True, exist_ok=True)
            (self._state / "state/status").touch()
            if not self._updated.exists() or time.time() - self._updated.stat().st_mtime > _LISTS_LIVE:
                self._log.unlink(missing_ok=True)
                steps.run([*self._command("apt-get"), "update"], self._log)
                self._updated.touch()

    def download(self, packages: Sequence[str], target: Path) -> list[Path]:
        """Download packages without what they depend on; their files."""
        target.mkdir(parents=True, exist_ok=True)
        self._run("download", *packages, cwd=target)
        return sorted(target.glob("*.deb"))

    def download_all(self, packages: Sequence[str], target: Path) -> list[Path]:
        """Download packages and all that they depend on; their files."""
        (target / "partial").mkdir(parents=True, exist_ok=True)
        where = f"-oDir::Cache::archives={target}"
        self._run(where, "install", "-y", "--download-only", "--no-install-recommends", *packages)
        return sorted(target.glob("*.deb"))

    def dependency(self, package: str) -> str:
        """The package that one without files of its own stands for."""
        command = [*self._command("apt-cache"), "depends", "--important", package]
        with cache.locked(self._state.name):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  Depends:")]
        if len(names) != 1:
            raise steps.StepFailed(
                f"Debian's package {package} is not as expected:\n{done.stdout}{done.stderr}"
            )
        return names[0]

    def _run(self, *arguments: str, cwd: Path | None = None) -> None:
        with cache.locked(self._state.name):
            steps.run([*self._command("apt-get"), *arguments], self._log, cwd=cwd)

    def _command(self, program: str) -> list[str]:
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
        return [program, "-q", *(f"-o{key}={value}" for key, value in options.items())]


def unpack(package: Path, root: Path) -> None:
    """Unpack the files of a package into a root whose /bin, /sbin and /lib may be links into /usr.

    Raises StepFailed.
    """
    archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
    done = subprocess.run(extract, stdin=archive.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if archive.stdout is not None:
        archive.stdout.close()  # a tar that has failed does not leave dpkg-deb waiting
    if archive.wait() or done.returncode:
        raise steps.StepFailed(f"failed to unpack {package}:\n{done.stderr}")


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
    with progress.step(f"downloading {len(packages)} Debian packages"):
        Apt(architecture).download(packages, work / "packages")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
