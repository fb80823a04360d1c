# SPDX-License-Identifier: Apache-2.0
"""crun as the peer: the same root and the same namespaces, from an OCI bundle."""

from __future__ import annotations

import json
import os
import struct
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from northstar.kernel import mount, namespaces
from northstar.npk.package import load

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = struct.Struct("<d")


class _Peer(ABC):
    """Runs crun in a process with a mount namespace of its own.

    crun insists on a cgroup2 file system at /sys/fs/cgroup even when it shall not use cgroups; the
    daemon under test must not see that mount.
    """

    def __init__(self) -> None:
        orders, self._orders = os.pipe()
        self._results, results = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._orders)
            self._serve(orders, results)
        os.close(orders)
        os.close(results)

    def run(self, count: int = 1) -> float:
        """Seconds that `count` containers take, one after the other."""
        os.write(self._orders, bytes([count]))
        data = os.read(self._results, _SECONDS.size)
        if not data:
            raise SystemExit("crun failed")
        seconds: float = _SECONDS.unpack(data)[0]
        return seconds

    def close(self) -> None:
        """End the helper process."""
        os.close(self._orders)
        os.close(self._results)
        os.waitpid(self._pid, 0)

    def _serve(self, orders: int, results: int) -> None:
        status = 1
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
            mount.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0)
            while count := os.read(orders, 1):
                numbers = range(count[0])
                began = time.perf_counter()
                for number in numbers:
                    self._one(number)
                seconds = time.perf_counter() - began
                for number in numbers:
                    self._remove(number)
                os.write(results, _SECONDS.pack(seconds))
            status = 0
        finally:
            os._exit(status)

    @abstractmethod
    def _one(self, number: int) -> None:
        """What is measured."""

    @abstractmethod
    def _remove(self, number: int) -> None:
        """What comes afterwards and is not measured."""


class Crun(_Peer):
    """`crun run` of busybox's `true` in a plain directory, from spawn to exit."""

    def __init__(self, root: Path, directory: Path) -> None:
        self._bundle = _make_bundle(directory / "bundle", root, ["true"])
        super().__init__()

    def _one(self, number: int) -> None:
        _crun("run", "-b", str(self._bundle), f"bench-{os.getpid()}-{number}")

    def _remove(self, number: int) -> None:
        """Nothing is left of it."""


class CrunWithImages(_Peer):
    """What autostart does: mount the image of a package, start a container in it that goes on running."""

    def __init__(self, packages: list[Path], directory: Path) -> None:
        self._images = []
        for number, package in enumerate(packages):
            with package.open("rb") as file:
                offset = load(file.fileno(), None, str(package)).image_offset
            bundle = directory / f"bundle-{number}"
            root = bundle / "rootfs"
            _make_bundle(bundle, root, ["sleep", "1000"])
            root.mkdir()
            self._images.append((package, offset, bundle, root))
        super().__init__()

    def _one(self, number: int) -> None:
        package, offset, bundle, root = self._images[number]
        _run("mount", "-t", "squashfs", "-o", f"ro,loop,offset={offset}", str(package), str(root))
        _crun("run", "--detach", "-b", str(bundle), bundle.name)

    def _remove(self, number: int) -> None:
        _, _, bundle, root = self._images[number]
        _crun("delete", "--force", bundle.name)
        _run("umount", str(root))


def _crun(*arguments: str) -> None:
    _run("crun", "--cgroup-manager=disabled", *arguments)


def _run(*command: str) -> None:
    _, status = os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed with wait status {status}")


def _make_bundle(bundle: Path, root: Path, arguments: list[str]) -> Path:
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(_oci_configuration(root, arguments)))
    return bundle


def _oci_configuration(root: Path, arguments: list[str]) -> dict[str, object]:
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 1000, "gid": 1000},
            "args": ["/bin/busybox", *arguments],
            "env": [],
            "cwd": "/",
            "capabilities": {name: [] for name in sets},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=65536k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup")]
        },
    }
