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
from northstar.npk import pack, package

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
PYTHON = (sys.executable, "-P")
"""Does not import from the working directory."""

PROGRAM = (*PYTHON, "-m", "northstar")
START_LIMIT = 60.0

CONFIGURATION = """\
run_dir = "{base}/run"
data_dir = "{base}/data"
socket_dir = "{base}/sockets"
cgroup = "{cgroup}"
{ours}
[console.global]
bind = "unix://{base}/console"
permissions = "full"
options = {{ max_requests_per_sec = {limit} }}

[repositories.bench]
type = {{ fs = {{ dir = "{base}/repository" }} }}

[repositories.memory]
type = "mem"
"""

OURS = """\
# With control groups of version 1 a limit is a group; the peer runs with --cgroup-manager=disabled.
pids_max = 0
"""
"""What upstream does not know."""


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
    """Directories of a daemon below a temporary directory."""

    def __init__(self, base: Path, program: Sequence[str], request_limit: int, ours: str) -> None:
        self.base = base
        self.root = base / "root"
        self.repository = base / "repository"
        self.console = f"unix://{base}/console"
        self.command = [*program, "--config", str(base / "northstar.toml")]
        for name in ("bin", "proc", "dev", "tmp"):
            (self.root / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.root / "bin/busybox")
        self.repository.mkdir()
        configuration = CONFIGURATION.format(base=base, cgroup=base.name, limit=request_limit, ours=ours)
        (base / "northstar.toml").write_text(configuration)

    def pack(
        self, description: dict[str, object], compression: str = "gzip", directory: Path | None = None
    ) -> Path:
        """Pack the root with a manifest, by default into the repository."""
        out = str(directory or self.repository)
        parsed = manifest.parse(json.dumps(description).encode())
        return Path(pack.pack_root(parsed, str(self.root), out, compression=compression))

    def pack_all(self, descriptions: Sequence[dict[str, object]], compression: str = "gzip") -> list[Path]:
        """Pack the root with several manifests that have the same mount points; the image is made once."""
        first = self.pack(descriptions[0], compression)
        image = self.base / "image"
        with first.open("rb") as file:
            loaded = package.load(file.fileno(), None, str(first))
            file.seek(loaded.image_offset)
            image.write_bytes(file.read(loaded.image_size))
        packages = [first]
        for description in descriptions[1:]:
            parsed = manifest.parse(json.dumps(description).encode())
            packages.append(Path(pack.pack_image(parsed, str(image), str(self.repository))))
        image.unlink()
        return packages

    @contextmanager
    def daemon(self, pause: float = 0.01) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon that answers, looked for every `pause` seconds; its log goes to a file below `base`."""
        with (self.base / "log").open("ab") as log:
            process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)
        try:
            self.wait_for_console(process, pause)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def wait_for_console(self, process: subprocess.Popen[bytes], pause: float = 0.01) -> None:
        """Wait until the daemon answers requests; look every `pause` seconds."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with Client.connect(self.console) as client:
                    client.list()
                return
            except OSError:
                time.sleep(pause)
        raise SystemExit(f"the daemon does not start:\n{(self.base / 'log').read_text()}")


@contextmanager
def bench(program: Sequence[str] = PROGRAM, *, request_limit: int = 0, ours: str = OURS) -> Iterator[Bench]:
    """Directories in /run, removed afterwards; by default the daemon of this checkout.

    `request_limit` is the number of requests per second that a client may send, 0 for no limit. `ours` is
    what the configuration has besides.
    """
    base = Path(tempfile.mkdtemp(prefix="northstar-bench-", dir="/run"))
    try:
        yield Bench(base, program, request_limit, ours)
    finally:
        shutil.rmtree(base)
