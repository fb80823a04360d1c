# SPDX-License-Identifier: Apache-2.0
"""A daemon and packages for the benchmarks, and the same root for crun."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from northstar import manifest
from northstar.client import Client
from northstar.npk import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 60.0

CONFIGURATION = """\
run_dir = "{base}/run"
data_dir = "{base}/data"
socket_dir = "{base}/sockets"
cgroup = "northstar-bench"

[console.global]
bind = "unix://{base}/console"
permissions = "full"
options = {{ max_requests_per_sec = 0 }}

[repositories.bench]
type = {{ fs = {{ dir = "{base}/repository" }} }}

[repositories.memory]
type = "mem"
"""


def bare_manifest(name: str, **more: object) -> dict[str, object]:
    """A container with /proc, /dev and /tmp that runs busybox's `true`."""
    return {
        "name": name,
        "version": "0.0.1",
        "init": "/bin/busybox",
        "args": ["true"],
        "uid": 1000,
        "gid": 1000,
        "mounts": {
            "/proc": {"type": "proc"},
            "/dev": {"type": "dev"},
            "/tmp": {"type": "tmpfs", "size": 1000000},
        },
        **more,
    }


class Bench:
    """Directories of one benchmark run below a temporary directory."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "root"
        self.repository = base / "repository"
        self.console = f"unix://{base}/console"
        for name in ("bin", "proc", "dev", "tmp"):
            (self.root / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.root / "bin/busybox")
        self.repository.mkdir()
        (base / "northstar.toml").write_text(CONFIGURATION.format(base=base))

    def pack(
        self, description: dict[str, object], compression: str = "gzip", directory: Path | None = None
    ) -> Path:
        """Pack the root with a manifest, by default into the repository."""
        parsed = manifest.parse(json.dumps(description).encode())
        out = str(directory or self.repository)
        return Path(pack.pack_root(parsed, str(self.root), out, key=None, compression=compression))

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """A running daemon; its log goes to a file below the base directory."""
        with (self.base / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "northstar", "--config", str(self.base / "northstar.toml")],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait_for_console(process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def wait_for_console(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the daemon answers requests."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                with Client.connect(self.console) as client:
                    client.list()
                return
            except OSError:
                time.sleep(0.01)
        raise SystemExit(f"the daemon does not start:\n{(self.base / 'log').read_text()}")


@contextmanager
def bench() -> Iterator[Bench]:
    """Directories in /run (tmpfs), removed afterwards."""
    base = Path(tempfile.mkdtemp(prefix="northstar-bench-", dir="/run"))
    try:
        yield Bench(base)
    finally:
        shutil.rmtree(base)
