# SPDX-License-Identifier: Apache-2.0
"""crun as the peer: the same root and the same namespaces, from an OCI bundle."""

from __future__ import annotations

import json
import os
import struct
import time
from typing import TYPE_CHECKING

from northstar.kernel import mount, namespaces

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = struct.Struct("<d")


class Crun:
    """Runs crun in a process with a mount namespace of its own.

    crun insists on a cgroup2 file system at /sys/fs/cgroup even when it shall not use cgroups; the
    daemon under test must not see that mount.
    """

    def __init__(self, root: Path, directory: Path) -> None:
        self._bundle = directory / "bundle"
        self._bundle.mkdir()
        (self._bundle / "config.json").write_text(json.dumps(_oci_configuration(root)))
        orders, self._orders = os.pipe()
        self._results, results = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._orders)
            self._serve(orders, results)
        os.close(orders)
        os.close(results)

    def run(self, count: int = 1) -> float:
        """Seconds of `count` times `crun run`, one after the other, from spawn to exit."""
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
                began = time.perf_counter()
                for number in range(count[0]):
                    self._run_once(f"bench-{os.getpid()}-{number}")
                os.write(results, _SECONDS.pack(time.perf_counter() - began))
            status = 0
        finally:
            os._exit(status)

    def _run_once(self, name: str) -> None:
        arguments = ["crun", "--cgroup-manager=disabled", "run", "-b", str(self._bundle), name]
        pid = os.posix_spawnp("crun", arguments, os.environ)
        _, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit(f"crun failed with wait status {status}")


def _oci_configuration(root: Path) -> dict[str, object]:
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 1000, "gid": 1000},
            "args": ["/bin/busybox", "true"],
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
